"""Encryption at rest: the key that wraps, the data keys of districts and days, and sealed files."""
