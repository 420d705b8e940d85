#!/usr/bin/env python3
"""Verifies an exported audit or exported evidence, anywhere: Python 3.11 and `cryptography` are all that it needs.

    python verify_audit.py FOLDER [--key FINGERPRINT]

FOLDER is what `urban-reid audit export` or `urban-reid evidence export` wrote. Exit code 0: everything verifies; 1:
each fault is one line.

The chain. Each district has one, and one has the rows of no district. A row's hash is
    SHA-256(hash of the row before it in the district, 32 zero bytes for the first
            || fields(district, position, id, time in microseconds since 1970 UTC, actor, action, unit) || commitment)
    commitment = SHA-256(salt || fields(reason, details))
where fields() writes each text as the length of its UTF-8 (8 bytes, big-endian, signed; -1 for none) and the UTF-8.
A row whose salt, reason and details were erased keeps its commitment, and a later row of action `audit.erase` names it.
A checkpoint is a signed statement of how far each chain had come, kept where the database's owner cannot change it.

Evidence. `evidence.json` states the SHA-256 of every other file of the folder. Its signature (Ed25519) covers its JSON
without the signature, keys sorted and without white space, as that of a checkpoint does. `custody.jsonl` holds the rows
of the audit that are about the match; each line is a row as above and, as "before", the hash before it in its chain.
"""

import argparse
import hashlib
import json
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ROWS = "audit.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
EVIDENCE = "evidence.json"
CUSTODY = "custody.jsonl"
ERASE = "audit.erase"
START = bytes(32)


@dataclass(frozen=True)
class Entry:
    """One row of the audit with its place in the chain; what is missing of either is None."""

    district: str | None
    position: int | None
    hash: bytes | None
    id: int
    at_us: int | None  # None: the row itself is missing
    actor: str | None
    action: str | None
    unit: str | None
    commitment: bytes | None
    salt: bytes | None
    reason: str | None
    details: str | None  # JSON, exactly as it was hashed


@dataclass
class Verdict:
    """What a verification found. `heads`: how far each district's chain goes."""

    faults: list[str] = field(default_factory=list)
    rows: int = 0
    erased: int = 0
    heads: dict[str, int] = field(default_factory=dict)
    checkpoints: int = 0
    files: int = 0  # of exported evidence

    def __str__(self) -> str:
        """One line."""
        of = f"{self.rows} rows, {self.erased} of them erased, "
        of += f"{self.files} files" if self.files else f"{self.checkpoints} checkpoints"
        return f"{len(self.faults)} faults in {of}" if self.faults else f"verified: {of}"


def fields(*texts: str | None) -> bytes:
    """The texts in the form that is hashed."""
    parts = [None if text is None else text.encode() for text in texts]
    return b"".join(struct.pack(">q", -1) if part is None else struct.pack(">q", len(part)) + part for part in parts)


def commitment_of(salt: bytes, reason: str | None, details: str | None) -> bytes:
    return hashlib.sha256(salt + fields(reason, details)).digest()


def hash_of(before: bytes, entry: Entry) -> bytes:
    """The hash of an entry whose row is there."""
    named = fields(
        entry.district, str(entry.position), str(entry.id), str(entry.at_us), entry.actor, entry.action, entry.unit
    )
    return hashlib.sha256(before + named + (entry.commitment or b"")).digest()


def verify(
    entries: Iterable[Entry],
    checkpoints: Iterable[str] = (),
    key: str | None = None,
    starts: dict[str, tuple[int, bytes]] | None = None,
) -> Verdict:
    """Verifies entries in order of district and position, rows outside of any chain last, and checkpoints (lines).

    key: hex SHA-256 of the public key that must have signed, at least once; None: that of the first checkpoint.
    starts: the position and hash before the first entry of a district, for a part of a chain; others begin at their
    first row.
    """
    verdict, seen = Verdict(), _Seen()
    seen.wanted = list(_checkpoints(checkpoints, key, verdict))
    for district, (position, before) in (starts or {}).items():
        seen.ends[district] = (position, before)
        _compare(seen, verdict, district, position, before)
    for entry in entries:
        verdict.rows += entry.at_us is not None
        _check_text(entry, seen, verdict)
        if entry.district is None or entry.position is None:
            verdict.faults.append(f"row {entry.id} is in no chain: it was written past the program")
        else:
            _check_link(entry, seen, verdict)
    for row in sorted(seen.erased - seen.named):
        verdict.faults.append(f"row {row}: its reason and details are gone, and no row of {ERASE} says so")
    verdict.erased = len(seen.erased)
    verdict.heads = {district: position for district, (position, _) in sorted(seen.ends.items())}
    _check_ends(seen, starts or {}, verdict)
    return verdict


@dataclass
class _Seen:
    ends: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    erased: set[int] = field(default_factory=set)
    named: set[int] = field(default_factory=set)  # by rows of ERASE
    wanted: list[tuple[str, dict[str, tuple[int, bytes]]]] = field(default_factory=list)  # checkpoints: time, heads
    at: dict[tuple[str, int], list[tuple[bytes, str]]] | None = None


def _check_text(entry: Entry, seen: _Seen, verdict: Verdict) -> None:
    if entry.at_us is None:
        verdict.faults.append(f"row {entry.id} was removed ({entry.district or 'no district'}, {entry.position})")
        return
    if entry.salt is None:
        seen.erased.add(entry.id)
        if entry.reason is not None or entry.details not in (None, "{}"):
            verdict.faults.append(f"row {entry.id}: its reason or details were changed")
    elif commitment_of(entry.salt, entry.reason, entry.details) != entry.commitment:
        verdict.faults.append(f"row {entry.id}: its reason or details were changed")
    elif entry.action == ERASE and entry.details:
        seen.named.update(json.loads(entry.details).get("rows", ()))


def _check_link(entry: Entry, seen: _Seen, verdict: Verdict) -> None:
    assert entry.district is not None and entry.position is not None and entry.hash is not None
    place = f"{entry.district or 'no district'}, {entry.position}"
    position, before = seen.ends.get(entry.district, (0, START))
    if entry.position != position + 1:
        many = f"{position + 1} to {entry.position - 1}" if entry.position - 1 > position + 1 else f"{position + 1}"
        verdict.faults.append(f"{entry.district or 'no district'}: the chain has nothing at {many}: removed")
    elif entry.at_us is not None and hash_of(before, entry) != entry.hash:
        verdict.faults.append(f"row {entry.id} ({place}): it, its place, or the hash before it was changed")
    if entry.at_us is not None and (entry.unit or "").split("/")[0] != entry.district:
        verdict.faults.append(f"row {entry.id} ({place}) is of {entry.unit or 'no unit'}: it is in the wrong chain")
    seen.ends[entry.district] = (entry.position, entry.hash)
    _compare(seen, verdict, entry.district, entry.position, entry.hash)


def _compare(seen: _Seen, verdict: Verdict, district: str, position: int, found: bytes) -> None:
    """Compares the hash at a place with the checkpoints that state one."""
    if seen.at is None:
        seen.at = {}
        for time, heads in seen.wanted:
            for name, (place, stated) in heads.items():
                seen.at.setdefault((name, place), []).append((stated, time))
    for stated, time in seen.at.get((district, position), ()):
        if stated != found:
            verdict.faults.append(
                f"{district or 'no district'}, {position}: not what the checkpoint of {time} states; "
                "the chain was written anew"
            )


def _check_ends(seen: _Seen, starts: dict[str, tuple[int, bytes]], verdict: Verdict) -> None:
    """A chain that ends before a checkpoint was cut; one that begins after it does not contradict it."""
    furthest: dict[str, tuple[int, str]] = {}
    for time, heads in seen.wanted:
        for district, (position, _) in heads.items():
            furthest[district] = max(furthest.get(district, (0, "")), (position, time))
    for district, (position, time) in furthest.items():
        end = seen.ends.get(district, (0, START))[0]
        if end < position and not (starts and district not in starts and end == 0):
            verdict.faults.append(
                f"{district or 'no district'}: the chain ends at {end} and the checkpoint of {time} states {position}; "
                "its end was cut, or an earlier backup restored"
            )


def payload(checkpoint: dict[str, Any]) -> bytes:
    """What a checkpoint's signature covers."""
    signed = {name: value for name, value in checkpoint.items() if name != "signature"}
    return json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()


def fingerprint(public_key: bytes) -> str:
    """Hex SHA-256 of a public key (32 bytes)."""
    return hashlib.sha256(public_key).hexdigest()


def checked_fingerprint(text: str) -> str:
    """A fingerprint as it was typed, in the spelling of `fingerprint`. Raises ValueError for another text."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"--key {text[:80]!r} is no fingerprint of a key, which has 64 hex digits")
    return text.lower()


def _checkpoints(
    lines: Iterable[str], key: str | None, verdict: Verdict
) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """(time, heads) of each checkpoint whose signature verifies; faults of the others and of their order."""
    before, number, wanted = "", 0, key
    for line in lines:
        number += 1
        try:
            checkpoint = json.loads(line)
            public = bytes.fromhex(checkpoint["key"])
            time = str(checkpoint["at"])
            heads = {name: (int(at), bytes.fromhex(found)) for name, (at, found) in checkpoint["heads"].items()}
            Ed25519PublicKey.from_public_bytes(public).verify(
                bytes.fromhex(checkpoint["signature"]), payload(checkpoint)
            )
        except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature):
            verdict.faults.append(f"checkpoint {number}: it was changed, or is none")
            continue
        key = key or fingerprint(public)
        if fingerprint(public) != key:
            verdict.faults.append(f"checkpoint {number}: signed with another key, {fingerprint(public)}")
            continue
        if checkpoint["before"] != before:
            verdict.faults.append(f"checkpoint {number}: the one before it was removed or moved")
        before = hashlib.sha256(line.strip().encode()).hexdigest()
        verdict.checkpoints += 1
        yield time, heads
    if wanted is not None and number == 0:
        verdict.faults.append(
            f"no checkpoint is there, so none that {wanted} signed: they were removed or lie elsewhere"
        )


def entry_of(line: str) -> Entry:
    """An entry from its line of an export. Raises ValueError, KeyError, TypeError."""
    row = json.loads(line)
    for name in ("hash", "commitment", "salt"):
        row[name] = None if row[name] is None else bytes.fromhex(row[name])
    return Entry(**{name: row[name] for name in Entry.__dataclass_fields__})


def verify_export(folder: Path, key: str | None = None) -> Verdict:
    """Verifies the files of an export; key: as for `verify`. Raises OSError, ValueError where one of them is none."""
    key = None if key is None else checked_fingerprint(key)
    checkpoints = folder / CHECKPOINTS
    if not (folder / ROWS).is_file():
        raise ValueError(f"there is neither {ROWS} nor {EVIDENCE} in {folder}: it was emptied, or is another folder")
    with (folder / ROWS).open(encoding="utf-8") as lines:
        head = json.loads(next(lines, "null"))
        if not isinstance(head, dict) or head.get("format") != "urban-reid audit 1":
            raise ValueError(f"{folder / ROWS} is no export of urban-reid's audit")
        starts = {name: (at, bytes.fromhex(found)) for name, (at, found) in head["starts"].items()}
        try:
            signed = checkpoints.read_text(encoding="utf-8").splitlines() if checkpoints.exists() else []
            found = verify((entry_of(line) for line in lines), signed, key, starts)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / ROWS}: a line is damaged: {error}") from None
    ends = {name: tuple(at) for name, at in head["ends"].items()}
    for district, (position, _) in ends.items():
        if found.heads.get(district, 0) != position:
            found.faults.append(f"{district or 'no district'}: the export states rows up to {position}")
    return found


def verify_evidence(folder: Path, key: str | None = None) -> Verdict:
    """Verifies a folder of evidence. Raises OSError, ValueError where it is none.

    key: hex SHA-256 of the public key that must have signed it; None: of the one that it names.
    """
    if not (folder / EVIDENCE).is_file():
        raise ValueError(f"there is no {EVIDENCE} in {folder}: it was emptied, or is another folder")
    found = json.loads((folder / EVIDENCE).read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("format") != "urban-reid evidence 1":
        raise ValueError(f"{folder / EVIDENCE} is no evidence of urban-reid's")
    verdict = Verdict()
    try:
        public, stated = bytes.fromhex(found["key"]), dict(found["files"])
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(found["signature"]), payload(found))
    except (ValueError, KeyError, TypeError, InvalidSignature):
        verdict.faults.append(f"{EVIDENCE}: it was changed since it was signed")
        return verdict
    if key is not None and fingerprint(public) != key:
        verdict.faults.append(f"{EVIDENCE}: signed with another key, {fingerprint(public)}")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {EVIDENCE}
    for name in sorted(there | set(stated)):
        if name not in there:
            verdict.faults.append(f"{name}: it was removed")
        elif name not in stated:
            verdict.faults.append(f"{name}: it was added")
        elif hashlib.sha256((folder / name).read_bytes()).hexdigest() != stated[name]:
            verdict.faults.append(f"{name}: it was changed")
    verdict.files = len(stated)
    custody = folder / CUSTODY
    for line in custody.read_text(encoding="utf-8").splitlines() if custody.exists() else ():
        _check_custody(line, verdict)
    return verdict


def _check_custody(line: str, verdict: Verdict) -> None:
    """A row of the audit on its own: its text, and its hash over the one that is said to be before it."""
    try:
        entry, before = entry_of(line), bytes.fromhex(json.loads(line)["before"])
    except (ValueError, KeyError, TypeError) as error:
        verdict.faults.append(f"{CUSTODY}: a line is damaged: {error}")
        return
    verdict.rows += 1
    if entry.salt is None:
        verdict.erased += 1
    elif commitment_of(entry.salt, entry.reason, entry.details) != entry.commitment:
        verdict.faults.append(f"{CUSTODY}: row {entry.id}: its reason or details were changed")
    if hash_of(before, entry) != entry.hash:
        verdict.faults.append(f"{CUSTODY}: row {entry.id}: it, its place, or the hash before it was changed")


def main() -> int:
    parser = argparse.ArgumentParser(description="Verifies an exported audit or exported evidence of urban-reid.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", help="hex SHA-256 of the public key that must have signed")
    given = parser.parse_args()
    try:
        is_evidence = (given.folder / EVIDENCE).exists()
        verdict = (verify_evidence if is_evidence else verify_export)(given.folder, given.key)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for fault in verdict.faults:
        sys.stdout.write(f"{fault}\n")
    sys.stdout.write(f"{verdict}\n")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
