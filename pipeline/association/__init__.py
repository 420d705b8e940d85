"""The one operator: which children of a unit are the same person. Pure functions on arrays; no database.

nodes -> block (who is compared) -> score (how alike) -> cluster (who is one) -> decisions
"""
