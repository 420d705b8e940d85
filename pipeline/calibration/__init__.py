"""Calibration: what a distance and a transit time mean at each level, and how reliable that is."""
