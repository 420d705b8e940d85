"""From labeled people to another model in use: train a candidate, compare it, re-embed, promote, roll back."""
