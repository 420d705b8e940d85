"""Crops come in through one of three doors: a manifest, a data set in a known layout, a video with its people found.

Each door turns its source into `Candidate`s; `take_in` does the rest, the same way for all.
"""
