"""Labeled data sets: one module for each layout, all opened by `open_dataset`.

A `Dataset` describes three splits of samples; `Dataset.load` decodes the pictures of a split.
"""

from reid_core.datasets.check import CheckReport, Finding, SplitCounts, check_dataset
from reid_core.datasets.dataset import SPLITS, Counts, Dataset, Published, Sample, SplitName, split_queries
from reid_core.datasets.hold_out import hold_out
from reid_core.datasets.sources import open_dataset

__all__ = [
    "SPLITS",
    "CheckReport",
    "Counts",
    "Dataset",
    "Finding",
    "Published",
    "Sample",
    "SplitCounts",
    "SplitName",
    "check_dataset",
    "hold_out",
    "open_dataset",
    "split_queries",
]
