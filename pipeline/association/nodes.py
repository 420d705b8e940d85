"""What is compared: identities as prototypes and time spans, in columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from schemas.arrays import Bools, Floats, Ints


@dataclass(frozen=True)
class Spans:
    """The tracklets of n nodes, one behind the other; those of node i stand at first[i]:first[i + 1], by start."""

    camera: Ints  # (s,) index into the geometry's cameras
    start_us: Ints  # (s,) microseconds UTC
    end_us: Ints  # (s,)
    first: Ints  # (n + 1,)

    @property
    def counts(self) -> Ints:
        return np.diff(self.first)

    def begun_before(self, node: Ints, time_us: Ints) -> Ints:
        """(p,) For each node and time: the first tracklet of the node that does not begin before it, or its end."""
        since, width, order = self._order
        return np.searchsorted(order, node * width + np.clip(time_us - since, 0, width - 1))

    @property
    def whole_us(self) -> int:
        """From the first start to the last end."""
        return int(self.end_us.max() - self.start_us.min()) if len(self.start_us) else 0

    @cached_property
    def _order(self) -> tuple[int, int, Ints]:
        """One ascending number a tracklet, by (node, start): node * width + start since the first start of all."""
        since = int(self.start_us.min()) if len(self.start_us) else 0
        width = int((self.start_us - since).max(initial=0)) + 2
        assert width < 2**63 // (len(self.first) + 1), "more nodes times microseconds than 64 bits count"
        node = np.repeat(np.arange(len(self.first) - 1), self.counts)
        return since, width, node * width + (self.start_us - since)


@dataclass(frozen=True)
class Nodes:
    """n identities, sorted by key, so that whatever breaks a tie by index breaks it by key."""

    keys: Sequence[bytes]  # (n,) content hashes, ascending
    mean: Floats  # (n, D) raw post-BN features
    weight: Floats  # (n,) what each mean rests on: the sum of its crops' qualities
    spans: Spans
    timed: Bools  # (n,)
    fresh: Bools  # (n,) compared with the others; the rest is only compared against

    def __post_init__(self) -> None:
        assert list(self.keys) == sorted(set(self.keys)), "keys must be unique and ascending"
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
