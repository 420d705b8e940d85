"""Undo of an ingest: after a resolve the city is as if the batch had never been taken in."""

import json
import random
from collections.abc import Callable

import pytest
from sqlalchemy import text

from pipeline.city.assignments import assignments
from pipeline.city.status import status
from pipeline.ingest import crop_writer
from pipeline.ingest.batches import Batch, batches
from pipeline.ingest.manifest import ingest_manifest
from pipeline.ingest.undo import Undone, undo
from pipeline.store import Store
from schemas.errors import InputError
from tests.helpers.town import Town


def listed(store: Store) -> dict[int, Batch]:
    with store.begin() as connection:
        return {batch.id: batch for batch in batches(connection)}


def undone(town: Town, batch: int) -> Undone:
    return undo(town.store, town.crops, batch, operator="anna", reason="wrong camera")


def digest(town: Town) -> str:
    found = status(town.store)
    assert found["pending"] == 0
    return str(found["digest"])


def count(town: Town, sql: str) -> int:
    with town.store.begin() as connection:
        return int(connection.execute(text(sql)).scalar_one())


@pytest.fixture
def halves(lines: list[str]) -> tuple[list[str], list[str]]:
    """Two halves that hold crops of the same tracklets, with some lines in both."""
    shuffled = lines[:160]
    random.Random(0).shuffle(shuffled)
    return shuffled[:100], shuffled[80:]


def test_undo_leaves_the_city_as_if_the_batch_had_never_come(
    town: Town, fresh_town: Callable[..., Town], halves: tuple[list[str], list[str]]
) -> None:
    """Undone before and after a resolve, and taken in again; the batch shares crops and tracklets with another one."""
    first, second = halves
    never = fresh_town()
    never.take_in(first)
    never.resolve()
    without = digest(never)
    never.take_in(second)
    never.resolve()
    both = digest(never)
    assert both != without

    town.take_in(first)
    town.take_in(second)
    one, two = sorted(listed(town.store))
    town.resolve()
    assert digest(town) == both
    before = {row["crop"]: row["district"] for row in assignments(town.store, "d1")}
    done = undone(town, two)
    assert (done.crops, done.districts) == (len(second) - 20, ("d1",))
    assert count(town, "SELECT count(*) FROM crop_embedding") == len(first)
    town.resolve()
    assert digest(town) == without
    assert len(list(assignments(town.store, "d1"))) == len(first) == status(town.store)["crops"]
    held = "SELECT count(*) FROM prototype p JOIN identity i ON i.id = p.identity_id WHERE EXISTS (SELECT FROM "
    held += "identity_member m JOIN crop c ON c.id = m.crop_id WHERE m.identity_id = ANY(i.tracklets) "
    assert count(town, held + "AND c.withdrawn_at IS NOT NULL)") == 0

    town.take_in(second)
    town.resolve()
    assert digest(town) == both
    after = {row["crop"]: row["district"] for row in assignments(town.store, "d1")}
    assert after.keys() == before.keys()
    assert listed(town.store)[two].undone_by == "anna" and len(listed(town.store)) == 3

    undone(town, max(listed(town.store)))
    undone(town, one)
    town.resolve()
    assert status(town.store)["crops"] == 0 and sum(status(town.store)["levels"].values()) == 0
    assert [path for path in town.crops.root.rglob("*") if path.is_file()] == []


def test_what_another_batch_brought_too_stays(
    town: Town, fresh_town: Callable[..., Town], halves: tuple[list[str], list[str]]
) -> None:
    first, second = halves
    never = fresh_town()
    never.take_in(second)
    never.resolve()
    town.take_in(first)
    town.take_in(second)
    done = undone(town, min(listed(town.store)))
    assert (done.crops, done.kept) == (len(first) - 20, 20)
    town.resolve()
    assert digest(town) == digest(never)
    assert status(town.store)["crops"] == len(second)
    assert all(row["truth"] for row in assignments(town.store, "d1"))
    assert sum(path.is_file() for path in town.crops.root.rglob("*")) == count(
        town, "SELECT count(DISTINCT picture) FROM crop WHERE withdrawn_at IS NULL"
    )


def test_a_truth_goes_with_the_last_batch_that_stated_it(town: Town, lines: list[str]) -> None:
    labeled = lines[:20]
    bare = [
        json.dumps({name: value for name, value in json.loads(line).items() if name != "truth"}) for line in labeled
    ]
    truths = "SELECT count(*) FROM crop_truth"
    town.take_in(bare)
    town.take_in(labeled[:15])
    town.take_in(labeled[5:])
    first, second, third = sorted(listed(town.store))
    assert count(town, truths) == 20
    assert undone(town, second).crops == 0
    assert count(town, truths) == 15, "five were stated by nobody else"
    undone(town, first)
    assert count(town, truths) == 15 == status(town.store)["crops"]
    town.take_in(bare)
    undone(town, third)
    assert count(town, truths) == 0 and status(town.store)["crops"] == 20


def test_undo_and_the_same_again_before_a_resolve_changes_nothing(town: Town, lines: list[str]) -> None:
    town.take_in(lines[:80])
    town.resolve()
    before = digest(town)
    (batch,) = listed(town.store)
    undone(town, batch)
    town.take_in(lines[:80])
    assert town.resolve() == 0 and digest(town) == before
    assert count(town, "SELECT count(*) FROM crop_embedding") == 80


def test_a_repeat_goes_on_with_its_batch(town: Town, lines: list[str]) -> None:
    town.take_in(lines[:20])
    town.take_in(lines[:20])
    (batch,) = listed(town.store).values()
    assert (batch.read, batch.written, batch.crops) == (20, 20, 20)
    assert count(town, "SELECT count(*) FROM crop_claim") == 0


def test_undo_is_audited_and_done_once(town: Town, lines: list[str]) -> None:
    with pytest.raises(InputError, match="there is no batch 7; `urban-reid ingest list` shows them"):
        undone(town, 7)
    town.take_in(lines[:20])
    (batch,) = listed(town.store)
    assert undone(town, batch).crops == 20 and undone(town, batch).crops == 0
    with town.store.signed_in() as connection:
        rows = connection.execute(text("SELECT actor, reason, details FROM audit WHERE action = 'ingest.undo'")).all()
    assert len(rows) == 1 and rows[0].actor == "anna" and rows[0].details["crops"] == 20
    assert listed(town.store)[batch].undo_reason == "wrong camera"


def test_an_ingest_whose_batch_is_undone_meanwhile_ends(
    town: Town, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop_writer, "BATCH", 10)
    manifest = town.files / "undone.jsonl"
    manifest.write_text("\n".join(lines[:40]) + "\n")
    done: list[int] = []

    def undo_once(read: int, total: int) -> None:
        done.append(undone(town, 1).crops)

    with pytest.raises(InputError, match="batch 1 was undone while it was taken in; nothing more of it is written; 10"):
        ingest_manifest(town.store, town.crops, manifest, undo_once)
    manifest.unlink()
    assert done == [10] and status(town.store)["crops"] == 0
