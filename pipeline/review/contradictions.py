"""What an answer may not say: the contrary of what other answers say together, and what times and places rule out."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import combinations
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.association.geometry import Geometry
from pipeline.resolve.constraints import Opinion, Pair, tracklets_of, votes
from pipeline.review.passages import Passage
from schemas.errors import InputError
from schemas.times import to_us


class Impossible(InputError):
    """Two passages cannot be one person because of when and where they were, which the message says."""

    def __init__(self, wrong: str, passages: Sequence[Passage]) -> None:
        super().__init__(f"they cannot be one person: {wrong}")
        self.passages = passages


_NOW = text(
    "SELECT i.id, i.key, i.unit, i.first_seen, i.last_seen, i.timed FROM identity i JOIN run r ON r.id = i.run_id "
    "WHERE i.id = ANY(:ids) AND r.superseded_at IS NULL ORDER BY i.id"
)


def check_answers(connection: Connection, geometry: Geometry, known: Sequence[Opinion], new: Sequence[Opinion]) -> None:
    """Raises InputError where what would hold after the new answers contradicts itself about what they are about, and
    Impossible, whose passages may be others than those.

    known: all of the district, without what the new ones replace. geometry: of the district.
    """
    every = [*known, *new]
    one_of = _one_of(tracklets_of(connection, every))
    held = votes(every)
    must = [pair for pair, vote in held.items() if vote > 0]
    cannot = [pair for pair, vote in held.items() if vote < 0]
    by_pair: dict[Pair, list[UUID]] = {}
    for one in every:
        by_pair.setdefault(one.pair, []).append(one.answer)
    links: dict[bytes, list[tuple[bytes, Pair]]] = {}
    for a, b in sorted(must):
        links.setdefault(one_of.get(a, a), []).append((one_of.get(b, b), (a, b)))
        links.setdefault(one_of.get(b, b), []).append((one_of.get(a, a), (a, b)))
    for start in sorted({one_of.get(side, side) for one in new for side in one.pair}):
        ways = _reached(links, start)
        for a, b in sorted(cannot):
            if {one_of.get(a, a), one_of.get(b, b)} <= ways.keys():
                pairs = [(a, b), *_between(ways, one_of.get(a, a)), *_between(ways, one_of.get(b, b))]
                others = {answer for pair in pairs for answer in by_pair[pair]} - {one.answer for one in new}
                ids = ", ".join(sorted(str(one)[:8] for one in others))
                raise InputError(
                    f"that contradicts what the answers {ids} say together; undo one of them first",
                    do="`urban-reid review undo ID`",
                )
        if any(one.vote > 0 for one in new):
            _check_gates(_passages(connection, every, {*ways}, one_of), geometry)


def _one_of(names: dict[int, list[bytes]]) -> dict[bytes, bytes]:
    """One name for all names that are of one tracklet."""
    found: dict[bytes, bytes] = {}
    for of_one in names.values():
        if len(of_one) > 1:
            lowest = min(found.get(name, name) for name in of_one)
            found.update(dict.fromkeys(of_one, lowest))
    return found


def _reached(links: dict[bytes, list[tuple[bytes, Pair]]], start: bytes) -> dict[bytes, tuple[bytes, Pair] | None]:
    """What `must` joins with `start`: each with the step that led there."""
    ways: dict[bytes, tuple[bytes, Pair] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        at = waiting.popleft()
        for other, pair in links.get(at, ()):
            if other not in ways:
                ways[other] = at, pair
                waiting.append(other)
    return ways


def _between(ways: dict[bytes, tuple[bytes, Pair] | None], end: bytes) -> Iterable[Pair]:
    step = ways[end]
    while step is not None:
        yield step[1]
        step = ways[step[0]]


def _passages(
    connection: Connection, opinions: Sequence[Opinion], names: set[bytes], one_of: dict[bytes, bytes]
) -> list[Passage]:
    by_id = {
        id_: name
        for id_, its in tracklets_of(connection, opinions).items()
        for name in its
        if one_of.get(name, name) in names
    }
    rows = connection.execute(_NOW, {"ids": list(by_id)}).all()
    return [Passage(by_id[row.id], bytes(row.key), row.unit, row.first_seen, row.last_seen, row.timed) for row in rows]


def _check_gates(passages: Sequence[Passage], geometry: Geometry) -> None:
    """Raises Impossible where two of them cannot be one person."""
    for one, other in combinations(passages, 2):
        if wrong := why_impossible(one, other, geometry):
            raise Impossible(wrong, (one, other))


def why_impossible(one: Passage, other: Passage, geometry: Geometry) -> str | None:
    """Why two passages cannot be one person, in words; None where they can."""
    if not (one.timed and other.timed):
        return None
    starts, ends = (one.first_seen, other.first_seen), (one.last_seen, other.last_seen)
    gap_us = to_us(max(starts)) - to_us(min(ends))
    at = {code: number for number, code in enumerate(geometry.cameras)}
    least_us = float(geometry.min_gap_us[at[one.camera], at[other.camera]])
    if gap_us >= least_us:
        return None
    if gap_us < 0:
        together = "two people were before" if one.camera == other.camera else "they were at the same time before"
        places = one.camera if one.camera == other.camera else f"{one.camera} and {other.camera}"
        return f"{together} {places}"
    return (
        f"only {gap_us / 1e6:.0f} s lie between {one.camera} and {other.camera}, and the way takes at least "
        f"{least_us / 1e6:.0f} s"
    )
