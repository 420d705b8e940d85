"""Evaluation: distances, ranking and verification metrics, re-ranking."""
