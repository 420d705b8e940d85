"""Pictures that are missing or damaged do not stop a resolve, and take part again when they are back."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.city.assignments import assignments
from pipeline.city.status import status
from schemas.errors import StoreError
from tests.helpers.town import Town


def test_a_picture_that_is_gone_is_left_out_and_comes_back(
    town: Town, fresh_town: Callable[..., Town], lines: list[str], tmp_path: Path
) -> None:
    whole = fresh_town()
    whole.take_in(lines[:80])
    whole.resolve()
    town.take_in(lines[:80])
    missing, damaged = town.pictures()[10], town.pictures()[20]
    shutil.move(missing, tmp_path / "missing")
    shutil.move(damaged, tmp_path / "damaged")
    damaged.write_bytes(b"something else")
    assert town.resolve() > 0
    found = status(town.store)
    assert (found["gone"], found["pending"], found["crops"]) == (2, 0, 80)
    assert sum(row["district"] is None for row in assignments(town.store, "d1")) == 2
    with town.store.signed_in() as connection:
        rows = connection.execute(text("SELECT unit, reason, details FROM audit WHERE action = 'crop.lose'")).all()
    assert sum(row.details["crops"] for row in rows) == 2
    assert all(row.unit.count("/") == 3 and str(town.crops.root) in row.reason for row in rows)

    assert town.resolve() == 0
    shutil.move(tmp_path / "missing", missing)
    shutil.move(tmp_path / "damaged", damaged)
    assert town.resolve() > 0
    assert status(town.store)["gone"] == 0 and status(town.store)["digest"] == status(whole.store)["digest"]


def test_a_crop_store_that_is_away_loses_nothing(town: Town, lines: list[str], tmp_path: Path) -> None:
    town.take_in(lines[:40])
    shutil.move(town.crops.root, tmp_path / "away")
    with pytest.raises(StoreError, match="is missing or empty although there are crops; is it on a disk that is not"):
        town.resolve()
    assert status(town.store)["gone"] == 0
    shutil.move(tmp_path / "away", town.crops.root)
    assert town.resolve() > 0
