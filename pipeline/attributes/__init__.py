"""Attributes of people in the city: recognized in a few crops of each tracklet, and read for identities."""
