import json
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import text

from pipeline.registry import model_in_use
from pipeline.report.distance_histograms import read_distance_histograms
from pipeline.report.evidence import Evidence, open_pairs, read_evidence
from pipeline.report.identities import identities_of, read_tracklets
from pipeline.report.read_contents import read_contents
from schemas.association import Verdict
from schemas.levels import UPWARD, Level
from tests.helpers.reported import Reported


def read(reported: Reported, verdict: Verdict, most: int = 1000) -> list[Evidence]:
    with reported.town.store.begin() as connection:
        return read_evidence(connection, "d1", verdict, most, read_tracklets(connection, "d1"))


@pytest.mark.parametrize("verdict", list(Verdict))
def test_both_sides_of_every_decision_are_found(reported: Reported, verdict: Verdict) -> None:
    """Also where a side is a state that the run never wrote."""
    found = read(reported, verdict)
    assert found
    with reported.town.store.begin() as connection:
        stored = {bytes(key) for key in connection.scalars(text("SELECT key FROM identity"))}
    for evidence in found:
        for side in (evidence.left, evidence.right, *([evidence.runner_up] if evidence.runner_up else [])):
            assert side.level in UPWARD
            assert len(side.tracklets) == side.count > 0
            assert side.holder is not None
    keys = {side.key for evidence in found for side in (evidence.left, evidence.right)}
    assert keys & stored


def test_states_that_were_never_written_are_made_again(reported: Reported) -> None:
    """Somewhere in the city an identity got a new version and was joined in the same run."""
    everything = [evidence for verdict in Verdict for evidence in read(reported, verdict)]
    with reported.town.store.begin() as connection:
        stored = {bytes(key) for key in connection.scalars(text("SELECT key FROM identity"))}
    unwritten = [s for e in everything for s in (e.left, e.right) if s.key not in stored]
    assert unwritten
    assert all(side.level in UPWARD[1:] and side.tracklets for side in unwritten)


def test_at_each_level_decisions_nearest_to_the_operating_point_come_first(reported: Reported) -> None:
    everything, few = read(reported, Verdict.JOIN), read(reported, Verdict.JOIN, most=3)
    assert [e.level for e in everything] == sorted((e.level for e in everything), key=UPWARD.index, reverse=True)
    of_all = Counter(e.level for e in everything)
    assert Counter(e.level for e in few) == {level: min(count, 3) for level, count in of_all.items()}
    margins = [abs((e.probability or 0) - (e.operating_point or 0)) for e in everything if e.level is Level.BUILDING]
    assert margins == sorted(margins)


def test_a_join_of_two_people_is_recognized_as_wrong(reported: Reported) -> None:
    """Compared with the ground truth in the assignments, which are read by another query."""
    rows = [json.loads(line) for line in (reported.out / "assignments.jsonl").read_text().splitlines()]
    truths = {row["tracklet"]: row["truth"] for row in rows}  # a rendered track is one person
    right = wrong = 0
    for join in read(reported, Verdict.JOIN):
        sides = [{truths[str(t.persistent_id)] for t in side.tracklets} for side in (join.left, join.right)]
        if all(len(side) == 1 for side in sides):
            assert join.same is (sides[0] == sides[1])
            right, wrong = right + (sides[0] == sides[1]), wrong + (sides[0] != sides[1])
    assert right > 5


def test_a_pair_waits_once_and_only_until_it_is_joined(reported: Reported) -> None:
    reviews = read(reported, Verdict.REVIEW)
    pairs = open_pairs(reviews)
    ends = [(p.evidence.unit, frozenset((p.evidence.left.holder, p.evidence.right.holder))) for p in pairs]
    assert len(ends) == len(set(ends))
    assert sum(pair.decisions for pair in pairs) == sum(not review.joined_since for review in reviews)
    again = open_pairs([*reviews, *reviews])
    assert [pair.decisions for pair in again] == [2 * pair.decisions for pair in pairs]
    joined = [replace(review, right=replace(review.right, holder=review.left.holder)) for review in reviews]
    assert open_pairs(joined) == []


def test_identities_are_sorted_by_buildings_cameras_and_tracklets(reported: Reported) -> None:
    with reported.town.store.begin() as connection:
        identities = identities_of(read_tracklets(connection, "d1"))
        known = connection.execute(
            text("SELECT persistent_id, crops, cardinality(tracklets) FROM identity_now WHERE unit = 'd1'")
        ).all()
    assert {(i.persistent_id, i.crops, len(i.tracklets)) for i in identities} == {tuple(row) for row in known}
    sizes = [(i.buildings, i.cameras, len(i.tracklets)) for i in identities]
    assert sizes == sorted(sizes, reverse=True)


def test_every_decision_falls_into_a_bin(reported: Reported) -> None:
    with reported.town.store.begin() as connection:
        histograms = read_distance_histograms(connection, "d1", model_in_use(connection).id)
    for number, verdict in enumerate((Verdict.JOIN, Verdict.REVIEW, Verdict.APART), 1):
        counted = {level: sum(row[number] for row in found.bins) for level, found in histograms.items()}
        assert +Counter(counted) == Counter(e.level for e in read(reported, verdict, most=10**6))


def test_tracklets_of_a_person_in_other_identities_are_counted(reported: Reported) -> None:
    contents = read_contents(reported.town.store, "d1")
    total = Counter(tracklet.truth for tracklet in contents.tracklets)
    for identity in contents.identities:
        truth, own = identity.truths[0]
        assert contents.elsewhere(identity) == total[truth] - own
