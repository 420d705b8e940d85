"""Accuracy against known truth: labels, metrics, the scorecard, and baseline methods for comparison."""
