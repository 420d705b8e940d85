"""Calibration: fits what a distance and a transit time mean at each level, and measures how reliable that is."""
