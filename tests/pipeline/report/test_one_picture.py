"""Reports show no face of a person; one picture with its face is asked for, and audited first."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy import text

from pipeline.crops.crop_store import place_of_crop
from pipeline.crops.privacy import HEAD_SHARE
from pipeline.crops.quality import decode
from pipeline.governance.audit import read_audit
from pipeline.report.one_picture import show_picture
from pipeline.report.thumbnails import Picture, write_thumbnails
from pipeline.store import embedded
from schemas.errors import InputError, NotAllowed
from tests.helpers.governed import Governed
from tests.helpers.homes import become_live, stay_open, superuser_of
from tests.helpers.town import Town


@pytest.fixture
def taken(fresh_town: Callable[..., Town], lines: list[str]) -> Town:
    town = fresh_town()
    town.take_in(lines[:3])
    return town


def first(town: Town) -> tuple[str, Picture, bytes]:
    """Key, row and encoded picture of a crop."""
    with town.store.begin() as connection:
        row = connection.execute(text("SELECT * FROM crop ORDER BY id LIMIT 1")).one()
    data = town.crops.get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
    return bytes(row.key).hex(), Picture(row.camera, bytes(row.picture), row.width_px, row.height_px,
                                         row.captured_at, row.quality), data  # fmt: skip


def test_thumbnails_of_people_have_no_face(taken: Town, tmp_path: Path) -> None:
    _, picture, data = first(taken)
    assert not write_thumbnails([(taken.crops, picture)], tmp_path)
    shown = decode((tmp_path / picture.name).read_bytes())
    scaled = cv2.resize(decode(data), shown.shape[1::-1], interpolation=cv2.INTER_AREA)
    differs = np.abs(shown.astype(int) - scaled.astype(int)).mean(axis=(1, 2))
    end = round(HEAD_SHARE * len(shown))
    assert differs[: end - 2].mean() > 3 * differs[end + 2 :].mean()


def test_one_picture_is_shown_with_its_face_after_a_row_of_the_audit(
    taken: Town, server: embedded.EmbeddedServer, tmp_path: Path
) -> None:
    stay_open(superuser_of(server, taken.store.settings))
    key, picture, data = first(taken)
    out = tmp_path / "face.jpg"
    assert show_picture(taken.store, key, out, reason="case 12").camera == picture.camera
    assert out.read_bytes() == data and out.stat().st_mode & 0o777 == 0o600
    assert hashlib.sha256(data).digest() == picture.sha256
    with taken.store.owning() as connection:
        (row,) = read_audit(connection, action="picture.show")
    assert (row.unit, row.reason, row.details) == (picture.camera, "case 12", {"crop": key, "of": "crop"})
    for of, said in (("crop", "is there already"), ("frame", "has no context frame")):
        with pytest.raises(InputError, match=said):
            show_picture(taken.store, key, out if of == "crop" else tmp_path / "f.jpg", reason="x", of=of)  # type: ignore[arg-type]
    for wrong in ("00", "no key", "é"):
        with pytest.raises(InputError, match="no crop has the key"):
            show_picture(taken.store, wrong, tmp_path / "no.jpg", reason="x")


def test_without_an_authorization_no_picture_of_a_person_is_shown(
    taken: Town, server: embedded.EmbeddedServer, tmp_path: Path
) -> None:
    become_live(superuser_of(server, taken.store.settings))
    key, *_ = first(taken)
    with pytest.raises(NotAllowed):
        show_picture(taken.store, key, tmp_path / "face.jpg", reason="case 12")
    assert not (tmp_path / "face.jpg").exists()
    with taken.store.owning() as connection:
        assert len(read_audit(connection, action="access.refuse")) == 1
        assert not read_audit(connection, action="picture.show")


def test_an_authorization_of_another_period_shows_none(
    taken: Town, server: embedded.EmbeddedServer, tmp_path: Path
) -> None:
    governed = Governed(taken.store, superuser_of(server, taken.store.settings))
    key, picture, _ = first(taken)
    at, hour = picture.taken, timedelta(hours=1)
    for case, start, covers in (("case 17", at - hour, True), ("case 18", at + hour, False)):
        authorization = governed.authorized(case, from_time=start, to_time=start + 2 * hour)
        governed.as_("anna", authorization)
        if covers:
            show_picture(taken.store, key, tmp_path / "face.jpg", reason="case 17")
        else:
            with pytest.raises(NotAllowed, match="of another time is not covered"):
                show_picture(taken.store, key, tmp_path / "other.jpg", reason="case 18")
    assert not (tmp_path / "other.jpg").exists()
    assert governed.sql("SELECT actor FROM audit WHERE action = 'picture.show'") == [("anna",)]
