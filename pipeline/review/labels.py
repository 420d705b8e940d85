"""Answers as labels for calibration and training, with where they come from."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.resolve.constraints import Opinion, Pair, read_opinions, votes
from schemas.review import Way

_CROPS = text("SELECT key, id FROM crop WHERE key = ANY(:keys) AND withdrawn_at IS NULL")


@dataclass(frozen=True)
class Label:
    """What reviewers say of two passages. A pair about which they differ evenly, or are unsure, is no label."""

    is_same: bool
    keys: Pair  # of the tracklets that were looked at
    crops: Pair  # of the first crop of each, in the same order
    crop_ids: tuple[int | None, int | None]  # of the same; None: gone by age or withdrawn
    unit: str  # the lowest one above both cameras
    at: datetime  # of the newest answer
    reviewers: int  # who say so
    against: int  # who say the other
    ways: tuple[Way, ...]  # how they came to answer; of those who say so
    answers: tuple[UUID, ...]  # theirs


def labels(connection: Connection, before: datetime | None = None, unit: str = "") -> list[Label]:
    """The labels within a unit ('': the city), by their crops; those that held before a moment.

    Asked as the program (`Store.begin`). A split by hand labels each passage taken out with each that stays; a merge
    labels one pair of the two identities.
    """
    by_pair: defaultdict[Pair, list[Opinion]] = defaultdict(list)
    opinions = read_opinions(connection, unit, before)
    for one in opinions:
        by_pair[one.pair].append(one)
    held = {pair: vote for pair, vote in votes(opinions).items() if vote}
    keys = sorted({crop for pair in held for crop in pair})
    ids = {bytes(row.key): int(row.id) for row in connection.execute(_CROPS, {"keys": keys})} if keys else {}
    return [_label(by_pair[pair], held[pair] > 0, (ids.get(pair[0]), ids.get(pair[1]))) for pair in sorted(held)]


def _label(opinions: list[Opinion], is_same: bool, crop_ids: tuple[int | None, int | None]) -> Label:
    said = [one for one in opinions if one.vote == (1 if is_same else -1)]
    newest = max(said, key=lambda one: (one.at, one.answer))
    return Label(
        is_same,
        newest.keys,
        newest.pair,
        crop_ids,
        newest.unit,
        newest.at,
        len(said),
        sum(one.vote == (-1 if is_same else 1) for one in opinions),
        tuple(sorted({one.way for one in said})),
        tuple(sorted(one.answer for one in said)),
    )
