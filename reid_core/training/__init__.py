"""Training: the loop, its plans, losses, sampling and augmentation, and reproduction of the paper's tables."""
