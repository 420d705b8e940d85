"""The key file from the command line."""

import json
from datetime import date

import pytest

from pipeline.encryption.data_keys import DataKeys
from schemas.settings import Settings
from tests.helpers.command_line import Run, error_of


def test_the_key_file_is_named_by_its_id(run_here: Run, settings: Settings) -> None:
    assert json.loads(run_here("keys", "show", "--json").stdout)["id"] is None
    DataKeys(settings).make("d1", date(2026, 1, 1))
    wrapped = (settings.home / "keys" / "d1" / "2026-01-01").read_bytes()
    assert f"id {wrapped[:8].hex()}" in run_here("keys", "show").stdout


@pytest.mark.parametrize("fault", ["missing", "open", "another"])
def test_a_key_file_that_cannot_be_used_is_an_error(run_here: Run, settings: Settings, fault: str) -> None:
    DataKeys(settings).make("d1", date(2026, 1, 1))
    file = settings.home / "key-file"
    if fault == "missing":
        file.unlink()
    elif fault == "open":
        file.chmod(0o644)
    else:
        file.write_text("0" * 64)
    assert str(file) in error_of(run_here("keys", "show"), 1)
