"""Embedding a camera's crops: once each, with progress."""

from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text

from pipeline.crops.crop_store import place_of_crop
from pipeline.resolve import embed, embed_camera
from pipeline.resolve.embed import embed_city
from reid_core.decoding import decode
from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore
from schemas.errors import StoreUnavailable
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


def test_pictures_are_decoded_side_by_side(town: Town, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are those of decoding one picture after the other."""
    town.take_in(lines[:80])
    with town.store.begin() as connection:
        camera = connection.scalar(text("SELECT camera FROM crop GROUP BY camera ORDER BY count(*) DESC LIMIT 1"))
    together = Barrier(2, timeout=20)
    met: list[bool] = []

    def decode_beside_another(data: bytes) -> NDArray[np.uint8]:
        with suppress(BrokenBarrierError):  # after the first two
            together.wait()
            met.append(True)
            together.abort()
        return decode(data)

    monkeypatch.setattr(embed, "decode", decode_beside_another)
    assert embed_camera(town.store, town.core, town.crops, town.model, camera) > 2
    assert met
    with town.store.begin() as connection:
        sql = "SELECT captured_at, picture, v::real[] AS v FROM crop JOIN crop_embedding ON crop_id = id"
        rows = connection.execute(text(sql)).all()
    for row in rows:
        data = town.crops.get(place_of_crop(camera, row.captured_at), bytes(row.picture))
        expected = town.core.embed(prepare(decode(data), town.core.card.input)[None])
        assert np.array_equal(np.array(row.v, np.float16), expected[0].astype(np.float16))


def test_whoever_was_suspended_meanwhile_is_told_to_try_again(
    town: Town, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a process that is suspended for long goes to another one, which embeds the same crops."""
    town.take_in(lines[:80])
    with town.store.begin() as connection:
        camera = connection.scalar(text("SELECT camera FROM crop LIMIT 1"))
    original = type(town.core).embed

    def suspended(core: ReIDCore, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = original(core, pictures)
        monkeypatch.undo()
        embed_city(town.store, town.core, town.crops, town.model)
        return found

    monkeypatch.setattr(type(town.core), "embed", suspended)
    with pytest.raises(StoreUnavailable, match=f"{camera} was changed by another process meanwhile: .*duplicate key"):
        embed_camera(town.store, town.core, town.crops, town.model, camera)
    assert embed_camera(town.store, town.core, town.crops, town.model, camera) == 0
