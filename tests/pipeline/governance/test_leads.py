"""From a search under an authorization to a lead, two people who confirm it, and evidence that verifies elsewhere."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.cameras.rows import went_down
from pipeline.city.assignments import write_assignments
from pipeline.crops.context_frames import ContextFrame, context_store, write_frames
from pipeline.crops.crop_store import place_of_crop
from pipeline.crops.privacy import without_faces
from pipeline.crops.quality import decode
from pipeline.governance.audit import Action, read_audit
from pipeline.governance.authorizations import approve, ask, lock_overdue, open_case, what_it_opens
from pipeline.governance.evidence import export_evidence
from pipeline.governance.leads import answer_lead, leads, see_lead, show_lead
from pipeline.governance.purposes import Limits, change_limits
from pipeline.governance.verify_audit import EVIDENCE, verify_evidence
from pipeline.report import write_report
from pipeline.report.one_picture import show_picture
from pipeline.search.request import read_request, request_search, upload_probe
from pipeline.search.search import search
from pipeline.store import embedded
from pipeline.training.confirmations import confirm
from schemas.errors import InputError, NotAllowed, StoreError
from schemas.parameters import LEAD, SearchParameters, SearchResult
from schemas.times import from_us, to_us
from tests.helpers.governed import Governed, asked
from tests.helpers.homes import superuser_of
from tests.helpers.town import Town


@dataclass
class Case:
    town: Town
    governed: Governed
    crop: str  # its key

    def searched(self, **changed: Any) -> SearchResult:
        """A search by whoever is signed in, answered in a process that knows the request alone."""
        parameters = {"unit": "d1", "reason": "a child is missed", "operator": "me", "top": 3, "crop_key": self.crop}
        town = self.town
        request = request_search(town.store, town.model, SearchParameters.model_validate(parameters | changed))
        signed_in = town.store.settings
        self.governed.as_(None)
        found = search(
            town.store,
            lambda _: town.core,
            town.crops,
            town.model,
            request,
            read_request(town.store, request).parameters,
        )
        town.store.settings = signed_in
        return found

    def lead(self, case: str) -> tuple[UUID, UUID]:
        """The authorization of a new case, and the first lead of anna's search in it."""
        authorization = self.governed.authorized(case)
        self.governed.as_("anna", authorization)
        lead = self.searched().hits[0].lead
        assert lead is not None
        return authorization, lead

    def says(self, name: str, authorization: UUID, lead: UUID, is_same: bool, folder: Path) -> str:
        self.governed.as_(name, authorization)
        show_lead(self.town.store, self.town.crops, str(lead), folder)
        return answer_lead(self.town.store, str(lead), is_same=is_same, reason="coat and gait")[1]


@pytest.fixture(scope="module")
def case(server: embedded.EmbeddedServer, resolved: Town) -> Iterator[Case]:
    with resolved.store.begin() as connection:
        key = connection.scalar(text("SELECT encode(key, 'hex') FROM crop ORDER BY captured_at, key LIMIT 1"))
    yield Case(resolved, Governed(resolved.store, superuser_of(server, resolved.store.settings)), key)


def rows(case: Case, sql: str, **values: Any) -> list[Any]:
    with case.town.store.signed_in() as connection:
        return list(connection.execute(text(sql), values))


def test_a_search_needs_an_authorization_and_stays_within_it(case: Case) -> None:
    store, town = case.town.store, case.town
    for name in (None, "anna", "otto", "emil", "ada"):
        case.governed.as_(name)
        with pytest.raises(NotAllowed, match=r"a search needs"):
            case.searched()
        with pytest.raises(NotAllowed, match=r"a search needs"):
            upload_probe(store, town.crops, _picture(case), "me")
    authorization = case.governed.authorized("within", units=("d1/s1",))
    case.governed.as_("anna", authorization)
    with pytest.raises(NotAllowed, match="does not cover d1"):
        case.searched()
    with pytest.raises(NotAllowed, match="not within that of the authorization"):
        case.searched(unit="d1/s1", from_time=from_us(to_us(asked().from_time) - 1))
    found = case.searched(unit="d1/s1")
    assert (found.meaning, found.covered.from_time, found.covered.to_time) == (LEAD, asked().from_time, asked().to_time)
    assert found.hits and found.summary.startswith("Each hit is a lead, not identification.")
    assert json.loads(found.model_dump_json())["meaning"] == "lead, not identification"
    case.governed.as_("ben", authorization)
    with pytest.raises(NotAllowed, match="ben is approver in this case and cannot be its requester too"):
        case.searched(unit="d1/s1")


def _picture(case: Case) -> bytes:
    return next(path for path in (case.town.files / "pictures").iterdir()).read_bytes()


def test_report_export_and_statements_need_an_authorization_of_the_whole_unit(case: Case, tmp_path: Path) -> None:
    store, crops = case.town.store, case.town.crops
    with store.begin() as connection:
        identity = str(connection.scalar(text("SELECT persistent_id FROM identity_now WHERE unit = 'd1' LIMIT 1")))
    doors: list[Callable[[], object]] = [
        lambda: write_report(store, crops, "d1", tmp_path / "report"),
        lambda: write_assignments(store, "d1", tmp_path / "assignments.jsonl"),
        lambda: confirm(store, identity, operator="me", reason="seen"),
    ]
    narrow = case.governed.authorized("narrow", units=("d1/s1",))
    for name, authorization in ((None, None), ("anna", None), ("otto", None), ("anna", narrow)):
        case.governed.as_(name, authorization)
        for door in doors:
            with pytest.raises(
                (NotAllowed, InputError), match=r"needs an a|needs the role|is not covered|no identity's id"
            ):
                door()
    assert list(tmp_path.iterdir()) == []
    case.governed.as_("anna", case.governed.authorized("whole"))
    for door in doors:
        door()
    with store.owning() as connection:
        rows = [(row.actor, row.action) for row in read_audit(connection, last=4)]
    actions = [Action.REPORT_WRITE, Action.ASSIGNMENTS_EXPORT, Action.ASSIGNMENTS_EXPORT, Action.IDENTITY_CONFIRM]
    assert rows == [("anna", action) for action in actions]


def test_the_audit_says_what_was_searched_and_shown(case: Case) -> None:
    with case.town.store.begin() as connection:
        went_down(connection, "d1/s1/b1/c1", asked().from_time, "stalled")
    authorization, _ = case.lead("audited")
    with case.town.store.owning() as connection:
        start, shown = read_audit(connection, last=2)
    assert (start.action, shown.action, start.actor, shown.actor) == (
        Action.SEARCH_START,
        Action.SEARCH_SHOW,
        "anna",
        "anna",
    )
    assert start.reason == "a child is missed" and shown.unit == "d1"
    for row in (start, shown):
        assert row.details["authorization"] == str(authorization) and row.details["case"]
    details = shown.details
    assert details["covered"]["cameras"] > 1 and details["blind"][0]["camera"] == "d1/s1/b1/c1"
    assert len(details["shown"]) == 3 and details["models"] and details["calibrations"] and details["compared"] > 3


FIGURES = "SELECT f.* FROM lead l CROSS JOIN figures_of_search(l.request_id) AS f WHERE l.id = :lead"


def test_two_who_did_not_ask_confirm_a_lead_without_score_and_without_each_other(case: Case, tmp_path: Path) -> None:
    store = case.town.store
    authorization, lead = case.lead("confirmed")
    assert len(rows(case, "SELECT distance, rank FROM search_hit")) >= 3  # anna asked, and sees what she found
    hit = (
        "SELECT i.persistent_id FROM lead l JOIN search_hit h ON h.request_id = l.request_id AND h.rank = 1 "
        "JOIN identity i ON i.id = h.identity_id WHERE l.id = :lead"
    )
    confirm(store, str(rows(case, hit, lead=lead)[0][0]), operator="anna", reason="one person")
    assert [row.verdict for row in leads(store) if row.id == lead] == ["open"]  # which confirms no lead
    for name, part in (("anna", "requester"), ("ben", "approver")):
        with pytest.raises(NotAllowed, match=f"{name} is {part} in this case and cannot be its verifier too"):
            case.says(name, authorization, lead, True, tmp_path)
    case.governed.as_("cleo", authorization)
    with pytest.raises(InputError, match="look at the pictures first"):
        answer_lead(store, str(lead), is_same=True, reason="sure")
    for sql in ("SELECT * FROM search_hit", "SELECT * FROM search_evidence"):
        assert rows(case, sql) == []
    assert rows(case, "SELECT rank_of_lead(:lead)", lead=lead)[0][0] is None
    assert rows(case, FIGURES, lead=lead) == [(None, None)]
    for column in ("compared", "not_here"):
        with pytest.raises(StoreError, match="permission denied"):
            rows(case, f"SELECT {column} FROM search_request")
    shown = show_lead(store, case.town.crops, str(lead)[:8], tmp_path / "shown")
    assert sorted(path.name for path in (tmp_path / "shown").iterdir()) == [shown.found.name, shown.sought.name]
    assert shown.sought.read_bytes() and shown.found.read_bytes()
    assert case.says("cleo", authorization, lead, True, tmp_path) == "open"
    with pytest.raises(NotAllowed, match="answered once by each person"):
        answer_lead(store, str(lead), is_same=False, reason="after all")
    case.governed.as_("dora", authorization)
    show_lead(store, case.town.crops, str(lead), tmp_path)
    assert case.governed.answers(lead) == [("dora", None)]
    with pytest.raises(NotAllowed, match="is not confirmed by two people"):
        export_evidence(store, case.town.crops, str(lead), tmp_path / "early", reason="court")
    assert case.says("dora", authorization, lead, True, tmp_path) == "confirmed"
    assert {("cleo", True), ("dora", True)} <= set(case.governed.answers(lead))
    assert rows(case, "SELECT rank_of_lead(:lead)", lead=lead)[0][0] == 1
    assert rows(case, FIGURES, lead=lead)[0].compared > 3
    with pytest.raises(NotAllowed, match="the lead is decided"):
        case.says("eve", authorization, lead, False, tmp_path)
    case.governed.as_("cleo", authorization)
    with pytest.raises(NotAllowed, match="cleo is verifier in this case and cannot be its requester too"):
        case.searched()


def test_where_two_differ_a_third_decides(case: Case, tmp_path: Path) -> None:
    authorization, lead = case.lead("differ")
    assert case.says("cleo", authorization, lead, True, tmp_path) == "open"
    assert case.says("dora", authorization, lead, False, tmp_path) == "differ"
    assert [row.verdict for row in leads(case.town.store) if row.id == lead] == ["differ"]
    assert case.governed.answers(lead) == [("dora", False)]
    assert case.says("eve", authorization, lead, False, tmp_path) == "rejected"
    with pytest.raises(NotAllowed, match="is not confirmed by two people"):
        export_evidence(case.town.store, case.town.crops, str(lead), tmp_path / "e", reason="court")


def test_an_auditor_who_reads_others_answers_gives_none(case: Case, tmp_path: Path) -> None:
    authorization, lead = case.lead("an auditor too")
    audits = "INSERT INTO account_role (account_id, role, granted_by) SELECT id, 'auditor', 'ada' FROM account WHERE "
    case.governed.sql(f"{audits} name = 'dora'")
    try:
        with pytest.raises(NotAllowed, match="dora is auditor too, who reads what others answer"):
            case.says("dora", authorization, lead, True, tmp_path)
    finally:
        case.governed.sql(
            "UPDATE account_role SET revoked_at = now() WHERE role = 'auditor' AND granted_by = 'ada' "
            "AND account_id = (SELECT id FROM account WHERE name = 'dora')"
        )
    assert case.says("dora", authorization, lead, True, tmp_path) == "open"


def test_who_searches_again_asks_about_the_same_two_pictures_once(case: Case, tmp_path: Path) -> None:
    authorization, lead = case.lead("asked again")
    store = case.town.store
    there = {row.id for row in leads(store)}
    again = case.searched(top=2, reason="with a filter")
    assert again.hits[0].lead == lead and {hit.lead for hit in again.hits} < there
    more = case.searched(top=5)
    assert [hit.lead for hit in more.hits[:2]] == [hit.lead for hit in again.hits]
    assert {row.id for row in leads(store)} == there | {hit.lead for hit in more.hits}
    assert len(leads(store)) == len({hit.lead for hit in more.hits}) == 5
    (other,) = rows(case, "SELECT encode(key, 'hex') FROM crop WHERE encode(key, 'hex') <> :key ORDER BY captured_at "
                    "DESC, key LIMIT 1", key=case.crop)[0]  # fmt: skip
    for changed in ({"crop_key": other}, {"unit": "d1/s1"}):
        assert not {hit.lead for hit in case.searched(**changed).hits} & {hit.lead for hit in more.hits}
    for name, verdict in (("cleo", "open"), ("dora", "confirmed")):
        assert case.says(name, authorization, lead, True, tmp_path / name) == verdict
    case.governed.as_("anna", authorization)
    assert case.searched().hits[0].lead == lead  # and stays answered
    # A lead that was confirmed shows its own hit, and those of no later search.
    case.governed.as_("eve", authorization)
    assert len(rows(case, "SELECT 1 FROM search_hit")) == 1
    other_person = case.governed.authorized("asked by another")
    case.governed.as_("anna", other_person)
    assert case.searched().hits[0].lead != lead


def test_leads_of_another_case_are_not_seen(case: Case, tmp_path: Path) -> None:
    _, lead = case.lead("mine")
    case.governed.as_("cleo", case.governed.authorized("another"))
    assert leads(case.town.store) == []
    with pytest.raises(InputError, match="no lead's id begins with"):
        show_lead(case.town.store, case.town.crops, str(lead), tmp_path)
    case.governed.as_("cleo")
    with pytest.raises(NotAllowed, match="needs a session under an authorization"):
        leads(case.town.store)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO lead (request_id, rank, unit, crop_id) SELECT id, 9, 'd1', 1 FROM search_request LIMIT 1",
        "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance) "
        "SELECT id, 9, 1, 1, 0 FROM search_request LIMIT 1",
        "UPDATE search_request SET finished_at = now(), compared = 0",
        "UPDATE lead_answer SET is_same = false",
        "DELETE FROM lead_answer",
        "UPDATE lead_answer SET account_id = 3",
        "INSERT INTO lead_answer (lead_id, is_same) SELECT id, true FROM lead LIMIT 1",
        "SELECT rank FROM lead",
    ],
)
def test_sql_of_the_program_forges_no_result_and_no_answer(case: Case, tmp_path: Path, sql: str) -> None:
    if not rows(case, "SELECT 1 FROM lead_answer WHERE is_same"):
        authorization, lead = case.lead(f"forged {sql}")
        case.says("cleo", authorization, lead, True, tmp_path)
    ((under,),) = case.governed.sql(
        "SELECT r.authorization_id::text FROM lead_answer w JOIN lead l ON l.id = w.lead_id "
        "JOIN search_request r ON r.id = l.request_id WHERE w.is_same LIMIT 1"
    )
    case.governed.as_("cleo", UUID(under))
    with pytest.raises(Exception, match=r"permission denied|answered once|under an authorization of its case"):
        rows(case, sql)


def test_a_searchs_id_is_no_session(case: Case) -> None:
    """The id is read by others of the case, by auditors and by Prefect; the key is the answering process's."""
    store, town = case.town.store, case.town
    authorization = case.governed.authorized("ids")
    case.governed.as_("anna", authorization)
    parameters = SearchParameters(unit="d1", reason="a child is missed", operator="me", top=3, crop_key=case.crop)
    request = request_search(store, town.model, parameters)
    case.governed.as_(None)
    with store.signed_in(request) as connection:
        assert connection.scalar(text("SELECT (granted()).name")) == "anna"
    case.governed.as_("cleo", authorization)
    with store.signed_in() as connection:
        connection.execute(text("SELECT set_config('urban_reid.session', '', true)"))
        connection.execute(text("SELECT set_config('urban_reid.request', :id, true)"), {"id": str(request)})
        assert connection.scalar(text("SELECT (granted()).account")) is None
    for sql in ("SELECT answer_key FROM search_request", f"SELECT search_key('{request}')"):
        with pytest.raises(StoreError, match="permission denied"):
            rows(case, sql)


def test_a_lead_shows_a_crop_of_the_person_of_its_hit(case: Case) -> None:
    authorization = case.governed.authorized("another's picture")
    case.governed.as_("anna", authorization)
    parameters = SearchParameters(unit="d1", reason="a child is missed", operator="me", top=3, crop_key=case.crop)
    request = request_search(case.town.store, case.town.model, parameters)
    hit = (
        f"INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance) SELECT '{request}', 1, i.id, "
        f"{case.town.model.id}, 0 FROM identity_now i WHERE i.unit = 'd1' ORDER BY i.id LIMIT 1 RETURNING identity_id"
    )
    stranger = (
        f"INSERT INTO lead (request_id, rank, unit, crop_id) SELECT '{request}', 1, 'd1', min(m.crop_id) "
        "FROM identity i JOIN identity_member m ON m.identity_id = ANY (i.tracklets) WHERE i.unit = 'd1' AND i.id <> {}"
    )
    refused = pytest.raises(NotAllowed, match="a lead shows a crop of the identity that its hit names")
    with refused, case.town.store.signed_in() as connection:
        identity = connection.execute(text(hit)).scalar_one()
        connection.execute(text(stranger.format(identity)))


def test_a_request_of_access_searches_with_its_picture_and_makes_no_leads(case: Case) -> None:
    authorization = case.governed.authorized("request 12", kind="subject")
    case.governed.as_("anna", authorization)
    with pytest.raises(NotAllowed, match="one searches with the picture that came with the request"):
        case.searched()
    probe = upload_probe(case.town.store, case.town.crops, _picture(case), "me")
    found = case.searched(crop_key=None, probe_id=probe)
    assert found.hits and all(hit.lead is None for hit in found.hits) and leads(case.town.store) == []
    again = SearchParameters(unit="d1", reason="request 12", operator="me", top=3, probe_id=probe)
    request = request_search(case.town.store, case.town.model, again)
    forged = (
        "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance) SELECT :request, 1, i.id, :model, "
        "0 FROM identity_now i WHERE i.unit = 'd1' AND i.id IN (SELECT min(id) FROM identity_now WHERE unit = 'd1')"
    )
    lead = (
        "INSERT INTO lead (request_id, rank, unit, crop_id) SELECT h.request_id, 1, 'd1', min(m.crop_id) "
        "FROM search_hit h JOIN identity i ON i.id = h.identity_id JOIN identity_member m "
        "ON m.identity_id = ANY (i.tracklets) WHERE h.request_id = :request GROUP BY 1"
    )
    refused = pytest.raises(NotAllowed, match="gives candidates and no lead")
    with refused, case.town.store.signed_in() as connection:
        connection.execute(text(forged), {"request": request, "model": case.town.model.id})
        connection.execute(text(lead), {"request": request})


def asks(case: Case, name: str, **changed: Any) -> UUID:
    """A search that anna asked for in a new case, which nothing has answered."""
    case.governed.as_("anna", case.governed.authorized(name))
    parameters = {"unit": "d1", "reason": "a child is missed", "operator": "me", "top": 3, "crop_key": case.crop}
    return request_search(case.town.store, case.town.model, SearchParameters.model_validate(parameters | changed))


_FORGED_HIT = (
    "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance) "
    "SELECT :request, :rank, coalesce(max(id), -1), :model, 0 FROM identity_now WHERE {}"
)


@pytest.mark.parametrize(("rank", "which"), [(1, "unit = 'd1/s1'"), (1, "unit = 'd1'"), (4, "unit = 'd1/s2'")])
def test_a_hit_is_of_the_unit_that_was_asked_for_and_within_the_ranks(case: Case, rank: int, which: str) -> None:
    values = {"request": asks(case, f"hits {rank} {which}", unit="d1/s2"), "model": case.town.model.id}
    with case.town.store.signed_in() as connection:
        connection.execute(text(_FORGED_HIT.format("starts_with(unit, 'd1/s2')")), values | {"rank": 3})
    refused = pytest.raises(NotAllowed, match="a hit is an identity of the unit and the period")
    with refused, case.town.store.signed_in() as connection:
        assert connection.scalar(text(f"SELECT count(*) FROM identity_now WHERE {which}"))
        connection.execute(text(_FORGED_HIT.format(which)), values | {"rank": rank})


def test_a_hit_is_of_somebody_who_was_seen_in_the_period(case: Case) -> None:
    request = asks(case, "long ago", from_time=asked().from_time, to_time=from_us(to_us(asked().from_time) + 1))
    refused = pytest.raises(NotAllowed, match="a hit is an identity of the unit and the period")
    with refused, case.town.store.signed_in() as connection:
        values = {"request": request, "rank": 1, "model": case.town.model.id}
        connection.execute(text(_FORGED_HIT.format("unit = 'd1'")), values)


def test_who_uploaded_a_picture_and_when_is_the_databases_word(case: Case) -> None:
    case.governed.as_("anna", case.governed.authorized("uploads"))
    sql = "INSERT INTO probe (picture, uploaded_by, uploaded_at) VALUES (sha256('p'), 'cleo', {}) RETURNING id"
    for late in ("now() + interval '9 years'", "'infinity'", "now() - interval '2 days'"):
        with pytest.raises(NotAllowed, match="a picture is uploaded now"):
            rows(case, sql.format(late))
    ((probe,),) = rows(case, sql.format("now()"))
    assert rows(case, "SELECT uploaded_by FROM probe WHERE id = :id", id=probe) == [("anna",)]
    with case.town.store.owning() as connection:
        (row,) = read_audit(connection, last=1)
    assert (row.action, row.actor, row.details["probe"]) == (Action.PROBE_UPLOAD, "anna", str(probe))


def test_no_row_of_the_audit_says_of_a_search_what_the_database_does_not(case: Case) -> None:
    request = asks(case, "silent")
    with case.town.store.owning() as connection:  # no program wrote it
        (row,) = read_audit(connection, last=1)
    assert (row.action, row.details["request"], row.details["crop_key"]) == ("search.start", str(request), case.crop)
    for action in ("search.start", "search.show", "probe.upload", "search"):
        with pytest.raises(StoreError, match="row-level security"):
            rows(case, "INSERT INTO audit (actor, action) VALUES ('anna', :action)", action=action)


def test_an_answer_decides_nothing_before_its_commit(case: Case, tmp_path: Path) -> None:
    """Else the second of two could see what follows from an answer, the first one's and the score, and take it back."""
    authorization, lead = case.lead("looking ahead")
    case.says("cleo", authorization, lead, True, tmp_path / "cleo")
    case.governed.as_("dora", authorization)
    show_lead(case.town.store, case.town.crops, str(lead), tmp_path / "dora")
    with case.town.store.signed_in() as connection:
        connection.execute(text("UPDATE lead_answer SET is_same = true WHERE lead_id = :lead"), {"lead": lead})
        assert connection.scalar(text("SELECT lead_verdict(:lead)"), {"lead": lead}) == "open"
        seen = "SELECT (SELECT count(*) FROM lead_answer WHERE lead_id = :lead), (SELECT count(*) FROM search_hit)"
        assert tuple(connection.execute(text(seen), {"lead": lead}).one()) == (1, 0)
    assert rows(case, f"SELECT lead_verdict('{lead}')")[0][0] == "confirmed"


def test_evidence_of_a_confirmed_match_verifies_anywhere_and_shows_each_change(case: Case, tmp_path: Path) -> None:
    authorization, lead = case.lead("evidence")
    _keep_context_frame(case)
    for name in ("cleo", "dora"):
        case.says(name, authorization, lead, True, tmp_path / "looks")
    folder = tmp_path / "evidence"
    done = export_evidence(case.town.store, case.town.crops, str(lead), folder, reason="order 12 of the court")
    verdict = verify_evidence(folder, done.key)
    assert (verdict.faults, verdict.files, done.missing) == ([], done.files, ())
    match = json.loads((folder / "match.json").read_text())
    assert match["case"]["approved_by"] == "ben" and [one["person"] for one in match["answers"]] == ["cleo", "dora"]
    assert match["match"]["rank"] == 1 and match["pictures"][0]["crop"] == case.crop
    (frame,) = (one for one in match["pictures"] if one["file"].startswith("pictures/context-000-"))
    _check_that_others_are_not_recognized(case, folder / frame["file"])
    written = case.governed.sql("SELECT path FROM written_file WHERE kind = 'evidence' AND of_row = %s", str(lead))
    assert written == [(str(folder),)]  # so that an erasure reaches it
    assert all(one["sha256"] in one["file"] for one in match["pictures"])
    decisions = [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]
    assert any(one["within"] and one["verdict"] == "join" and one["probability"] is not None for one in decisions)
    rates = json.loads((folder / "error-rates.json").read_text())
    assert {one["purpose"] for one in rates} == {"pair", "search"}
    assert json.loads((folder / "model.json").read_text())["name"]
    custody = [json.loads(line) for line in (folder / "custody.jsonl").read_text().splitlines()]
    steps = [
        Action.CASE_ASK,
        Action.CASE_APPROVE,
        Action.SEARCH_START,
        Action.SEARCH_SHOW,
        Action.LEAD_SHOW,
        Action.LEAD_ANSWER,
    ]
    assert [row["action"] for row in custody if row["district"]] == [*steps, *steps[-2:], Action.EVIDENCE_EXPORT]
    run = [sys.executable, "-I", str(folder / "verify_audit.py"), str(folder), "--key", done.key]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.startswith("verified: ")
    with pytest.raises(InputError, match="is not an empty folder"):
        export_evidence(case.town.store, case.town.crops, str(lead), folder, reason="again")
    for name, fault in _tampered(folder, match["pictures"][0]["file"]):
        assert any(fault in one for one in verify_evidence(folder, done.key).faults), name
        _put_back(folder)
    assert verify_evidence(folder, "0" * 64).faults
    for path in (*(folder / "pictures").iterdir(), *(one for one in folder.iterdir() if one.is_file())):
        path.unlink()
    with pytest.raises(ValueError, match=r"^there is no evidence\.json in .*: it was emptied"):
        verify_evidence(folder)


def _keep_context_frame(case: Case) -> None:
    """The whole frame of the track of the crop that is searched with."""
    with case.town.store.begin() as connection:
        sql = text("SELECT camera, track, captured_at, batch_id FROM crop WHERE key = :key")
        row = connection.execute(sql, {"key": bytes.fromhex(case.crop)}).one()
        data = _picture(case)
        place = place_of_crop(row.camera, row.captured_at)
        picture = context_store(case.town.store.settings).put(place, data)
        height, width = decode(data).shape[:2]
        box = [0.0, 0.0, width // 2, height // 2]
        connection.execute(
            text("UPDATE crop SET box = :box WHERE key = :key"), {"box": box, "key": bytes.fromhex(case.crop)}
        )
        frame = ContextFrame(row.camera, row.track, row.captured_at, picture, 64, 128)
        write_frames(connection, [frame], row.batch_id)


def _check_that_others_are_not_recognized(case: Case, file: Path) -> None:
    """Within the box of the match the frame is as it was taken, outside of it nobody can be recognized."""
    written, taken = decode(file.read_bytes()), decode(_picture(case))
    height, width = taken.shape[0] // 2, taken.shape[1] // 2
    assert np.array_equal(written[:height, :width], taken[:height, :width])
    assert np.array_equal(written[height:, width:], without_faces(taken)[height:, width:])
    assert not np.array_equal(written[height:, width:], taken[height:, width:])


def _tampered(folder: Path, picture: str) -> Iterator[tuple[str, str]]:
    """Changes one thing after another; what the verifier must say."""
    for path in folder.rglob("*"):
        if path.is_file():
            _KEPT[path] = path.read_bytes()
    (folder / picture).write_bytes((folder / picture).read_bytes() + b"\0")
    yield "picture", f"{picture}: it was changed"
    (folder / "match.json").unlink()
    yield "removed", "match.json: it was removed"
    (folder / "more.txt").write_text("more")
    yield "added", "more.txt: it was added"
    (folder / "match.json").write_text((folder / "match.json").read_text().replace("cleo", "anna"))
    yield "who confirmed", "match.json: it was changed"
    for what, old, new in (("row", '"actor": "ben"', '"actor": "eve"'), ("reason", "in proportion", "in haste")):
        (folder / "custody.jsonl").write_text((folder / "custody.jsonl").read_text().replace(old, new))
        yield what, "custody.jsonl: row"
    (folder / EVIDENCE).write_text((folder / EVIDENCE).read_text().replace('"at": "2', '"at": "1'))
    yield "list", f"{EVIDENCE}: it was changed since it was signed"


_KEPT: dict[Path, bytes] = {}


def _put_back(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path not in _KEPT:
            path.unlink()
    for path, data in _KEPT.items():
        path.write_bytes(data)


def test_results_of_urgent_use_that_nobody_approved_are_erased_and_leave_hashes(case: Case, tmp_path: Path) -> None:
    store, governed = case.town.store, case.governed
    governed.as_("ada")
    change_limits(store, Limits(168, 720, urgent=True, standing=False), reason="council's decision 4")
    governed.as_("anna")
    open_case(store, "urgent", reason="a child is missed since noon")
    authorization = ask(store, "urgent", asked(kind="urgent"))
    governed.as_("anna", authorization)
    lead = case.searched().hits[0].lead
    assert lead is not None
    request = rows(case, "SELECT request_id FROM lead WHERE id = :lead", lead=lead)[0][0]
    for name in ("cleo", "dora"):
        governed.as_(name, authorization)
        see_lead(store, str(lead))  # as the console does: no file leaves
        verdict = answer_lead(store, str(lead), is_same=True, reason="coat and gait")[1]
    assert verdict == "confirmed"
    exports: list[Callable[[], object]] = [
        lambda: export_evidence(store, case.town.crops, str(lead), tmp_path / "evidence", reason="order 12"),
        lambda: write_report(store, case.town.crops, "d1", tmp_path / "report"),
        lambda: write_assignments(store, "d1", tmp_path / "assignments.jsonl"),
        lambda: show_picture(store, case.crop, tmp_path / "face.jpg", reason="order 12"),
        lambda: show_lead(store, case.town.crops, str(lead), tmp_path / "lead"),
    ]
    for leave in exports:  # what has left the home could not be erased
        with pytest.raises(NotAllowed, match="needs an approval: what is found in urgent use stays here until then"):
            leave()
    assert list(tmp_path.iterdir()) == []
    counted = [
        f"SELECT count(*) FROM {table} WHERE {column} = %s"
        for table, column in (("search_hit", "request_id"), ("search_evidence", "request_id"), ("lead", "request_id"))
    ]
    before = [governed.sql(sql, str(request))[0][0] for sql in counted]
    assert before[0] == before[2] == 3 and before[1] == 1
    hit = governed.sql(
        "SELECT encode(sha256(convert_to(to_jsonb(h)::text, 'UTF8')), 'hex') FROM search_hit h "
        "WHERE request_id = %s AND rank = 1",
        str(request),
    )
    governed.past_rules(
        "UPDATE case_authorization SET asked_at = now() - interval '49 hours' WHERE id = %s", str(authorization)
    )
    assert lock_overdue(store) == 1
    assert [governed.sql(sql, str(request))[0][0] for sql in counted] == [0, 0, 0]
    assert governed.sql("SELECT not_here, compared FROM search_request WHERE id = %s", str(request)) == [(None, None)]
    with store.owning() as connection:
        row = read_audit(connection, last=1, action="case.lock")[0]
    erased = row.details["erased"]
    assert len(erased) == sum(before) + 2 and {"table": "search_hit", "sha256": hit[0][0]} in erased
    assert row.unit == "d1" and row.details["authorization"] == str(authorization)
    governed.as_("anna", authorization)
    with pytest.raises(NotAllowed):
        case.searched()
    governed.as_("eve")
    with pytest.raises(NotAllowed, match="has ended"):
        approve(store, str(authorization), what_it_opens(store, str(authorization))[1], reason="late")
