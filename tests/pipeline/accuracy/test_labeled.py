"""Scores of a small store that is written by hand: what is counted can be counted by eye."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.accuracy.label_file import Matched, read_labels, read_said
from pipeline.accuracy.labeled import identity_churn, labeled_tracklets, nearest_in_unit, score
from pipeline.accuracy.scorecard import open_set_of, scorecard
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

    def ask(self, unit: str, *sides: bytes) -> None:
        """Has the unit's run ask a person whether two identities are one."""
        left, right = sorted(sides)
        sql = (
            "INSERT INTO match_decision (run_id, left_key, right_key, verdict, distance, transit_log_odds, left_at, "
            "right_at) SELECT id, :left, :right, 'review', 0.1, 0, unit, unit FROM run WHERE unit = :unit"
        )
        with self.store.begin() as connection:
            connection.execute(text(sql), {"left": left, "right": right, "unit": unit})

    def level(self, level: Level, group: Ints, **more: object) -> None:
        write_level(self.store, self.model, level, CAMERA, group, self.tracklets, **more)  # type: ignore[arg-type]


@pytest.fixture
def written(store: Store) -> Written:
    store_city(store, CITY)
    features = np.eye(4)[[0, 0, 1, 1, 2, 3]] + 0.1
    with store.begin() as connection:
        model = insert_model(connection)
    made = Written(store, model, write_tracklets(store, model, CAMERA, START, END, CROPS, TRUTH, features))
    made.level(Level.BUILDING, BUILDING)
    made.level(Level.STREET, STREET)
    return made


def test_labeled_tracklets(written: Written) -> None:
    found = labeled_tracklets(written.store, "d1", written.model)
    order = sorted((i for i in range(6) if i != 4), key=lambda i: key(Level.CAMERA, i))  # one has no label
    assert found.key == [key(Level.CAMERA, i) for i in order]
    assert found.levels == (Level.BUILDING, Level.STREET, Level.DISTRICT)
    assert [found.cameras[c] for c in found.camera] == [CAMERA[i] for i in order]
    assert [found.people[t] for t in found.truth] == [TRUTH[i] for i in order]
    assert found.crops.tolist() == CROPS[order].tolist() and found.timed.all()
    assert ((found.start_us - to_us(DAY)) // 1_000_000).tolist() == START[order].tolist()
    assert ((found.end_us - to_us(DAY)) // 1_000_000).tolist() == END[order].tolist()
    np.testing.assert_allclose(found.mean[order.index(2)], np.eye(4)[1] + 0.1, atol=1e-3)
    for level, group in ((Level.BUILDING, BUILDING), (Level.STREET, STREET), (Level.DISTRICT, np.arange(6))):
        mine = found.identity[level]  # the district holds nobody: each is alone
        assert (mine[:, None] == mine[None]).tolist() == (group[order][:, None] == group[order][None]).tolist()
    assert (found.persistent_id[Level.DISTRICT] == np.zeros(5, "V16")).all()
    assert len(set(found.unit(Level.BUILDING).tolist())) == 2 and len(set(found.unit(Level.DISTRICT).tolist())) == 1
    part = labeled_tracklets(written.store, "d1/s1/b1", written.model)
    assert part.levels == (Level.BUILDING,) and len(part.key) == 4
    assert labeled_tracklets(written.store, "d1/s1/b2", written.model + 1).key == []


def test_the_commonest_label_is_the_tracklets(written: Written, tmp_path: Path) -> None:
    lines = [{"crop": key("crop", 2, i).hex(), "truth": who} for i, who in enumerate(["x", "bert", "bert", ""])]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = read_said(tmp_path / "labels.jsonl", "d1")
    found = labeled_tracklets(written.store, "d1", written.model, said)
    assert found.people == ("bert", "x") and found.truth.tolist() == [0] and found.key == [key(Level.CAMERA, 2)]


def test_score(written: Written) -> None:
    found = score(labeled_tracklets(written.store, "d1", written.model), {"street": 0.1})
    # In the first building three are one, of anna twice and bert once, and cleo is alone; in the other bert is.
    assert (found["building"]["precision"], found["building"]["recall"]) == (1 / 3, 1.0)
    # 12 crops: bert's 4 are more than anna's 3 of the identity's; in the street anna's 5 stand against bert's 5.
    assert found["building"]["idf1"] == (5 + 1 + 2) / 12
    assert found["building"]["purity"] == 4 / 5
    assert (found["street"]["precision"], found["street"]["recall"]) == (2 / 6, 1.0)
    assert (found["district"]["precision"], found["district"]["recall"]) == (1.0, 0.0)
    assert found["street"]["nearest_neighbor_f1"] == 1.0 and "nearest_neighbor_f1" not in found["building"]


def test_the_nearest_is_of_the_same_unit() -> None:
    mean, unit = np.array([[1, 0], [1, 0.01], [0, 1], [1, 0], [0.01, 1]]), np.array([7, 3, 7, 7, 3])
    groups = nearest_in_unit(mean, unit)(0.1)
    assert groups[0] == groups[3] and len(set(groups.tolist())) == 4


def test_scorecard(written: Written) -> None:
    for one, other in ((1, 2), (2, 4), (1, 3)):
        written.ask("d1/s1", key(Level.BUILDING, one), key(Level.BUILDING, other))
    written.ask("d1/s1/b1", key(Level.CAMERA, 0), key(Level.CAMERA, 1))
    labeled = labeled_tracklets(written.store, "d1", written.model)
    found = scorecard(written.store, "d1", labeled)
    building, street = found[Level.BUILDING], found[Level.STREET]
    assert (building["identities"], building["people"]) == (3, 4)
    assert (street["identities"], street["people"]) == (2, 3)
    assert building["violations"] == 1  # tracklets 0 and 2, at one camera from second 5 to 10
    assert street["violations"] == 1  # with tracklet 3 nobody is in conflict: 70 s for a walk of 30
    assert building["reviews"] == building["reviews_labeled"] == 1 and building["reviews_needed"] == 0
    # Of the street's three one has a side without labels; bert and cleo are two people; and the first is of anna's
    # building identity, by her 5 crops of 9, and bert.
    assert (street["reviews"], street["reviews_labeled"], street["reviews_needed"]) == (3, 2, 0)
    assert building["churn"] == street["churn"] == 0.0
    assert building["false_attach_rate"] == 1 / 4  # bert, attached to anna's
    assert [row["identities_from"] for row in building["history"]] == [0]
    opened = open_set_of(labeled, Level.STREET)  # the building's identities: anna's, bert's, cleo's
    assert (opened.new.sum(), opened.seen.sum(), opened.false_attached.sum()) == (3, 0, 1)


def test_the_scorecard_holds_the_scores(written: Written) -> None:
    labeled = labeled_tracklets(written.store, "d1", written.model)
    found = scorecard(written.store, "d1", labeled, {"street": 0.1})
    for level, row in score(labeled, {"street": 0.1}).items():
        assert {name: found[Level(level)][name] for name in row} == row


def test_whoever_comes_back_after_the_horizon_is_to_be_another(written: Written) -> None:
    labeled = labeled_tracklets(written.store, "d1", written.model)
    short = replace(labeled, horizon_us=dict.fromkeys(labeled.levels, 5_000_000))
    found = scorecard(written.store, "d1", short)
    assert found[Level.BUILDING]["people"] == 5  # anna stays away for 10 s
    assert found[Level.STREET]["people"] == 5  # and bert for 85 on his way to the other building
    assert open_set_of(labeled, Level.BUILDING).seen.sum() == 1
    # By the task she is new as well, and falsely attached to bert, who was there until 5 s before her; with a horizon
    # of 4 s the identity is over by then.
    for seconds, false in ((5, 2), (4, 1)):
        shorter = replace(labeled, horizon_us=dict.fromkeys(labeled.levels, seconds * 1_000_000))
        opened = open_set_of(shorter, Level.BUILDING)
        assert (opened.new.sum(), opened.seen.sum(), opened.false_attached.sum()) == (5, 0, false)


def test_a_review_is_needed_where_one_person_stays_in_two(written: Written) -> None:
    written.level(Level.DISTRICT, np.array([1, 1, 2, 3, 4, 5]))
    written.ask("d1", key(Level.CAMERA, 2), key(Level.CAMERA, 3))
    labeled = labeled_tracklets(written.store, "d1", written.model)
    found = scorecard(written.store, "d1", labeled)[Level.DISTRICT]
    assert (found["reviews"], found["reviews_labeled"], found["reviews_needed"]) == (1, 1, 1)
    assert (found["violations"], found["identities"], found["people"]) == (0, 4, 3)


def test_churn_is_against_the_first_id(written: Written) -> None:
    before = labeled_tracklets(written.store, "d1", written.model)
    # A later window's run: whoever was number 1 is 9 now, and so has a third id with the old members.
    with written.store.begin() as connection:
        connection.execute(text("UPDATE run SET superseded_at = now() WHERE unit = 'd1/s1'"))
    written.level(Level.STREET, np.array([1, 1, 1, 2, 3, 4]), window=1, renamed={1: 9, 2: 1})
    after = labeled_tracklets(written.store, "d1", written.model)
    assert identity_churn(before, after) == {Level.BUILDING: 0.0, Level.STREET: 3 / 5, Level.DISTRICT: 0.0}
    part = replace(after, key=after.key[:2], persistent_id={k: v[:2] for k, v in after.persistent_id.items()})
    assert identity_churn(before, part)[Level.DISTRICT] == 0.0
    assert scorecard(written.store, "d1", after)[Level.STREET]["churn"] == 3 / 5


# ---- labels from a file

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
def test_a_label_names_its_crop(written: Written, tmp_path: Path, content: str) -> None:
    file = tmp_path / "labels"
    file.write_text("\ufeff" + content)
    heard: list[Matched] = []
    found = labeled_tracklets(written.store, "d1", written.model, read_said(file, "d1", heard.append))
    assert found.key == [key(Level.CAMERA, 1)] and found.people[found.truth[0]] == "anna"
    assert heard == [Matched(labels=2, matched=1)]
    with pytest.raises(InputError, match="none of its 2 labels is of a crop of d1/s1/b2"):
        labeled_tracklets(written.store, "d1/s1/b2", written.model, read_said(file, "d1/s1/b2"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"truth,who\nx,y\n", "line 1: needs the columns"),
        (b"", "line 1: needs the columns"),
        (b"truth,crop\na,ff\n", "line 2: crop 'ff': is no key of 64 hex digits"),
        (b"truth,crop\n\xff,1\n", "line 2: is not UTF-8"),
        (b'truth,crop\n"a\n', "is no CSV"),
        (b"truth,camera,time\na,d1/s1/b1/c1,noon\n", "line 2: 'noon' is no time"),
        (b"truth,camera,time\na,d1/s1/b1/c1,2026-01-01\n", "line 2: time 2026-01-01T00:00:00 has no zone"),
        (b'{"truth": "a", "crop": "' + b"ab" * 32 + b'"}\n{"truth": "b"', "line 2: is no JSON"),
        (b'{"truth": "a"}', "line 1: says neither which `crop`"),
        (b'{"truth": ["a"]}', "line 1: truth: is no text"),
        (b'{"truth": "a\\u0000"}', "line 1: truth: holds a NUL"),
        (b'{"truth": "' + b"a" * 201 + b'"}', "line 1: truth: longer than 200"),
        (b"{" + b"x" * 70_000, "line 1: longer than 65536"),
        (b'{"truth": 1}\n[1]', "line 1: says neither"),
        (b'{"truth": ""}\n[1]', "line 2: is no JSON object"),
    ],
)
def test_bad_files_say_where(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "labels"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(read_labels(file))
    assert str(error.value).startswith(str(file)) and message in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        list(read_labels(tmp_path / "nothing.csv"))
