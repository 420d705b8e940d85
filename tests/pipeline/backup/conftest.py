"""A resolved city in a home and a database of its own, and a backup of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.backup import BackedUp, backup
from tests.helpers.reported import give_context_frames
from tests.helpers.town import Town


@pytest.fixture(scope="module")
def taken(resolved: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, BackedUp]]:
    """The folder of a backup of `resolved`, and what was said of it. Tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("backup") / "new" / "city"
    give_context_frames(resolved.store)
    yield folder, backup(resolved.store.settings, folder)
    with resolved.store.begin() as connection:
        connection.execute(text("DELETE FROM context_frame"))
    shutil.rmtree(resolved.store.settings.home / "context")
