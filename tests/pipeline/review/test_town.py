"""A rendered city is reviewed: answers given by the truth change its district as they should, and undone they leave it
as it was."""

from collections.abc import Callable
from itertools import combinations

from sqlalchemy import text

from pipeline.association.geometry import unit_geometry
from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import read_city
from pipeline.review.answers import answer, undo
from pipeline.review.changes import read_changes
from pipeline.review.contradictions import why_impossible
from pipeline.review.passages import passages_by_id
from pipeline.review.queue import read_queue
from schemas.review import Said, Way
from tests.helpers.town import Town

_TRUTH = text(
    "SELECT i.key, min(t.truth) AS truth FROM identity_now i JOIN identity_member m ON m.identity_id = i.id "
    "JOIN crop_truth t ON t.crop_id = m.crop_id WHERE i.level = 'camera' GROUP BY i.id, i.key "
    "HAVING count(DISTINCT t.truth) = 1"
)
_PERSON = text(
    "SELECT t.key, d.persistent_id FROM identity_now d JOIN identity t ON t.id = ANY(d.tracklets) WHERE d.unit = 'd1'"
)
_WITH = text(
    "SELECT d.tracklets FROM identity_now d WHERE d.level <> 'camera' "
    "AND (SELECT id FROM identity_now WHERE key = :key) = ANY(d.tracklets)"
)


def fits(town: Town, one: bytes, other: bytes) -> bool:
    """Whether nothing that is joined with both below the district stands in the way of an answer."""
    geometry = unit_geometry(read_city(town.store), "d1", town.store.settings.association)
    with town.store.signed_in() as connection:
        held = [connection.execute(_WITH, {"key": key}).scalars().all() for key in (one, other)]
        sides = [passages_by_id(connection, sorted({t for its in lists for t in its})).values() for lists in held]
    return all(why_impossible(a, b, geometry) is None for a in sides[0] for b in sides[1])


def test_a_reviewed_district_follows_the_answers_and_their_undo(town: Town, by_time: Callable[[], list[str]]) -> None:
    town.take_in(by_time()[:300])
    town.resolve()
    with town.store.begin() as connection:
        before = decision_digest(connection)
        truth = {bytes(row.key): row.truth for row in connection.execute(_TRUTH)}
        was = {bytes(row.key): row.persistent_id for row in connection.execute(_PERSON)}
    with town.store.signed_in() as connection:
        items = read_queue(connection, "d1", "anna", most=40).items
    asked = [(item.left.passage.key, item.right.passage.key) for item in items]
    asked = [pair for pair in asked if {*pair} <= truth.keys()][:12]
    missed = [
        (a, b) for a, b in combinations(sorted(was), 2) if truth.get(a, a) == truth.get(b, b) and was[a] != was[b]
    ]
    asked += [pair for pair in missed if fits(town, *pair)][:3]
    said = {pair: Said.SAME if truth[pair[0]] == truth[pair[1]] else Said.DIFFERENT for pair in asked}
    assert {*said.values()} == {Said.SAME, Said.DIFFERENT}
    given = [
        answer(town.store, a.hex(), b.hex(), one, reviewer="anna", reason="by eye", way=Way.DECISION)
        for (a, b), one in said.items()
    ]
    with town.store.begin() as connection:
        since = connection.execute(text("SELECT min(at) FROM review_answer")).scalar_one()
    town.resolve()
    with town.store.begin() as connection:
        person = {bytes(row.key): row.persistent_id for row in connection.execute(_PERSON)}
        after = decision_digest(connection)
        changes = read_changes(connection, "d1", since)
    assert after != before and changes
    for (a, b), one in said.items():
        assert (person[a] == person[b]) == (one is Said.SAME)
    assert town.resolve() == 0  # what binds the windows now is in their runs' keys
    for event in given[::2] + given[1::2]:
        undo(town.store, str(event.id), reviewer="anna", reason="a test")
    town.resolve()
    with town.store.begin() as connection:
        assert decision_digest(connection) == before
