"""Cameras that are looked at all the time: their feeds, health and outages."""
