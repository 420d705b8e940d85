"""The page and the counts of a period for a regulator."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore, Place
from pipeline.governance.audit import Action, audit, read_audit
from pipeline.governance.audit_export import export
from pipeline.governance.audit_report import Searches, report
from pipeline.governance.keys import renew_key
from pipeline.store import Store, embedded
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of

SOUGHT = "Erika Mustermann, missing since Monday"


def fill(store: Store) -> None:
    asked = {"case": "c", "authorization": "a1", "purpose": "missing person"}
    with store.begin() as connection:
        audit(connection, "anna", Action.CASE_ASK, unit="d1", reason=SOUGHT, details=asked)
        for actor, unit in (("anna", "d1"), ("anna", "d1"), ("ben", "d1"), ("ben", "d1/s2")):
            details = {"request": "7", "authorization": "a1"}
            audit(connection, actor, Action.SEARCH_START, unit=unit, reason=SOUGHT, details=details)
        audit(connection, "anna", Action.SEARCH_START, unit="d1", reason=SOUGHT, details={"request": "8"})
        audit(connection, "eve", Action.ACCESS_REFUSE, unit="d2", details={"what": "a report | of d2", "missing": "x"})
        audit(connection, "cleo", Action.REPORT_WRITE, unit="d1", reason=SOUGHT, details={"digest": "0"})


def test_a_report_says_who_searched_for_what_purpose_and_never_for_whom(store: Store) -> None:
    fill(store)
    now = datetime.now(UTC)
    found = report(store, now - timedelta(hours=1), now + timedelta(hours=1))
    year = now.year
    assert found.searches == (
        Searches(year, "", "d1", 1, 1),
        Searches(year, "missing person", "d1", 3, 2),
        Searches(year, "missing person", "d1/s2", 1, 1),
    )
    assert [(one.what, one.many) for one in found.refusals] == [("a report | of d2", 1)]
    assert [(one.actor, one.action, one.unit) for one in found.left] == [("cleo", "report.write", "d1")]
    page, counts = found.page(), found.counts()
    assert f"| {year} | missing person | d1 | 3 | 2 |" in page and "a report \\| of d2" in page
    assert counts[str(year)]["searches"] == 5 and counts[str(year)]["refusals"] == 1
    assert counts[str(year)]["searches_by_purpose"] == {"open home": 1, "missing person": 4}
    for said in (page, json.dumps(found.as_json()), json.dumps(counts)):
        assert "Mustermann" not in said
    assert not any(name in json.dumps(counts) for name in ("anna", "ben", "d1"))


def test_whatever_left_the_system_is_listed(store: Store, tmp_path: Path) -> None:
    with store.begin() as connection:
        for action in (Action.ASSIGNMENTS_EXPORT, Action.LEAD_SHOW, Action.PICTURE_SHOW):
            audit(connection, "anna", action, unit="d1", reason="case 12", details={})
    assert [one.action for one in report(store, None, None).left] == ["assignments.export", "lead.show", "picture.show"]
    export(store, tmp_path / "export", operator="cleo", reason="yearly")
    page = (tmp_path / "export" / "audit.md").read_text()
    assert all(f"| anna | {action} | d1 | case 12 |" in page for action in ("assignments.export", "lead.show"))


def test_a_look_is_a_row_that_is_there_before_anything_is_read(store: Store) -> None:
    fill(store)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    found = report(store, start, None)
    assert [(one.action, one.many) for one in found.actions if one.action == "audit.report"] == [("audit.report", 1)]
    with store.signed_in() as connection:
        (row,) = read_audit(connection, action="audit.report")
        assert row.details == {"from": start.isoformat()}
        at = connection.scalar(text("SELECT max(at) FROM audit"))
    assert at is not None
    nothing = report(store, at + timedelta(hours=1), at + timedelta(hours=2))
    assert not nothing.searches and not nothing.refusals and not nothing.left and nothing.counts() == {}
    assert "None." in nothing.page()
    before = report(store, None, at + timedelta(microseconds=1))
    assert sum(one.many for one in before.actions) == 9  # not the looks after it


def test_whoever_is_signed_in_is_who_looked(
    store: Store, server: embedded.EmbeddedServer, city_files: Path, tmp_path: Path
) -> None:
    store_city(store, read_city_file(city_files / "city.yaml"))
    governed = Governed(store, superuser_of(server, store.settings))
    CropStore(store.settings).put(Place("d1", datetime(2026, 1, 1, tzinfo=UTC).date()), b"picture")
    governed.as_("otto")
    report(store, None, None)
    export(store, tmp_path / "export", operator="somebody else", reason="yearly")
    governed.as_("emil")
    renew_key(store, operator="somebody else", reason="yearly")
    rows = dict(governed.sql("SELECT action, actor FROM audit"))
    assert (rows["audit.report"], rows["audit.export"], rows["key.renew"]) == ("otto", "otto", "emil")
