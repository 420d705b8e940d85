"""Erasure: rows, pictures, reports and exports go; digest and chain say the same; what comes back is not taken in."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.city.watermarks import any_pending
from pipeline.erasure.absence import verify_absence
from pipeline.erasure.erase import erase
from pipeline.erasure.subject import write_subject
from pipeline.governance.audit_chain import verify_city
from pipeline.governance.audit_export import export
from pipeline.governance.verify_audit import ROWS, verify_export
from pipeline.report import write_report
from pipeline.report.one_picture import show_picture
from pipeline.resolve import units_within
from pipeline.search.request import request_search, upload_probe
from pipeline.search.search import search
from pipeline.store import Store
from schemas.errors import InputError
from schemas.parameters import SearchParameters
from tests.helpers.orphans import count_orphans
from tests.helpers.town import Town


@pytest.fixture
def people(town: Town, lines: list[str]) -> list[UUID]:
    """Persistent ids of a resolved city's people, those with the most crops first."""
    town.take_in(lines[:100])
    town.resolve()
    query = "SELECT persistent_id FROM identity_now WHERE unit = 'd1' ORDER BY crops DESC, key"
    with town.store.begin() as connection:
        return list(connection.execute(text(query)).scalars())


def digest(store: Store) -> str:
    with store.begin() as connection:
        return decision_digest(connection)


def keys_of(store: Store, person: UUID) -> list[str]:
    query = (
        "SELECT encode(c.key, 'hex') FROM identity_now n CROSS JOIN unnest(n.tracklets) AS t(id) "
        "JOIN identity_member m ON m.identity_id = t.id JOIN crop c ON c.id = m.crop_id "
        "WHERE n.persistent_id = :id ORDER BY c.key"
    )
    with store.begin() as connection:
        return list(connection.execute(text(query), {"id": person}).scalars())


def test_an_erased_person_is_gone_and_digest_and_chain_verify(town: Town, people: list[UUID], tmp_path: Path) -> None:
    store = town.store
    person, other = people[0], people[1]
    keys, others = keys_of(store, person), keys_of(store, other)
    asked = SearchParameters(unit="d1", crop_key=keys[0], reason="case 7", operator="anna", top=5)
    request = request_search(store, town.model, asked)
    search(store, lambda _: town.core, town.crops, town.model, request, asked)
    before = digest(store)
    done = erase(store, "identity", [str(person)], actor="anna", reason="request of the 3rd")
    assert done.counts["crops"] == len(keys) and done.counts["people"] >= 4 and done.counts["searches"] == 1
    assert digest(store) == before
    verdict = verify_city(store)
    assert verdict.faults == [] and verdict.erased >= 1
    with store.owning() as connection:
        assert not any_pending(connection, units_within(store, "d1"))
        assert set(count_orphans(connection).values()) == {0}
        assert connection.scalar(text("SELECT count(*) FROM erasure_name")) == 0
        said = connection.scalar(text("SELECT string_agg(concat_ws(' ', reason, details), ' ') FROM audit"))
    assert not [key for key in keys if key in said]
    assert keys_of(store, person) == [] and keys_of(store, other) == others
    assert town.resolve() == 0
    with pytest.raises(InputError, match="was erased"):
        from pipeline.search.request import read_request

        read_request(store, request)


def test_pictures_go_and_the_same_file_is_not_taken_in_again(town: Town, people: list[UUID], lines: list[str]) -> None:
    store = town.store
    keys = keys_of(store, people[0])
    before = set(town.pictures())
    done = erase(store, "identity", [str(people[0])], actor="anna", reason="asked for")
    after = set(town.pictures())
    assert {path for path in before if path.exists()} == after
    assert len(before - after) == done.counts["pictures"] == len(keys)
    town.take_in(lines[:100])
    assert set(town.pictures()) == after == {path for path in town.crops.root.rglob("*") if path.is_file()}


def test_one_crop_goes_and_its_person_is_made_again_without_it(town: Town, people: list[UUID]) -> None:
    store = town.store
    keys = keys_of(store, people[0])
    before = digest(store)
    erase(store, "crop", [keys[0]], actor="anna", reason="a child")
    assert digest(store) == before
    with store.begin() as connection:
        assert any_pending(connection, units_within(store, "d1"))
    assert town.resolve() > 0
    assert keys_of(store, people[0]) == keys[1:]
    unknown = "SELECT count(*) FROM identity_now n WHERE NOT EXISTS (SELECT FROM prototype WHERE identity_id = n.id)"
    with store.begin() as connection:
        assert set(count_orphans(connection).values()) == {0}
        assert connection.scalar(text(unknown)) == 0


def test_reports_and_exports_that_show_the_erased_are_cleaned(town: Town, people: list[UUID], tmp_path: Path) -> None:
    store = town.store
    keys = keys_of(store, people[0])
    index = write_report(store, town.crops, "d1", tmp_path / "report")
    export = tmp_path / "own" / "assignments.jsonl"
    export.parent.mkdir()
    export.write_text((index.parent / "assignments.jsonl").read_text())
    (export.parent / "other.txt").write_text("ours")
    from pipeline.governance.written import record_written

    with store.begin() as connection:
        record_written(connection, "assignments", export)
        record_written(connection, "assignments", tmp_path / "moved away")
    answer = write_subject(store, town.crops, [str(people[0])], tmp_path / "answer", reason="request 12")
    assert (answer.crops, answer.pictures) == (len(keys), len(keys))
    page = (answer.folder / "subject.md").read_text()
    assert page.count("[picture](pictures/") == len(keys) and "shown in no search" in page
    said = json.loads((answer.folder / "subject.json").read_text())
    assert [row["crop"] for row in said["sightings"]] and {row["crop"] for row in said["sightings"]} == set(keys)
    assert {row["level"] for row in said["identities"]} == {"camera", "building", "street", "district"}
    done = erase(store, "identity", [str(people[0])], actor="anna", reason="asked for")
    assert not [path for path in answer.folder.rglob("*") if path.is_file()]
    assert "was removed" in index.read_text()
    assert not list(index.parent.glob("crops/*")) and not list(index.parent.glob("*.jsonl"))
    kept = [json.loads(line)["crop"] for line in export.read_text().splitlines()]
    assert len(kept) == 100 - len(keys) and not set(kept) & set(keys)
    assert len(done.left) == 1 and "moved away" in done.left[0]
    assert (export.parent / "other.txt").read_text() == "ours"


def test_single_pictures_and_exports_of_the_audit_forget_the_erased_too(
    town: Town, people: list[UUID], tmp_path: Path
) -> None:
    store = town.store
    erased, other = keys_of(store, people[0])[0], keys_of(store, people[1])[0]
    for key in (erased, other):
        show_picture(store, key, tmp_path / f"{key[:4]}.jpg", reason=f"to tell {key} apart")
    export(store, tmp_path / "audit", operator="anna", reason="yearly")
    assert verify_export(tmp_path / "audit").faults == []
    done = erase(store, "crop", [erased], actor="anna", reason="asked for")
    assert verify_absence(store, str(done.id), actor="anna").found == ()
    assert not (tmp_path / f"{erased[:4]}.jpg").exists() and (tmp_path / f"{other[:4]}.jpg").exists()
    said = (tmp_path / "audit" / ROWS).read_text()
    assert erased not in said and other in said and not (tmp_path / "audit" / "audit.md").exists()
    verdict = verify_export(tmp_path / "audit")  # which only tells that the row of its erasure came later
    assert verdict.erased == len(verdict.faults) == 1 and "its reason and details are gone" in verdict.faults[0]
    export(store, tmp_path / "later", operator="anna", reason="yearly")
    assert verify_export(tmp_path / "later").faults == []


def test_the_proof_finds_a_single_picture_that_came_back(town: Town, people: list[UUID], tmp_path: Path) -> None:
    key = keys_of(town.store, people[0])[0]
    show_picture(town.store, key, tmp_path / "face.jpg", reason="x")
    data = (tmp_path / "face.jpg").read_bytes()
    done = erase(town.store, "crop", [key], actor="anna", reason="asked for")
    (tmp_path / "face.jpg").write_bytes(data)
    assert verify_absence(town.store, str(done.id), actor="anna").found == (f"file {tmp_path / 'face.jpg'}",)
    probe = upload_probe(town.store, town.crops, data, "anna")
    said = f"uploaded picture {probe}, of no case, shows who was erased: `urban-reid erase --probe {probe}`"
    assert said in verify_absence(town.store, str(done.id), actor="anna").found
