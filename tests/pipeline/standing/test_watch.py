"""What standing searches raise as windows are decided, each passage once, and within which bounds."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from pipeline.erasure.absence import verify_absence
from pipeline.erasure.erase import erase
from pipeline.governance.audit import read_audit
from pipeline.governance.purposes import change_limits, limits
from pipeline.review import queue
from pipeline.standing.messages import untold_hits
from pipeline.standing.searches import (
    current_searches,
    earlier_searches,
    end,
    hits,
    how_many_current,
    standing_search,
    standing_searches,
    start,
)
from pipeline.standing.watch import Watch, watching
from pipeline.store import Store, embedded
from pipeline.webhook.hook import Hook
from pipeline.webhook.telling import tell
from schemas.errors import InputError, NotAllowed, StoreError
from schemas.parameters import StandingParameters
from schemas.review import Way
from tests.helpers.homes import fresh_settings
from tests.helpers.receiver import SECRET, receiving
from tests.helpers.town import Town
from tests.helpers.waiting import wait_until

START = datetime(2026, 1, 1, tzinfo=UTC)


def asked(crops: list[str], **changed: Any) -> StandingParameters:
    usual = {
        "units": ("d1",),
        "crops": crops,
        "bar": 0.3,
        "from_time": START,
        "to_time": START + timedelta(days=2),
        "reason": "a child is missed",
        "operator": "me",
    }
    return StandingParameters.model_validate(usual | changed)


def look(town: Town) -> int:
    said: list[str] = []
    found = Watch(town.store, said.append).look(0.0)
    assert said == []
    return len(found)


def decide_again(town: Town) -> None:
    with town.store.owning() as connection:
        connection.execute(text("UPDATE watermark SET dirty_from = '2026-01-01Z', version = version + 1"))
        connection.execute(text("UPDATE run SET run_key = sha256(run_key)"))  # as if settings had changed
    town.resolve()


def set_limits(store: Store, **changed: int) -> None:
    change_limits(store, type(limits(store))(**vars(limits(store)) | changed), reason="a test")


@dataclass
class Watched:
    """A town half of which was decided when standing searches began to look, and the rest after it."""

    town: Town
    crop: str  # of whom they look for, who is seen in both halves
    standing: dict[str, UUID]
    first: int  # hits of "usual" in the first half


@pytest.fixture(scope="module")
def watched(server: embedded.EmbeddedServer, city_files: Path, model_folder: Path) -> Iterator[Watched]:
    lines = sorted((city_files / "manifest.jsonl").read_text().splitlines(), key=lambda one: json.loads(one)["time"])[
        :200
    ]
    halves = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        town = Town(store, city_files, model_folder)
        town.take_in(halves[0])
        town.resolve()
        again = {json.loads(line)["truth"] for line in halves[1]}
        sql = (
            "SELECT t.truth, encode(c.key, 'hex') AS key FROM crop c JOIN crop_truth t ON t.crop_id = c.id "
            "JOIN identity_member m ON m.crop_id = c.id ORDER BY t.truth, c.quality DESC, c.key"
        )
        with store.begin() as connection:
            crop = next(row.key for row in connection.execute(text(sql)) if row.truth in again)
        set_limits(store, standing_searches=5)
        one = [crop]
        standing = {
            "usual": start(store, asked(one)),
            "late": start(store, asked(one, from_time=START + timedelta(days=1))),
            "certain": start(store, asked(one, bar=1.0)),
            "street": start(store, asked(one, units=("d1/s1",))),
        }
        assert look(town) == 3 and look(town) == 0  # nothing new is decided
        first = len(hits(store, standing["usual"]))
        town.take_in(halves[1])
        town.resolve()
        assert look(town) == 3
        yield Watched(town, crop, standing, first)


def test_what_nobody_expected_is_said_and_the_looks_go_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    said, looks = list[str](), list[float]()

    def look(_watch: Watch, now: float) -> list[Any]:
        looks.append(now)
        if len(looks) == 1:
            raise ValueError("a bug")
        return []

    monkeypatch.setattr(Watch, "look", look)
    for pause in ("LOOK_EVERY_S", "_AFTER_ERROR_S"):
        monkeypatch.setattr(f"pipeline.standing.watch.{pause}", 0.01)
    with watching(store, said.append):
        wait_until(lambda: len(looks) > 2, 60)
    assert said == ["unexpected ValueError: a bug"]


def test_each_passage_is_raised_once_as_windows_are_decided(watched: Watched) -> None:
    town, usual = watched.town, watched.standing["usual"]
    raised = hits(town.store, usual)
    assert len(raised) > watched.first > 0
    assert all(hit.passages >= 1 and hit.person and hit.lead is None and hit.unit == "d1" for hit in raised)
    with town.store.owning() as connection:
        sql = "SELECT tracklet, raised_at, last_frame_at FROM standing_passage WHERE standing_id = :id"
        told = connection.execute(text(sql), {"id": usual}).all()
        least = "SELECT min(h.probability) FROM search_hit h JOIN search_request r ON r.id = h.request_id"
        assert connection.execute(text(least)).scalar_one() >= 0.3
        looked = [row.details for row in read_audit(connection, action="search.show", last=50)]
    assert len({row.tracklet for row in told}) == len(told) == sum(hit.passages for hit in raised)
    assert all(row.raised_at > row.last_frame_at >= START for row in told)
    assert {row["standing"] for row in looked} == {
        str(watched.standing[name]) for name in ("usual", "certain", "street")
    }
    assert any(row["shown"] for row in looked) and not all(row["shown"] for row in looked)
    decide_again(town)
    assert look(town) == 3  # and what was seen is the same
    assert len(hits(town.store, usual)) == len(raised)
    row = standing_search(town.store, str(usual)[:8])
    assert (row.state, row.looks, row.hits, row.left_out) == ("looks", 3, len(raised), 0)
    assert row.latency_s > 0


def test_a_search_that_fails_keeps_no_other_from_its_look(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    said, asked_for, failing = list[str](), list[UUID](), watched.standing["usual"]

    def ask(_watch: Watch, standing: UUID, unit: str) -> None:
        asked_for.append(standing)
        if standing == failing:
            raise ValueError("a bug")

    monkeypatch.setattr(Watch, "_ask", ask)
    decide_again(watched.town)
    assert Watch(watched.town.store, said.append).look(0.0) == [] and failing in asked_for and len(asked_for) > 1
    assert said == [f"standing search {str(failing)[:8]} in d1: unexpected ValueError: a bug"]
    monkeypatch.undo()
    assert look(watched.town) == 3


def test_each_hit_is_told_once_by_ids_alone(watched: Watched) -> None:
    store = watched.town.store
    with receiving() as receiver:
        hook, now = Hook(receiver.url, SECRET), datetime.now(UTC)
        receiver.status = 503
        assert tell(store, hook, [untold_hits], now) == "answers with status 503" and receiver.taken == []
        waiting = [message.content for message in untold_hits(store, now)]
        receiver.status = 200
        assert tell(store, hook, [untold_hits], now) is None and tell(store, hook, [untold_hits], now) is None
    assert receiver.taken == waiting and len({message["id"] for message in waiting}) == len(waiting)
    there = sum(len(hits(store, standing)) for standing in watched.standing.values())
    assert len(waiting) == there > 0
    assert all(message.keys() == {"id", "event", "standing", "lead", "at", "address"} for message in waiting)


def test_nothing_is_raised_before_its_time_below_its_bar_or_elsewhere(watched: Watched) -> None:
    found = {name: hits(watched.town.store, standing) for name, standing in watched.standing.items()}
    assert found["late"] == found["certain"] == []
    assert found["street"] and {hit.unit for hit in found["street"]} == {"d1/s1"}


def test_its_looks_are_no_pairs_for_reviewers(watched: Watched) -> None:
    assert hits(watched.town.store, watched.standing["usual"])
    with watched.town.store.signed_in() as connection:
        everything = {"unit": "d1", "most": 1000, "value": None, "at": None, "ref": None}
        rows = connection.execute(queue._AFTER, everything).all()  # before those that are one person by now go
    assert rows and Way.HIT not in {row.way for row in rows}


def test_what_an_hour_has_no_room_for_is_counted_and_not_raised_later(watched: Watched) -> None:
    store = watched.town.store
    with store.owning() as connection:
        there = connection.execute(text("SELECT count(*) FROM search_hit")).scalar_one()
    set_limits(store, standing_hits_h=there)
    standing = start(store, asked([watched.crop]))
    assert look(watched.town) == 1 and hits(store, standing) == []
    row = standing_search(store, str(standing))
    assert row.left_out > 0
    set_limits(store, standing_hits_h=20 + there)
    decide_again(watched.town)
    assert look(watched.town) > 0
    assert (hits(store, standing), standing_search(store, str(standing)).left_out) == ([], row.left_out)
    assert end(store, str(standing)[:8], reason="found") == standing
    with pytest.raises(NotAllowed, match="has ended"):
        end(store, str(standing), reason="again")
    decide_again(watched.town)
    look(watched.town)
    assert standing_search(store, str(standing)).looks == 2


def test_there_are_only_so_many_and_none_of_what_cannot_be_looked_for(watched: Watched) -> None:
    store = watched.town.store
    set_limits(store, standing_searches=4)
    with pytest.raises(NotAllowed, match="there are 4 standing searches under this authorization"):
        start(store, asked([watched.crop]))
    set_limits(store, standing_searches=5)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"units": ("d1/s1/b1/c1",)}, "no probability is known"),
        ({"crops": ("0" * 64,)}, "no crop has the key"),
        ({"to_time": START}, "before it begins"),
    )
    for changed, why in wrong:
        with pytest.raises(InputError, match=why):
            start(store, asked(**{"crops": [watched.crop], **changed}))
    with pytest.raises(NotAllowed, match="d1/s1/b1/c1 is no building"), store.signed_in() as connection:
        connection.execute(_START, {"unit": "d1/s1/b1/c1"})
    with pytest.raises(NotAllowed, match="needs a picture"), store.signed_in() as connection:
        connection.execute(_START, {"unit": "d1"})
    with pytest.raises(NotAllowed, match="the pictures that it was asked for with"), store.signed_in() as connection:
        connection.execute(_PICTURE, {"standing": watched.standing["usual"], "crop": watched.crop})
    with pytest.raises(StoreError, match="permission denied"), store.signed_in() as connection:
        connection.execute(text("DELETE FROM standing_search"))
    assert len([row for row in standing_searches(store) if row.state == "looks"]) == 4


_START = text(
    "INSERT INTO standing_search (operator, reason, units, bar, from_time, to_time) "
    "VALUES ('me', 'no', ARRAY[:unit], 0.5, now(), now() + interval '1 day')"
)
_PICTURE = text(
    "INSERT INTO standing_picture (standing_id, crop_id) SELECT :standing, id FROM crop WHERE encode(key, 'hex') <> "
    ":crop ORDER BY id LIMIT 1"
)


def test_after_its_period_it_looks_no_more_and_takes_no_place(watched: Watched) -> None:
    store = watched.town.store
    with store.owning() as connection:
        first, last = connection.execute(text("SELECT min(window_start), max(window_start) FROM run")).one()
    assert first < last
    ended = start(store, asked([watched.crop], to_time=last))  # whose windows after it are decided
    row = standing_search(store, str(ended))
    assert row.state == "past" and row.id not in {one.id for one in current_searches(store)}
    assert row.id == earlier_searches(store, None, 1)[0].id
    assert how_many_current(store) == len(current_searches(store)) == 4
    assert look(watched.town) == 1  # at what was decided of its period
    with store.owning() as connection:
        connection.execute(text("UPDATE watermark SET dirty_from = :last, version = version + 1"), {"last": last})
        connection.execute(text("UPDATE run SET run_key = sha256(run_key) WHERE window_start = :last"), {"last": last})
    watched.town.resolve()
    look(watched.town)
    assert standing_search(store, str(ended)).looks == 1
    decide_again(watched.town)  # windows of the period, late
    look(watched.town)
    assert standing_search(store, str(ended)).looks == 2
    most = limits(store).standing_searches
    set_limits(store, standing_searches=4)
    with pytest.raises(NotAllowed, match="there are 4 standing searches"):
        start(store, asked([watched.crop]))
    set_limits(store, standing_searches=most)
    end(store, str(start(store, asked([watched.crop]))), reason="a place was left")
    end(store, str(ended), reason="a test")


def test_by_the_clock_a_period_is_over_where_nobody_is_seen_after_it(watched: Watched) -> None:
    store = watched.town.store
    made = start(store, asked([watched.crop], from_time=START, to_time=datetime.now(UTC) + timedelta(days=1)))
    assert standing_search(store, str(made)).state == "looks"
    with store.owning() as connection:
        sql = "UPDATE standing_search SET asked_at = now() - interval '2 h', to_time = now() - interval '1 h' "
        connection.execute(text(f"{sql} WHERE id = :id"), {"id": made})
    assert standing_search(store, str(made)).state == "past"
    end(store, str(made), reason="a test")


def test_with_its_picture_it_ends_and_hits_go_with_whom_they_show(watched: Watched) -> None:
    store, usual = watched.town.store, watched.standing["usual"]
    with store.begin() as connection:
        sql = (
            "SELECT i.persistent_id FROM identity_now i JOIN identity_member m ON m.identity_id = ANY(i.tracklets) "
            "JOIN crop c ON c.id = m.crop_id WHERE i.unit = 'd1' AND c.key = :key"
        )
        person = connection.scalar(text(sql), {"key": bytes.fromhex(watched.crop)})
    done = erase(store, "identity", [str(person)], actor="me", reason="asked for")
    for standing in watched.standing.values():
        row = standing_search(store, str(standing))
        assert (row.state, row.reason, row.ending) == ("ended", "(erased)", "a picture of whom it looked for is gone")
    assert hits(store, usual) == []
    with store.owning() as connection:
        gone = "SELECT count(*) FROM standing_passage p WHERE NOT EXISTS (SELECT FROM identity i WHERE "
        assert connection.execute(text(f"{gone} i.persistent_id = p.tracklet)")).scalar_one() == 0
        assert connection.execute(text("SELECT count(*) FROM standing_picture")).scalar_one() == 0
    assert verify_absence(store, str(done.id), actor="me").found == ()
    watched.town.resolve()
    assert look(watched.town) == 0
