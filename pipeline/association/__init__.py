"""Association: which children of a unit are the same person. Pure functions on arrays; no database.

nodes -> candidates (blocking) -> pair_scores -> clustering, reassignment -> decisions -> stitching
"""
