"""Leads: hits of a search under an authorization. Two people who did not ask confirm one, without score or rank.

They see two pictures: the one that was searched with, and the lead's. Where they differ, a third decides. Statements
about identities (`pipeline.training.confirmations`) and answers to review decisions confirm nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.crops.crop_store import CropStore, Place, place_of_crop, place_of_probe
from pipeline.governance.audit import Action, audit
from pipeline.governance.deciding import actor_of, check_may_export, deciding
from pipeline.governance.doors import grant_of, refused
from pipeline.governance.written import record_written
from pipeline.store import Store
from schemas.disk import make_folders, write_whole
from schemas.errors import InputError

#: The rank is not selected: it is a score.
_LEADS = (
    "SELECT l.id, l.request_id, l.unit, l.made_at, lead_verdict(l.id) AS verdict, r.operator AS asked_by, "
    "r.authorization_id, case_of_request(l.request_id) AS case_id, w.is_same AS own_answer, "
    "(SELECT parts_in_case(case_now(), (granted()).account)) AS own_parts "
    "FROM lead l JOIN search_request r ON r.id = l.request_id "
    "LEFT JOIN lead_answer w ON w.lead_id = l.id AND w.account_id = (SELECT (granted()).account) "
    "WHERE {which} ORDER BY l.id"
)
_PICTURES = text(
    "SELECT c.camera, c.captured_at, c.picture, s.camera AS sought_at, s.captured_at AS sought_time, "
    "coalesce(s.picture, p.picture) AS sought, p.uploaded_at FROM lead l JOIN crop c ON c.id = l.crop_id "
    "JOIN search_request r ON r.id = l.request_id LEFT JOIN crop s ON s.id = r.crop_id "
    "LEFT JOIN probe p ON p.id = r.probe_id JOIN lead_answer w ON w.lead_id = l.id "
    "AND w.account_id = (SELECT (granted()).account) WHERE l.id = :lead"
)
_MAY_VERIFY = text(
    "SELECT NOT parts_in_case(case_now(), (granted()).account) && '{requester,approver}' "
    "AND EXISTS (SELECT FROM lead l WHERE lead_verdict(l.id) NOT IN ('confirmed', 'rejected'))"
)
_SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"BM": ".bmp"}


@dataclass(frozen=True)
class Shown:
    """The files that show a lead: the person sought, and the lead."""

    lead: UUID
    sought: Path
    found: Path


def leads(store: Store) -> Sequence[Row[Any]]:
    """The leads of the case that the session's authorization is of (id, unit, verdict, own_answer ...), in no order.

    verdict: open, differ (a third has to look), confirmed, rejected. own_parts: of the person signed in, in the case:
    requester, approver and verifier, of which nobody is two. Raises NotAllowed.
    """
    with deciding(store, "looking at leads") as connection:
        _check_case(connection)
        return connection.execute(text(_LEADS.format(which="true"))).all()


def check_may_compare(store: Store) -> None:
    """Raises NotAllowed, after an audit row, where figures of two pictures are not for whoever is signed in.

    In a case with leads that are not decided they are not for whoever may still confirm one.
    """
    what = "a comparison of two pictures"
    with store.signed_in() as connection:
        grant = grant_of(connection)
        may_verify = connection.execute(_MAY_VERIFY).scalar_one()
    if may_verify:
        raise refused(store, grant, what, f"{what} has figures, and who may confirm leads of this case sees none", "")


def show_lead(store: Store, crops: CropStore, lead: str, folder: Path) -> Shown:
    """Writes the two pictures into a folder, after the audit row of `see_lead`.

    Raises InputError, NotAllowed, and StoreError where a picture is gone.
    """
    _check_folder(folder)
    check_may_export(store, "writing the pictures of a lead to files")
    seen = see_lead(store, lead)
    found: UUID = seen.id
    sought, picture = (lead_picture(store, crops, found, side) for side in ("sought", "found"))
    with store.begin() as connection:
        record_written(connection, "lead", folder, unit=seen.unit, of_row=found)
    make_folders(folder)
    return Shown(found, _write(folder, "sought", sought), _write(folder, "lead", picture))


def see_lead(store: Store, lead: str) -> Row[Any]:
    """A lead, after an audit row and the note that this person is shown its pictures. Raises InputError, NotAllowed."""
    with deciding(store, "a look at a lead") as connection:
        found = lead_of(connection, lead)
        connection.execute(
            text("INSERT INTO lead_answer (lead_id) VALUES (:lead) ON CONFLICT DO NOTHING"), {"lead": found.id}
        )
        note(store, connection, Action.LEAD_SHOW, found)
    return found


def lead_picture(store: Store, crops: CropStore, lead: UUID, side: str) -> bytes:
    """One of the encoded pictures of a lead that this person has seen: `sought` or `found`.

    Raises InputError for a lead that they have not seen, StoreError where the picture is gone.
    """
    with store.signed_in() as connection:
        row = connection.execute(_PICTURES, {"lead": lead}).one_or_none()
    if row is None:
        with deciding(store, "a look at a lead") as connection:
            _check_case(connection)
        raise InputError(f"look at lead {str(lead)[:8]} first; then there are its pictures")
    if side == "found":
        return crops.get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
    place: Place = place_of_crop(row.sought_at, row.sought_time) if row.sought_at else place_of_probe(row.uploaded_at)
    return crops.get(place, bytes(row.sought))


def answer_lead(store: Store, lead: str, *, is_same: bool, reason: str) -> tuple[UUID, str]:
    """Says whether both pictures show one person; returns the lead's id and its verdict since then.

    Raises InputError if the pictures were not shown to this person before, and NotAllowed.
    """
    with deciding(store, "an answer about a lead") as connection:
        found = lead_of(connection, lead)
        sql = "UPDATE lead_answer SET is_same = :same WHERE lead_id = :lead RETURNING lead_id"
        if not connection.execute(text(sql), {"same": is_same, "lead": found.id}).all():
            raise InputError(
                "look at the pictures first", do=f"`urban-reid leads show {str(found.id)[:8]} --out FOLDER`"
            )
        note(store, connection, Action.LEAD_ANSWER, found, reason=reason, details={"is_same": is_same})
    with store.signed_in() as connection:  # an answer counts from its commit on
        verdict: str = connection.execute(text("SELECT lead_verdict(:lead)"), {"lead": found.id}).scalar_one()
    return found.id, verdict


def lead_of(connection: Connection, lead: str) -> Row[Any]:
    """The lead whose id begins so, of the session's case. Raises InputError."""
    _check_case(connection)
    which = "length(:id) >= 4 AND starts_with(l.id::text, :id)"
    rows = connection.execute(text(_LEADS.format(which=which)), {"id": lead.lower()}).all()
    if len(rows) != 1:
        many = "more than one lead's id begins" if rows else "no lead's id begins"
        raise InputError(f"{many} with {lead[:40]!r} in this case", do="`urban-reid leads list` shows them")
    return rows[0]


def note(
    store: Store,
    connection: Connection,
    action: Action,
    lead: Row[Any],
    *,
    reason: str | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """The audit row of something that is done with a lead."""
    named = {"case": lead.case_id, "authorization": lead.authorization_id, "request": lead.request_id, "lead": lead.id}
    said = {name: str(value) for name, value in named.items()} | (details or {})
    audit(connection, actor_of(store, connection), action, unit=lead.unit, reason=reason, details=said)


def _check_case(connection: Connection) -> None:
    """Raises NotAllowed unless the session is under an authorization."""
    connection.execute(text("SELECT check_in_case()"))


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder; choose another")


def _write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / f"{name}{extension(data)}"
    write_whole(path, data)
    return path


def extension(data: bytes) -> str:
    """The ending of an encoded picture's file."""
    return _SIGNATURES.get(data[:2], ".picture")
