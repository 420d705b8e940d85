"""Evidence: everything that a confirmed match rests on, in one folder that is signed and verifies anywhere."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, Row, text

from pipeline.crops.context_frames import context_store, frames_of
from pipeline.crops.crop_store import CropStore, Place, place_of_crop, place_of_probe
from pipeline.crops.privacy import shows_people, without_faces
from pipeline.crops.quality import as_png, decode
from pipeline.governance import verify_audit
from pipeline.governance.audit import Action
from pipeline.governance.audit_chain import own_key
from pipeline.governance.deciding import deciding
from pipeline.governance.leads import extension, lead_of, note
from pipeline.governance.verify_audit import CUSTODY, EVIDENCE, fingerprint, payload
from pipeline.governance.written import record_written
from pipeline.store import Store
from schemas.disk import make_folders, write_whole
from schemas.errors import InputError, StoreError

_FORMAT = "urban-reid evidence 1"
_MEANING = "a match that two people confirmed; no proof of identity"
#: Most decisions and most pictures that are written.
_DECISIONS, _PICTURES = 2_000, 200

_MATCH = text(
    "SELECT h.rank, h.identity_id, i.persistent_id, i.unit, i.first_seen, i.last_seen, i.timed, i.tracklets, "
    "h.distance, h.log_ratio, h.log_look, h.probability, h.model_id, m.name AS model, "
    "encode(m.digest, 'hex') AS model_digest, m.card, r.requested_at, r.finished_at, r.operator, r.reason, "
    "r.unit AS searched, r.from_time, r.to_time, f.compared, f.not_here, r.crop_id, r.probe_id, l.crop_id AS lead_crop "
    "FROM lead l JOIN search_hit h ON h.request_id = l.request_id AND h.rank = rank_of_lead(l.id) "
    "JOIN search_request r ON r.id = l.request_id CROSS JOIN figures_of_search(r.id) AS f "
    "JOIN identity i ON i.id = h.identity_id JOIN model m ON m.id = h.model_id WHERE l.id = :lead"
)
_CASE = text(
    "SELECT c.id AS case, c.name, a.id AS authorization, a.kind::text AS kind, a.purpose, a.legal_basis, a.sought, "
    "a.units, a.from_time, a.to_time, a.expires_at, account_name(a.asked_by) AS asked_by, a.asked_at, "
    "account_name(a.approved_by) AS approved_by, a.approved_at, a.opens "
    "FROM case_authorization a JOIN case_file c ON c.id = a.case_id WHERE a.id = :authorization"
)
_ANSWERS = text(
    "SELECT account_name(account_id) AS person, shown_at, is_same, answered_at FROM lead_answer "
    "WHERE lead_id = :lead AND is_same IS NOT NULL ORDER BY answered_at"
)
# Of all versions of the identity and of everything below them: why they were joined, kept apart, or sent to a person.
_WHY = text(
    "WITH RECURSIVE below AS (SELECT i.id, i.key FROM identity i "
    "  WHERE i.persistent_id = :persistent AND i.unit = :unit "
    "  UNION SELECT c.id, c.key FROM below b JOIN identity_member m ON m.identity_id = b.id "
    "  JOIN identity c ON c.id = m.child_id), "
    "keys AS (SELECT DISTINCT key FROM below), "
    "found AS (SELECT d.id FROM keys k JOIN match_decision d ON d.left_key = k.key "
    "  UNION SELECT d.id FROM keys k JOIN match_decision d ON d.right_key = k.key) "
    "SELECT r.unit, r.window_start, d.verdict::text AS verdict, encode(d.left_key, 'hex') AS left, "
    "encode(d.right_key, 'hex') AS right, "
    "d.left_key IN (SELECT key FROM keys) AND d.right_key IN (SELECT key FROM keys) AS within, "
    "d.distance, d.appearance_log_odds, d.transit_log_odds, d.probability, d.operating_point, d.gap_s, "
    "d.left_at, d.right_at, d.runner_up_distance, r.calibration_id, r.superseded_at IS NOT NULL AS superseded "
    "FROM found JOIN match_decision d ON d.id = found.id JOIN run r ON r.id = d.run_id "
    "ORDER BY r.superseded_at IS NOT NULL, r.window_start, r.unit, d.id LIMIT :most"
)
_CALIBRATIONS = text(
    "SELECT c.id, c.level::text AS level, c.purpose, c.created_at, c.parameters FROM calibration c "
    "WHERE c.id = ANY(:ids) OR c.id = calibration_of_lead(:lead) ORDER BY c.id"
)
_RATES = ("fitted_on", "pairs", "positives", "searches", "false_merges", "reliability", "evidence", "learned")
_CROPS = text(
    "SELECT encode(c.key, 'hex') AS crop, c.camera, c.captured_at, c.timed, c.picture, c.width_px, c.height_px, "
    "c.quality, c.source, c.ingested_at FROM crop c JOIN identity_member m ON m.crop_id = c.id "
    "WHERE m.identity_id = ANY(:tracklets) AND c.withdrawn_at IS NULL AND c.captured_at >= :from_time "
    "AND c.captured_at < :to_time ORDER BY c.id = :lead DESC, c.quality DESC, c.key LIMIT :most"
)
_BOX = text("SELECT box FROM crop WHERE camera = :camera AND track = :track AND captured_at = :at LIMIT 1")
_SOUGHT = text(
    "SELECT s.camera, s.captured_at, coalesce(s.picture, p.picture) AS picture, p.uploaded_at, p.uploaded_by, "
    "encode(s.key, 'hex') AS crop FROM search_request r LEFT JOIN crop s ON s.id = r.crop_id "
    "LEFT JOIN probe p ON p.id = r.probe_id WHERE r.id = :request"
)

Change = Callable[[bytes], bytes]
#: Name, store, place, SHA-256, what is told of it, and what is made of it before it is written.
_Wanted = tuple[str, CropStore, Place, bytes, dict[str, Any], Change | None]


@dataclass(frozen=True)
class Exported:
    """What was written. `key`: the fingerprint of the key that signed."""

    lead: UUID
    files: int
    missing: tuple[str, ...]  # pictures that are gone
    key: str


def export_evidence(store: Store, crops: CropStore, match: str, folder: Path, *, reason: str) -> Exported:
    """Writes the evidence of a confirmed lead into a new or empty folder, after its audit row.

    Raises InputError, and NotAllowed unless two people confirmed it and the session is under an authorization of its
    case.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; choose a new one")
    with deciding(store, "evidence") as connection:
        found = lead_of(connection, match)
        connection.execute(text("SELECT count(*) FROM custody(:lead)"), {"lead": found.id})  # refuses what is no match
        note(store, connection, Action.EVIDENCE_EXPORT, found, reason=reason)
    with store.begin() as connection:
        record_written(connection, "evidence", folder, unit=found.unit, of_row=found.id)
    make_folders(folder / "pictures")
    with deciding(store, "evidence") as connection:
        missing = _write(_Folder(folder), store, crops, connection, found)
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    key = own_key(store.settings)
    public = key.public_key().public_bytes_raw()
    stated: dict[str, Any] = {
        "format": _FORMAT,
        "match": str(found.id),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
        "key": public.hex(),
    }
    signed = stated | {"signature": key.sign(payload(stated)).hex()}
    write_whole(folder / EVIDENCE, json.dumps(signed, indent=1, sort_keys=True) + "\n")
    return Exported(found.id, len(files), tuple(missing), fingerprint(public))


@dataclass(frozen=True)
class _Folder:
    path: Path

    def json(self, name: str, content: Any) -> None:
        write_whole(self.path / name, json.dumps(content, indent=1, default=_plain, ensure_ascii=False) + "\n")

    def lines(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        lines = (json.dumps(row, default=_plain, ensure_ascii=False) + "\n" for row in rows)
        write_whole(self.path / name, "".join(lines))

    def picture(self, name: str, store: CropStore, place: Place, sha256: bytes, change: Change | None) -> str | None:
        """The file's name in the folder, with that of the stored picture; None where that is gone.

        change: what is made of the encoded picture first.
        """
        try:
            data = store.get(place, sha256)
        except StoreError:
            return None
        data = data if change is None else change(data)
        file = f"pictures/{name}-{sha256.hex()}{extension(data)}"
        write_whole(self.path / file, data)
        return file


def _write(folder: _Folder, store: Store, crops: CropStore, connection: Connection, found: Row[Any]) -> list[str]:
    """Writes everything but the signed list; returns which pictures are missing."""
    match = connection.execute(_MATCH, {"lead": found.id}).one()
    case = connection.execute(_CASE, {"authorization": found.authorization_id}).one()
    why = [dict(row._mapping) for row in connection.execute(_WHY, _of_identity(match) | {"most": _DECISIONS})]
    ids = sorted({row["calibration_id"] for row in why} - {None})
    rates = [
        {"id": row.id, "level": row.level, "purpose": row.purpose, "made_at": row.created_at}
        | {name: row.parameters[name] for name in _RATES if row.parameters.get(name) is not None}
        for row in connection.execute(_CALIBRATIONS, {"ids": ids, "lead": found.id})
    ]
    pictures, missing = _pictures(folder, store, crops, connection, found, match, case)
    answers = [dict(row._mapping) for row in connection.execute(_ANSWERS, {"lead": found.id})]
    skipped = ("card", "tracklets", "identity_id", "crop_id", "probe_id", "lead_crop", "model_id")
    told = {name: value for name, value in match._mapping.items() if name not in skipped}
    folder.json(
        "match.json",
        {
            "meaning": _MEANING,
            "lead": found.id,
            "case": dict(case._mapping),
            "match": told,
            "answers": answers,
            "pictures": pictures,
            "missing": missing,
        },
    )
    folder.lines("decisions.jsonl", why)
    folder.json("model.json", match.card)
    folder.json("error-rates.json", rates)
    folder.lines(
        CUSTODY, [_line(row) for row in connection.execute(text("SELECT * FROM custody(:l)"), {"l": found.id})]
    )
    write_whole(folder.path / "evidence.md", "\n".join(_page(match, case, answers, rates, why, missing)) + "\n")
    shutil.copyfile(verify_audit.__file__, folder.path / Path(verify_audit.__file__).name)
    return missing


def _of_identity(match: Row[Any]) -> dict[str, Any]:
    return {"persistent": match.persistent_id, "unit": match.unit}


def _pictures(
    folder: _Folder,
    store: Store,
    crops: CropStore,
    connection: Connection,
    found: Row[Any],
    match: Row[Any],
    case: Row[Any],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Writes the picture searched with, the identity's crops within the authorization's period, and context frames."""
    sought = connection.execute(_SOUGHT, {"request": found.request_id}).one()
    place = place_of_crop(sought.camera, sought.captured_at) if sought.camera else place_of_probe(sought.uploaded_at)
    told = {name: value for name, value in sought._mapping.items() if name != "picture"}
    wanted: list[_Wanted] = [("sought", crops, place, bytes(sought.picture), told, None)]
    period = {"from_time": case.from_time, "to_time": case.to_time}
    of_identity = {"tracklets": list(match.tracklets), "lead": match.lead_crop, "most": _PICTURES} | period
    for number, row in enumerate(connection.execute(_CROPS, of_identity).all()):
        place, told = place_of_crop(row.camera, row.captured_at), dict(row._mapping)
        name = "lead" if number == 0 else f"crop-{number:03}"
        wanted.append((name, crops, place, bytes(told.pop("picture")), told, None))
    contexts, hides = context_store(store.settings), shows_people(connection)
    for number, frame in enumerate(frames_of(connection, list(match.tracklets)).values()):
        if case.from_time <= frame.captured_at < case.to_time:
            place, told = place_of_crop(frame.camera, frame.captured_at), dict(vars(frame))
            box = connection.scalar(_BOX, {"camera": frame.camera, "track": frame.track, "at": frame.captured_at})
            change: Change | None = partial(_without_others, box=box) if hides else None
            wanted.append((f"context-{number:03}", contexts, place, told.pop("picture"), told, change))
    written, missing = [], []
    for name, where, place, sha256, told, change in wanted:
        file = folder.picture(name, where, place, sha256, change)
        if file is None:
            missing.append(name)
        else:
            written.append({"file": file, "sha256": sha256.hex(), **told})
    return written, missing


def _without_others(data: bytes, box: Sequence[float] | None) -> bytes:
    """A frame in which nobody can be recognized outside of a box (x, y, width, height, pixels), as PNG."""
    frame = decode(data)
    shown = without_faces(frame)
    if box is not None:
        left, top = (max(0, round(value)) for value in box[:2])
        part = np.s_[top : top + round(box[3]), left : left + round(box[2])]
        shown[part] = frame[part]
    return as_png(shown)


def _line(row: Row[Any]) -> dict[str, Any]:
    return {
        name: value.hex() if isinstance(value, bytes | memoryview) else value for name, value in row._mapping.items()
    }


def _page(
    match: Row[Any],
    case: Row[Any],
    answers: Sequence[dict[str, Any]],
    rates: Sequence[dict[str, Any]],
    why: Sequence[dict[str, Any]],
    missing: Sequence[str],
) -> Iterator[str]:
    """What a person reads first."""
    yield from ("# Evidence of a match", "", f"This is {_MEANING}. All times are UTC.", "")
    yield from (f"- case {case.name}: {case.purpose}; {case.legal_basis}; sought: {case.sought}",)
    yield f"- authorized for {', '.join(case.units)}, {case.from_time:%Y-%m-%d %H:%M} to {case.to_time:%Y-%m-%d %H:%M}"
    yield f"- asked for by {case.asked_by}, approved by {case.approved_by or 'nobody'}; searched by {match.operator}"
    yield f"- identity {match.persistent_id} of {match.unit}, found by {match.model} ({match.model_digest[:16]})"
    stated = "none was stated" if match.probability is None else f"{match.probability:.2f}"
    yield f"- hit {match.rank} of {match.compared} identities compared"
    yield f"- distance {match.distance:.3f}, probability {stated}"
    yield from (f"- {one['person']}: {'same' if one['is_same'] else 'another'} person" for one in answers)
    yield f"- {len(why)} decisions made or concern this identity (`decisions.jsonl`)"
    for one in rates:
        wrong = one.get("false_merges")
        share = f"{wrong['rate']:.1%} of its joins were wrong" if wrong else "its error rate was not measured"
        if one["purpose"] == "search":
            share = f"learned from {one.get('searches', 0)} searches"
        yield f"- {one['purpose']} calibration of the {one['level']} on {one['fitted_on']}: {share}"
    if missing:
        yield f"- pictures that are gone: {', '.join(missing)}"
    yield from ("", "`python verify_audit.py .` in this folder verifies all of it; its first lines say how.")


def _plain(value: Any) -> Any:
    return (
        value.hex()
        if isinstance(value, bytes | memoryview)
        else value.isoformat()
        if isinstance(value, datetime)
        else str(value)
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
