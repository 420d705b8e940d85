import json
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import text

from pipeline.registry import model_in_use
from pipeline.report.contents import read_contents
from pipeline.report.evidence import Evidence, open_pairs, read_evidence
from pipeline.report.read import people_of, read_sightings, read_spread
from schemas.association import Verdict
from schemas.levels import UPWARD, Level
from tests.helpers.reported import Reported


def read(reported: Reported, verdict: Verdict, most: int = 1000) -> list[Evidence]:
    with reported.town.store.begin() as connection:
        return read_evidence(connection, "d1", verdict, most, read_sightings(connection, "d1"))


@pytest.mark.parametrize("verdict", list(Verdict))
def test_both_sides_of_every_decision_can_be_told(reported: Reported, verdict: Verdict) -> None:
    """Also of those that name a state which the run never wrote."""
    found = read(reported, verdict)
    assert found
    with reported.town.store.begin() as connection:
        stored = {bytes(key) for key in connection.scalars(text("SELECT key FROM identity"))}
    for evidence in found:
        for side in (evidence.left, evidence.right, *([evidence.runner_up] if evidence.runner_up else [])):
            assert side.level in UPWARD
            assert len(side.sightings) == side.many > 0
            assert side.now is not None
    keys = {side.key for evidence in found for side in (evidence.left, evidence.right)}
    assert keys & stored


def test_states_that_were_never_written_are_made_again(reported: Reported) -> None:
    """Somewhere in the city an identity came back in a new version and was joined at once."""
    everything = [evidence for verdict in Verdict for evidence in read(reported, verdict)]
    with reported.town.store.begin() as connection:
        stored = {bytes(key) for key in connection.scalars(text("SELECT key FROM identity"))}
    unwritten = [s for e in everything for s in (e.left, e.right) if s.key not in stored]
    assert unwritten
    assert all(side.level in UPWARD[1:] and side.sightings for side in unwritten)


def test_of_each_level_the_closest_calls_come_first(reported: Reported) -> None:
    everything, few = read(reported, Verdict.JOIN), read(reported, Verdict.JOIN, most=3)
    assert [e.level for e in everything] == sorted((e.level for e in everything), key=UPWARD.index, reverse=True)
    of_all = Counter(e.level for e in everything)
    assert Counter(e.level for e in few) == {level: min(many, 3) for level, many in of_all.items()}
    margins = [abs((e.probability or 0) - (e.operating_point or 0)) for e in everything if e.level is Level.BUILDING]
    assert margins == sorted(margins)


def test_a_join_of_two_people_is_known_as_wrong(reported: Reported) -> None:
    """Against the truth of the manifest, told by the assignments, which come by another way."""
    rows = [json.loads(line) for line in (reported.out / "assignments.jsonl").read_text().splitlines()]
    truths = {row["tracklet"]: row["truth"] for row in rows}  # a rendered camera's track is one person
    right = wrong = 0
    for join in read(reported, Verdict.JOIN):
        sides = [{truths[str(s.persistent_id)] for s in side.sightings} for side in (join.left, join.right)]
        if all(len(side) == 1 for side in sides):
            assert join.same is (sides[0] == sides[1])
            right, wrong = right + (sides[0] == sides[1]), wrong + (sides[0] != sides[1])
    assert right > 5


def test_a_pair_waits_once_and_only_while_it_is_apart(reported: Reported) -> None:
    reviews = read(reported, Verdict.REVIEW)
    pairs = open_pairs(reviews)
    ends = [(p.evidence.unit, frozenset((p.evidence.left.now, p.evidence.right.now))) for p in pairs]
    assert len(ends) == len(set(ends))
    assert sum(pair.decisions for pair in pairs) == sum(not review.settled for review in reviews)
    again = open_pairs([*reviews, *reviews])
    assert [pair.decisions for pair in again] == [2 * pair.decisions for pair in pairs]
    joined = [replace(review, right=replace(review.right, now=review.left.now)) for review in reviews]
    assert open_pairs(joined) == []


def test_people_are_the_districts_identities_the_most_traveled_first(reported: Reported) -> None:
    with reported.town.store.begin() as connection:
        people = people_of(read_sightings(connection, "d1"))
        known = connection.execute(
            text("SELECT persistent_id, crops, cardinality(tracklets) FROM identity_now WHERE unit = 'd1'")
        ).all()
    assert {(p.persistent_id, p.crops, len(p.sightings)) for p in people} == {tuple(row) for row in known}
    traveled = [(p.buildings, p.cameras, len(p.sightings)) for p in people]
    assert traveled == sorted(traveled, reverse=True)


def test_every_decision_falls_into_a_bin(reported: Reported) -> None:
    with reported.town.store.begin() as connection:
        spread = read_spread(connection, "d1", model_in_use(connection).id)
    for number, verdict in enumerate((Verdict.JOIN, Verdict.REVIEW, Verdict.APART), 1):
        counted = {level: sum(row[number] for row in found.bins) for level, found in spread.items()}
        assert +Counter(counted) == Counter(e.level for e in read(reported, verdict, most=10**6))


def test_sightings_of_a_person_that_others_hold_are_counted(reported: Reported) -> None:
    contents = read_contents(reported.town.store, "d1")
    total = Counter(sighting.truth for sighting in contents.sightings)
    for person in contents.people:
        mostly, own = person.truths[0]
        assert contents.elsewhere(person) == total[mostly] - own
