"""How far reviewers agree on the pairs that two of them answered: plainly, and beyond chance (Cohen 1960)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from sqlalchemy import Connection

from pipeline.resolve.constraints import Opinion, Pair, read_opinions
from pipeline.review.queue import tracklet_of
from schemas.review import BY_HAND, Said


@dataclass(frozen=True)
class Agreement:
    """Of two reviewers."""

    one: str
    other: str
    pairs: int  # that both answered
    agreed: int
    kappa: float | None  # 1: they always agree; 0: as often as by chance; None: both said one thing alone


def agreements(connection: Connection, unit: str = "") -> list[Agreement]:
    """Of each two reviewers with a common pair within a unit ('': the city), by name; newest answers count.

    What was done by hand is about groups, and no answer about a pair.
    """
    both: defaultdict[tuple[str, str], list[tuple[Said, Said]]] = defaultdict(list)
    for answers in _by_pair(connection, unit):
        for first, second in combinations(answers, 2):
            both[first.reviewer, second.reviewer].append((first.said, second.said))
    return [
        Agreement(*names, len(pairs), sum(a is b for a, b in pairs), kappa(pairs))
        for names, pairs in sorted(both.items())
    ]


@dataclass(frozen=True)
class Dispute:
    """A pair of which reviewers say another thing."""

    said: tuple[Opinion, ...]  # by reviewer
    tracklets: tuple[int, ...]  # of both, as far as they are there now and may be seen


def disputes(connection: Connection, unit: str = "", most: int = 20) -> list[Dispute]:
    """The pairs within a unit of which two reviewers say another thing, the newest first."""
    found = [answers for answers in _by_pair(connection, unit) if len({one.said for one in answers}) > 1]
    found.sort(key=lambda answers: max((one.at, one.answer) for one in answers), reverse=True)
    return [
        Dispute(answers, tuple(t for key in answers[0].keys if (t := tracklet_of(connection, key)) is not None))
        for answers in found[:most]
    ]


def _by_pair(connection: Connection, unit: str) -> list[tuple[Opinion, ...]]:
    """The answers about each pair, by reviewer."""
    found: defaultdict[Pair, list[Opinion]] = defaultdict(list)
    for one in read_opinions(connection, unit):
        if one.way not in BY_HAND:
            found[one.pair].append(one)
    return [tuple(sorted(answers, key=lambda one: one.reviewer)) for answers in found.values()]


def kappa(pairs: Sequence[tuple[Said, Said]]) -> float | None:
    """Cohen's kappa of the answers of two reviewers to the same pairs; None where chance alone agrees always."""
    n = len(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    by_chance = sum(first[said] * second[said] for said in Said) / n**2
    if by_chance == 1:
        return None
    return (sum(a is b for a, b in pairs) / n - by_chance) / (1 - by_chance)
