"""The input of the association: identities as prototypes and time spans, in columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import lt
from typing import Protocol

import numpy as np

from schemas.arrays import Bools, Floats, Ints


@dataclass(frozen=True)
class Spans:
    """The tracklets of n nodes in one array; those of node i are rows first[i]:first[i + 1], by start."""

    camera: Ints  # (s,) index into the geometry's cameras
    start_us: Ints  # (s,) microseconds UTC
    end_us: Ints  # (s,)
    first: Ints  # (n + 1,)

    @cached_property
    def counts(self) -> Ints:
        """(n,) Tracklets per node."""
        return np.diff(self.first)

    def first_from(self, node: Ints, time_us: Ints) -> Ints:
        """(p,) Index of the node's first tracklet that starts at or after the time; the node's end if there is none."""
        earliest, width, keys = self._sorted_keys
        return np.searchsorted(keys, node * width + np.minimum(np.maximum(time_us - earliest, 0), width - 1))

    @property
    def duration_us(self) -> int:
        """From the first start to the last end of all tracklets."""
        return int(self.end_us.max() - self.start_us.min()) if len(self.start_us) else 0

    @cached_property
    def _sorted_keys(self) -> tuple[int, int, Ints]:
        """Earliest start, width, and one ascending key per tracklet: node * width + start - earliest start."""
        earliest = int(self.start_us.min()) if len(self.start_us) else 0
        width = int((self.start_us - earliest).max(initial=0)) + 2
        assert width < 2**63 // (len(self.first) + 1), "nodes * microseconds must fit into 64 bits"
        node = np.repeat(np.arange(len(self.first) - 1), self.counts)
        return earliest, width, node * width + (self.start_us - earliest)


class Timed(Protocol):
    """When and where n nodes were seen."""

    @property
    def spans(self) -> Spans: ...

    @property
    def timed(self) -> Bools: ...


@dataclass(frozen=True)
class Nodes:
    """n identities sorted by key, so that breaking ties by index breaks them by key."""

    keys: Sequence[bytes]  # (n,) content hashes, ascending
    mean: Floats  # (n, D) of features as the model compares them
    weight: Floats  # (n,) sum of the qualities of the crops behind each mean
    spans: Spans
    timed: Bools  # (n,)
    fresh: Bools  # (n,) True: new in this window, compared with all others; False: only compared against

    def __post_init__(self) -> None:
        assert all(map(lt, self.keys, self.keys[1:])), "keys must be unique and ascending"
        assert (
            len(self.keys)
            == len(self.mean)
            == len(self.weight)
            == len(self.timed)
            == len(self.fresh)
            == len(self.spans.first) - 1
        )

    def __len__(self) -> int:
        return len(self.keys)


def unit_rows(vectors: Floats) -> Floats:
    """Rows scaled to length 1."""
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled
