"""Hashes of canonical rows: what enters them, and what does not."""

from datetime import UTC, datetime, timedelta

from schemas.keys import decision_hash, group_hash
from schemas.levels import Level

A, B, C = (bytes([number]) * 32 for number in range(3))
WINDOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_decision_is_told_by_each_part_of_its_row() -> None:
    row = (Level.BUILDING, "d1/s1/b1", WINDOW, "join", A, B)
    others = (Level.STREET, "d1/s1/b2", WINDOW + timedelta(seconds=300), "apart", C, C)
    changed = [decision_hash(*(*row[:at], others[at], *row[at + 1 :])) for at in range(len(row))]  # type: ignore[arg-type]
    assert len({decision_hash(*row), *changed}) == 7


def test_a_group_is_told_by_its_unit_and_its_tracklets_in_any_order() -> None:
    found = group_hash(Level.BUILDING, "d1/s1/b1", [A, B])
    assert found == group_hash(Level.BUILDING, "d1/s1/b1", [B, A])
    assert found not in {
        group_hash(Level.BUILDING, "d1/s1/b1", [A, B, C]),
        group_hash(Level.BUILDING, "d1/s1/b2", [A, B]),
        group_hash(Level.STREET, "d1/s1/b1", [A, B]),
    }
