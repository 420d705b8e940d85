"""Operators' answers about identities as labels of pairs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.calibration.unlabeled.answers import Answers, read_answers
from pipeline.calibration.unlabeled.learn import learn
from pipeline.calibration.unlabeled.rehearsal import read_tracklets
from pipeline.calibration.unlabeled.versions import learn_now
from pipeline.crops.crop_store import CropStore
from pipeline.review.answers import answer
from pipeline.store import Store
from pipeline.training.confirmations import confirm
from schemas.review import Said
from schemas.times import from_us
from tests.helpers.thin_town import ThinTown, looks

#: Two people at both cameras of a building, one of whom comes to another building, and one who is seen once.
PASSAGES = (
    ("c1", 0.0, 0.0),
    ("c2", 30.0, 1.0),
    ("b2/c1", 200.0, 2.0),
    ("c1", 60.0, 90.0),
    ("c2", 95.0, 91.0),
    ("c1", 130.0, 180.0),
)


@pytest.fixture
def town(store: Store) -> ThinTown:
    found = ThinTown(store, looks(*PASSAGES))
    found.take_in()
    found.resolve()
    return found


def crops_of(town: ThinTown) -> Mapping[int, Sequence[int]]:
    cameras = [one.code for one in town.crowd.city.units if one.code.count("/") == 3]
    start = from_us(0)
    return read_tracklets(
        town.store, town.core, town.model, cameras, start, datetime.now(UTC) + timedelta(days=1)
    ).crops


def said(town: ThinTown, tracklets: int, *, is_one_person: bool = True) -> datetime:
    """Says it of the district's identity with so many tracklets; when it was said."""
    with town.store.begin() as connection:
        identity = connection.scalar(
            text("SELECT persistent_id FROM identity_now WHERE level = 'district' AND cardinality(tracklets) = :n"),
            {"n": tracklets},
        )
    confirm(town.store, str(identity), operator="anna", reason="seen", is_one_person=is_one_person)
    with town.store.begin() as connection:
        at: datetime = connection.execute(text("SELECT max(at) FROM confirmation")).scalar_one()
    return at


def labeled(town: ThinTown, answers: Answers) -> dict[str, list[tuple[int, int]]]:
    """The pairs of tracklets of each label, as places in PASSAGES."""
    place = {}
    with town.store.begin() as connection:
        times = dict(connection.execute(text("SELECT id, captured_at FROM crop")).tuples().all())
    first = min(times.values())
    for number, (crop,) in crops_of(town).items():
        seconds = (times[crop] - first).total_seconds()
        (place[number],) = [i for i, (_, at, _) in enumerate(PASSAGES) if at == seconds]
    left, right = (np.array(ends) for ends in zip(*[(a, b) for a in place for b in place if a < b], strict=True))
    found: dict[str, list[tuple[int, int]]] = {"one": [], "two": []}
    for a, b, label in zip(left.tolist(), right.tolist(), answers.labels(right, left).tolist(), strict=True):
        if label >= 0:
            low, high = sorted((place[a], place[b]))
            found["one" if label else "two"].append((low, high))
    return {name: sorted(pairs) for name, pairs in found.items()}


def test_a_confirmed_identity_labels_all_pairs_of_its_tracklets_and_a_denied_one_its_only_pair(town: ThinTown) -> None:
    crops = crops_of(town)
    assert read_answers(town.store, "d1", crops, None) == Answers()
    said(town, 3)
    newest = said(town, 2, is_one_person=False)
    answers = read_answers(town.store, "d1", crops, None)
    assert (answers.used, answers.newest) == (2, newest)
    assert labeled(town, answers) == {"one": [(0, 1), (0, 2), (1, 2)], "two": [(3, 4)]}


def test_a_single_tracklet_and_three_of_whom_one_may_be_another_say_nothing_about_a_pair(town: ThinTown) -> None:
    said(town, 1)
    said(town, 3, is_one_person=False)
    assert read_answers(town.store, "d1", crops_of(town), None) == Answers()


def test_the_newest_answer_counts_and_one_after_the_mark_does_not(town: ThinTown) -> None:
    crops = crops_of(town)
    said(town, 2, is_one_person=False)
    mark = datetime.now(UTC)
    said(town, 2)
    assert labeled(town, read_answers(town.store, "d1", crops, mark)) == {"one": [], "two": [(3, 4)]}
    assert labeled(town, read_answers(town.store, "d1", crops, None)) == {"one": [(3, 4)], "two": []}


def test_tracklets_of_which_crops_are_missing_here_are_not_labeled(town: ThinTown) -> None:
    """A version that is learned from a part of the crops knows other tracklets than those that were looked at."""
    said(town, 3)
    crops = {number: [*its, 10_000 + number] for number, its in crops_of(town).items()}
    assert read_answers(town.store, "d1", crops, None) == Answers()


def test_reviewers_answers_about_pairs_are_labels_and_who_is_one_of_two_is_not_the_other(town: ThinTown) -> None:
    with town.store.begin() as connection:
        rows = connection.execute(
            text("SELECT encode(key, 'hex') AS key FROM identity_now WHERE level = 'camera' ORDER BY first_seen")
        ).all()
    by_time = sorted(range(len(PASSAGES)), key=lambda place: PASSAGES[place][1])
    key = dict(zip(by_time, (row.key for row in rows), strict=True))

    def review(one: int, other: int, what: Said) -> None:
        answer(town.store, key[one], key[other], what, reviewer="ben", reason="looked")

    review(3, 4, Said.SAME)
    review(0, 3, Said.DIFFERENT)
    review(0, 5, Said.UNSURE)
    answers = read_answers(town.store, "d1", crops_of(town), None)
    assert answers.used == 2 and labeled(town, answers) == {"one": [(3, 4)], "two": [(0, 3), (0, 4)]}
    assert read_answers(town.store, "d1", crops_of(town), datetime(2026, 1, 2, tzinfo=UTC)) == Answers()
    said(town, 3)  # 0, 1 and 2 are one person
    answers = read_answers(town.store, "d1", crops_of(town), None)
    assert labeled(town, answers)["two"] == [(a, b) for a in range(3) for b in (3, 4)]


def test_what_contradicts_itself_is_no_label() -> None:
    answers = Answers(person={1: 0, 2: 0, 3: 1, 4: 1}, apart=frozenset({(0, 0), (0, 1)}))
    assert answers.labels(np.array([1, 2, 3, 4]), np.array([2, 3, 4, 5])).tolist() == [-1, 0, 1, -1]


def test_a_version_says_how_many_answers_it_used_and_at_a_mark_none_later_than_it(town: ThinTown) -> None:
    newest = said(town, 3)
    outcome, learned = learn_now(town.store, town.core, CropStore(town.store.settings), town.model, "d1")
    assert (outcome.answers, outcome.newest_answer) == (1, newest) and learned.answers.used == 1
    assert "from 6 tracklets and 1 answer: nothing" in outcome.lines("d1")[0]
    start, mark = from_us(0), datetime(2026, 1, 2, tzinfo=UTC)
    assert learn(town.store, town.core, town.model, "d1", start, mark, answers_before=mark).answers == Answers()
