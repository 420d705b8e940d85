"""Which group carries an earlier identity on: ids stay with who was seen first, and with the larger part of a split."""

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
    """What becomes of one group. Indices are those of `known`."""

    survivor: int | None  # the identity that goes on as this group
    merged: tuple[int, ...]  # identities taken in, which end
    parts: tuple[int, ...]  # identities of which a part came here, and most went elsewhere


def stitch(
    groups: Sequence[Sequence[int]], origin: Mapping[int, int], weight: Mapping[int, int], known: Sequence[Known]
) -> list[Fate]:
    """The fate of each group.

    `origin[node]` is the known identity that a node is, or was part of, where there is one; `weight[node]` its number
    of tracklets. An identity goes to the group that holds most of its tracklets; of several in one group the one that
    was seen first survives, whatever came in first (docs/decisions/stitching.md).
    """
    shares: dict[int, Counter[int]] = {}
    for number, group in enumerate(groups):
        for node in group:
            source = origin.get(node)
            if source is not None:
                shares.setdefault(source, Counter())[number] += weight[node]
    goes_to = {source: min((-many, number) for number, many in share.items())[1] for source, share in shares.items()}
    fates = []
    for number, group in enumerate(groups):
        here = sorted({source for node in group if (source := origin.get(node)) is not None})
        claims = [source for source in here if goes_to[source] == number]
        first = min(claims, key=lambda source: (known[source].first_seen_us, known[source].key), default=None)
        merged = tuple(source for source in claims if source != first)
        fates.append(Fate(first, merged, tuple(source for source in here if goes_to[source] != number)))
    return fates
