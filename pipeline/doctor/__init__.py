"""Looks at a data directory and its city, and says what to do about what it finds."""
