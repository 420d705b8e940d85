"""Labels and scores of a small store that is written by hand, so that all counts can be checked by eye."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from pipeline.accuracy.label_file import Matched, label_reader, read_labels
from pipeline.accuracy.labeled import episodes, labeled_tracklets, majority
from pipeline.accuracy.scorecard import agreement_by_level, open_set_of, scorecard
from pipeline.city.units import store_city
from pipeline.store import Store
from schemas.arrays import Ints
from schemas.errors import InputError
from schemas.levels import Level
from schemas.times import from_us, to_us
from tests.helpers.labeled_city import BUILDING, C2, CAMERA, CITY, CROPS, END, START, STREET, TRUTH
from tests.helpers.resolved_city import DAY, key, write_level, write_tracklets
from tests.helpers.rows import insert_model


@dataclass(frozen=True)
class Written:
    store: Store
    model: int
    tracklets: Ints

    def review(self, unit: str, *sides: bytes) -> None:
        """Writes a review decision of the unit about two identities."""
        left, right = sorted(sides)
        sql = (
            "INSERT INTO match_decision (run_id, left_key, right_key, row_hash, verdict, distance, transit_log_odds, "
            "left_at, right_at) "
            "SELECT id, :left, :right, :left, 'review', 0.1, 0, unit, unit FROM run WHERE unit = :unit"
        )
        with self.store.begin() as connection:
            connection.execute(text(sql), {"left": left, "right": right, "unit": unit})

    def level(self, level: Level, group: Ints, **options: Any) -> None:
        """Writes the identities of a level; see `write_level`."""
        write_level(self.store, self.model, level, CAMERA, group, self.tracklets, **options)


@pytest.fixture
def written(store: Store) -> Written:
    store_city(store, CITY)
    features = np.eye(4)[[0, 0, 1, 1, 2, 3]] + 0.1
    with store.begin() as connection:
        model = insert_model(connection)
    written = Written(store, model, write_tracklets(store, model, CAMERA, START, END, CROPS, TRUTH, features))
    written.level(Level.BUILDING, BUILDING)
    written.level(Level.STREET, STREET)
    return written


def test_labeled_tracklets(written: Written) -> None:
    found = labeled_tracklets(written.store, "d1", written.model)
    order = sorted((i for i in range(6) if i != 4), key=lambda i: key(Level.CAMERA, i))  # tracklet 4 has no label
    assert found.key == [key(Level.CAMERA, i) for i in order]
    assert found.levels == (Level.BUILDING, Level.STREET, Level.DISTRICT)
    assert [found.cameras[c] for c in found.camera] == [CAMERA[i] for i in order]
    assert [found.people[t] for t in found.truth] == [TRUTH[i] for i in order]
    assert found.crops.tolist() == CROPS[order].tolist() and found.timed.all()
    assert ((found.start_us - to_us(DAY)) // 1_000_000).tolist() == START[order].tolist()
    assert ((found.end_us - to_us(DAY)) // 1_000_000).tolist() == END[order].tolist()
    np.testing.assert_allclose(found.mean[order.index(2)], np.eye(4)[1] + 0.1, atol=1e-3)
    for level, group in ((Level.BUILDING, BUILDING), (Level.STREET, STREET), (Level.DISTRICT, np.arange(6))):
        identity = found.identity[level]  # the district has no identities: each tracklet is alone
        assert (identity[:, None] == identity[None]).tolist() == (group[order][:, None] == group[order][None]).tolist()
    assert (found.persistent_id[Level.DISTRICT] == np.zeros(5, "V16")).all()
    assert len(set(found.unit(Level.BUILDING).tolist())) == 2 and len(set(found.unit(Level.DISTRICT).tolist())) == 1
    part = labeled_tracklets(written.store, "d1/s1/b1", written.model)
    assert part.levels == (Level.BUILDING,) and len(part.key) == 4
    assert labeled_tracklets(written.store, "d1/s1/b2", written.model + 1).key == []


def test_a_tracklet_has_the_label_of_most_of_its_crops(written: Written, tmp_path: Path) -> None:
    truths = ["x", "bert", "bert", ""]
    lines = [{"crop": key("crop", 2, i).hex(), "truth": truth} for i, truth in enumerate(truths)]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))
    read = label_reader(tmp_path / "labels.jsonl", "d1")
    found = labeled_tracklets(written.store, "d1", written.model, read)
    assert found.people == ("bert", "x") and found.truth.tolist() == [0] and found.key == [key(Level.CAMERA, 2)]


def test_agreement_by_level(written: Written) -> None:
    found = agreement_by_level(labeled_tracklets(written.store, "d1", written.model), {"street": 0.1})
    # In the first building, one identity has two tracklets of anna and one of bert, and cleo is alone; in the second,
    # bert is alone.
    assert (found["building"]["precision"], found["building"]["recall"]) == (1 / 3, 1.0)
    # Of 12 crops, the matching counts anna's 5 of the first identity, bert's 1 and cleo's 2.
    assert found["building"]["idf1"] == (5 + 1 + 2) / 12
    assert found["building"]["purity"] == 4 / 5
    assert (found["street"]["precision"], found["street"]["recall"]) == (2 / 6, 1.0)
    assert (found["district"]["precision"], found["district"]["recall"]) == (1.0, 0.0)
    assert found["street"]["nearest_neighbor_f1"] == 1.0 and "nearest_neighbor_f1" not in found["building"]


def test_scorecard(written: Written) -> None:
    for one, other in ((1, 2), (2, 4), (1, 3)):
        written.review("d1/s1", key(Level.BUILDING, one), key(Level.BUILDING, other))
    written.review("d1/s1/b1", key(Level.CAMERA, 0), key(Level.CAMERA, 1))
    labeled = labeled_tracklets(written.store, "d1", written.model)
    found = scorecard(written.store, "d1", labeled)
    building, street = found[Level.BUILDING], found[Level.STREET]
    assert (building["identities"], building["people"]) == (3, 4)
    assert (street["identities"], street["people"]) == (2, 3)
    assert building["violations"] == 1  # tracklets 0 and 2, both at one camera from second 5 to 10
    assert street["violations"] == 1  # tracklet 3 adds none: 70 s for a walk of 30 s
    assert building["reviews"] == building["reviews_labeled"] == 1 and building["reviews_needed"] == 0
    # Of the street's three reviews, one has a side without labels; the others are about two people: bert and cleo, and
    # anna (5 of 9 crops of her building identity) and bert.
    assert (street["reviews"], street["reviews_labeled"], street["reviews_needed"]) == (3, 2, 0)
    assert building["churn"] == street["churn"] == 0.0
    assert building["false_attach_rate"] == 1 / 4  # bert, attached to anna's identity
    assert [row["identities_from"] for row in building["history"]] == [0]
    opened = open_set_of(labeled, Level.STREET)  # its children are the buildings' identities of anna, bert, cleo
    assert (opened.new.sum(), opened.seen.sum(), opened.false_attached.sum()) == (3, 0, 1)


def test_the_scorecard_contains_the_agreement(written: Written) -> None:
    labeled = labeled_tracklets(written.store, "d1", written.model)
    found = scorecard(written.store, "d1", labeled, {"street": 0.1})
    for level, row in agreement_by_level(labeled, {"street": 0.1}).items():
        assert {name: found[Level(level)][name] for name in row} == row


def test_a_person_who_comes_back_after_the_horizon_counts_again(written: Written) -> None:
    labeled = labeled_tracklets(written.store, "d1", written.model)
    short = replace(labeled, horizon_us=dict.fromkeys(labeled.levels, 5_000_000))
    found = scorecard(written.store, "d1", short)
    assert found[Level.BUILDING]["people"] == 5  # anna is away for 10 s
    assert found[Level.STREET]["people"] == 5  # bert needs 85 s to the other building
    assert open_set_of(labeled, Level.BUILDING).seen.sum() == 1
    # She counts as new and falsely attached, since bert was there until 5 s before her. With a horizon of 4 s, that
    # identity has ended by then.
    for seconds, false_attached in ((5, 2), (4, 1)):
        shorter = replace(labeled, horizon_us=dict.fromkeys(labeled.levels, seconds * 1_000_000))
        opened = open_set_of(shorter, Level.BUILDING)
        assert (opened.new.sum(), opened.seen.sum(), opened.false_attached.sum()) == (5, 0, false_attached)


def test_a_review_is_needed_where_one_person_has_two_identities(written: Written) -> None:
    written.level(Level.DISTRICT, np.array([1, 1, 2, 3, 4, 5]))
    written.review("d1", key(Level.CAMERA, 2), key(Level.CAMERA, 3))
    labeled = labeled_tracklets(written.store, "d1", written.model)
    found = scorecard(written.store, "d1", labeled)[Level.DISTRICT]
    assert (found["reviews"], found["reviews_labeled"], found["reviews_needed"]) == (1, 1, 1)
    assert (found["violations"], found["identities"], found["people"]) == (0, 4, 3)


def test_churn_is_against_the_first_id(written: Written) -> None:
    # In a later run of the street, identity 1 gets the id of number 9, and identity 2 that of number 1.
    with written.store.begin() as connection:
        connection.execute(text("UPDATE run SET superseded_at = now() WHERE unit = 'd1/s1'"))
    written.level(Level.STREET, np.array([1, 1, 1, 2, 3, 4]), window=1, renamed={1: 9, 2: 1})
    found = scorecard(written.store, "d1", labeled_tracklets(written.store, "d1", written.model))
    assert {level: row["churn"] for level, row in found.items()} == {
        Level.BUILDING: 0.0,
        Level.STREET: 3 / 5,
        Level.DISTRICT: 0.0,
    }


def test_majority() -> None:
    group, value, weight = (np.array(column) for column in ([2, 0, 0, 2, 2, 0], [8, 5, 4, 9, 9, 4], [5, 3, 2, 1, 3, 1]))
    assert majority(group, value, weight, 4).tolist() == [4, -1, 8, -1]
    nothing = np.empty(0, np.int64)
    assert majority(nothing, nothing, nothing, 2).tolist() == [-1, -1]


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 60), st.integers(0, 15)), max_size=40),
    horizon=st.integers(0, 20),
)
def test_episodes_end_where_nothing_was_seen_for_longer_than_the_horizon(
    rows: list[tuple[int, int, int, int]], horizon: int
) -> None:
    unit, group, start, length = (
        (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
        if rows
        else (np.empty((4, 0), np.int64))
    )
    found = episodes(group, unit, start, start + length, horizon)
    for i in range(len(rows)):
        for j in range(len(rows)):
            its = (unit == unit[i]) & (group == group[i])
            if not its[j]:
                assert found[i] != found[j]
                continue
            first, last = sorted((start[i], start[j]))
            between = its & (start <= last)
            # Cut at a start that is further than the horizon behind every end so far.
            cut = any(
                first < at <= last and at - (start + length)[between & (start < at)].max() > horizon
                for at in start[between].tolist()
            )
            assert (found[i] != found[j]) == cut


# ---- label files

SECOND = from_us(to_us(DAY) + 20_000_000).isoformat()


@pytest.mark.parametrize(
    "content",
    [
        f"truth,crop\nanna,{key('crop', 1, 0).hex()}\nbert,{'ab' * 32}\n",
        f"camera,time,track,truth\n{C2},{SECOND},1,anna\n{C2},{SECOND},2,bert\n",
        f'{{"camera": "{C2}", "time": "2026-01-01T01:00:20+01:00", "track": "1", "truth": "anna", "path": "x"}}\n\n'
        f'{{"crop": "{"ab" * 32}", "truth": "bert"}}\n{{"crop": "{"ab" * 32}", "truth": null}}',
    ],
)
def test_a_label_names_a_crop(written: Written, tmp_path: Path, content: str) -> None:
    file = tmp_path / "labels"
    file.write_text("\ufeff" + content)
    matched: list[Matched] = []
    found = labeled_tracklets(written.store, "d1", written.model, label_reader(file, "d1", matched.append))
    assert found.key == [key(Level.CAMERA, 1)] and found.people[found.truth[0]] == "anna"
    assert matched == [Matched(labels=2, matched=1)]
    with pytest.raises(InputError, match="none of its 2 labels names a crop of d1/s1/b2"):
        labeled_tracklets(written.store, "d1/s1/b2", written.model, label_reader(file, "d1/s1/b2"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"truth,who\nx,y\n", "line 1: needs the columns"),
        (b"", "line 1: needs the columns"),
        (b"truth,crop\na,ff\n", "line 2: crop 'ff': not a key of 64 hex digits"),
        (b"truth,crop\n\xff,1\n", "line 2: not UTF-8"),
        (b'truth,crop\n"a\n', "line 2: not CSV"),
        (b"truth,camera,time\na,d1/s1/b1/c1,noon\n", "line 2: 'noon' is not a time"),
        (b"truth,camera,time\na,d1/s1/b1/c1,2026-01-01\n", "line 2: time 2026-01-01T00:00:00 has no zone"),
        (b'{"truth": "a", "crop": "' + b"ab" * 32 + b'"}\n{"truth": "b"', "line 2: not JSON"),
        (b'{"truth": ' + b"[" * 50_000, "line 1: not JSON: maximum recursion depth"),
        (b'{"truth": "a"}', "line 1: names no crop: give `crop`, or `camera` and `time`"),
        (b'{"truth": ["a"]}', "line 1: truth: not a text"),
        (b'{"truth": "a\\u0000"}', "line 1: truth: contains a NUL"),
        (b'{"truth": "' + b"a" * 201 + b'"}', "line 1: truth: longer than 200"),
        (b"{" + b"x" * 70_000, "line 1: longer than 65536"),
        (b'{"truth": 1}\n[1]', "line 1: names no crop"),
        (b'{"truth": ""}\n[1]', "line 2: not a JSON object"),
        (b"\n\ntruth,crop\na,ff\n", "line 4: crop 'ff': not a key"),
        (b"\n\ntruth,who\nx,y\n", "line 3: needs the columns"),
        (b'\n\ntruth,crop\n"a\n', "line 4: not CSV"),
        (b'\n{"truth": "a"}', "line 2: names no crop"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "labels"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(read_labels(file))
    assert str(error.value).startswith(str(file)) and message in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        list(read_labels(tmp_path / "nothing.csv"))


def test_contradicting_labels_of_one_crop_are_refused(written: Written, tmp_path: Path) -> None:
    """Also where one label names the crop by its key, and the other by camera, time and track."""
    by_key, by_place = key("crop", 1, 0).hex(), {"camera": C2, "time": SECOND, "track": "1"}
    file = tmp_path / "labels.jsonl"
    rows = [{"crop": by_key, "truth": "anna"}, {"crop": "ab" * 32, "truth": "bert"}]
    file.write_text(
        "\n".join(map(json.dumps, [*rows, {**by_place, "truth": "cleo"}, {"crop": by_key, "truth": "dora"}]))
    )
    message = f"{file}: line 3: 'cleo' contradicts line 1, which says 'anna' of the same crop; "
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        labeled_tracklets(written.store, "d1", written.model, label_reader(file, "d1"))


def test_a_repeated_label_counts_once(written: Written, tmp_path: Path) -> None:
    crops = [key("crop", 2, i).hex() for i in range(3)]
    lines = [f"{crops[0]},x"] * 5 + [f"{crops[1]},bert", f"{crops[2]},bert"]
    (tmp_path / "labels.csv").write_text("\n".join(["crop,truth", *lines]))
    found = labeled_tracklets(written.store, "d1", written.model, label_reader(tmp_path / "labels.csv", "d1"))
    assert [found.people[person] for person in found.truth] == ["bert"]
