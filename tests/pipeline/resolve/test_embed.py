"""Embedding a camera's crops: once each, with progress."""

import pytest
from sqlalchemy import text

from pipeline.resolve import embed, embed_camera
from tests.helpers.town import Town


def test_progress_tells_each_batch_and_the_whole(town: Town, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "BATCH", 4)
    town.take_in(lines[:80])
    with town.store.begin() as connection:
        camera, crops = connection.execute(
            text("SELECT camera, count(*) FROM crop GROUP BY camera ORDER BY 2 DESC LIMIT 1")
        ).one()
    told: list[tuple[int, int]] = []

    def run() -> int:
        return embed_camera(town.store, town.core, town.crops, town.model, camera, lambda *now: told.append(now))

    assert run() == crops > 8
    assert told == [(min(done, crops), crops) for done in range(4, crops + 4, 4)]
    told.clear()
    assert run() == 0 and told == []
