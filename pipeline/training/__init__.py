"""From labeled people to another model in use: train a candidate, compare, re-embed, promote, roll back."""
