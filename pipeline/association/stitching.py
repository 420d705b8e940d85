"""Stitching: which group continues which known identity, so that persistent ids survive from window to window."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """An identity of the level as it was before this window."""

    first_seen_us: int
    key: bytes


@dataclass(frozen=True)
class Fate:
    """What one group becomes. Numbers are indices into `known`."""

    survivor: int | None  # the identity that continues as this group; None: the group is a new identity
    merged: tuple[int, ...]  # identities that end, merged into this group
    parts: tuple[int, ...]  # identities of which this group holds a part, while they continue or end elsewhere


def stitch(
    groups: Sequence[Sequence[int]], origin: Mapping[int, int], weight: Mapping[int, int], known: Sequence[Known]
) -> list[Fate]:
    """The fate of each group of nodes.

    origin: the known identity that a node is, or was part of; a node of none is missing. weight: tracklets per node.
    An identity goes to the group that holds most of its tracklets; of several identities in one group, the one that was
    seen first survives, whatever their sizes (docs/decisions/stitching.md).
    """
    shares: dict[int, Counter[int]] = {}  # identity -> group number -> tracklets
    for number, group in enumerate(groups):
        for node in group:
            source = origin.get(node)
            if source is not None:
                shares.setdefault(source, Counter())[number] += weight[node]
    goes_to = {
        source: min((-tracklets, number) for number, tracklets in share.items())[1] for source, share in shares.items()
    }
    fates = []
    for number, group in enumerate(groups):
        sources = sorted({source for node in group if (source := origin.get(node)) is not None})
        arriving = [source for source in sources if goes_to[source] == number]
        survivor = min(arriving, key=lambda source: (known[source].first_seen_us, known[source].key), default=None)
        merged = tuple(source for source in arriving if source != survivor)
        fates.append(Fate(survivor, merged, tuple(source for source in sources if goes_to[source] != number)))
    return fates
