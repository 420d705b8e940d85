"""How far reviewers agree on the pairs that two of them answered: plainly, and beyond chance (Cohen 1960)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from sqlalchemy import Connection

from pipeline.resolve.constraints import read_opinions
from schemas.review import Said


@dataclass(frozen=True)
class Agreement:
    """Of two reviewers."""

    one: str
    other: str
    pairs: int  # that both answered
    agreed: int
    kappa: float | None  # 1: they always agree; 0: as often as by chance; None: both said one thing alone


def agreements(connection: Connection, unit: str = "") -> list[Agreement]:
    """Of each two reviewers with a common pair within a unit ('': the city), by name; newest answers count."""
    said: defaultdict[object, dict[str, Said]] = defaultdict(dict)
    for one in read_opinions(connection, unit):
        said[one.pair][one.reviewer] = one.said
    both: defaultdict[tuple[str, str], list[tuple[Said, Said]]] = defaultdict(list)
    for answers in said.values():
        for first, second in combinations(sorted(answers), 2):
            both[first, second].append((answers[first], answers[second]))
    return [
        Agreement(*names, len(pairs), sum(a is b for a, b in pairs), kappa(pairs))
        for names, pairs in sorted(both.items())
    ]


def kappa(pairs: Sequence[tuple[Said, Said]]) -> float | None:
    """Cohen's kappa of the answers of two reviewers to the same pairs; None where chance alone agrees always."""
    n = len(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    by_chance = sum(first[said] * second[said] for said in Said) / n**2
    if by_chance == 1:
        return None
    return (sum(a is b for a, b in pairs) / n - by_chance) / (1 - by_chance)
