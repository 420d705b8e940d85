import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy import text

from pipeline.city.units import store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.dataset import ingest_dataset
from pipeline.report import write_report
from pipeline.report.folder import MARKER
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from schemas.city_file import City
from schemas.errors import CityError, InputError
from tests.helpers.report_pages import read_pages
from tests.helpers.reported import Reported
from tests.helpers.town import Town

SMALL = City.model_validate({"units": [{"code": "d1", "name": "Old town"}]})


def test_all_decisions_are_written_beside_the_pages(reported: Reported) -> None:
    decisions = [json.loads(line) for line in (reported.out / "decisions.jsonl").read_text().splitlines()]
    with reported.town.store.begin() as connection:
        current = connection.execute(
            text(
                "SELECT d.verdict, count(*) FROM match_decision d JOIN run r ON r.id = d.run_id "
                "WHERE r.superseded_at IS NULL GROUP BY 1"
            )
        )
        assert Counter(decision["verdict"] for decision in decisions) == {row[0]: row[1] for row in current}
    assert all(decision["left"] < decision["right"] for decision in decisions)
    assignments = (reported.out / "assignments.jsonl").read_text().splitlines()
    with reported.town.store.begin() as connection:
        assert len(assignments) == connection.scalar(text("SELECT count(*) FROM crop"))


def test_progress_counts_thumbnails_and_the_audit_records_the_report(reported: Reported, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    index = write_report(
        reported.town.store, reported.town.crops, "d1", tmp_path / "new" / "deep", lambda *now: told.append(now)
    )
    assert index == tmp_path / "new" / "deep" / "index.html"
    thumbnails = list((tmp_path / "new" / "deep" / "crops").iterdir())
    assert told == [(i + 1, len(thumbnails)) for i in range(len(thumbnails))]
    with reported.town.store.signed_in() as connection:
        row = connection.execute(
            text("SELECT actor, unit, details FROM audit WHERE action = 'report.write' ORDER BY id DESC LIMIT 1")
        ).one()
    assert (row.actor, row.unit) == (reported.town.store.settings.operator, "d1")
    assert row.details["digest"] in index.read_text()


def test_evidence_shows_the_whole_frame_of_a_track_that_has_one(reported: Reported) -> None:
    with reported.town.store.begin() as connection:
        name = connection.scalar(text("SELECT encode(picture, 'hex') || '.jpg' FROM context_frame LIMIT 1"))
    pages = "".join((reported.out / page).read_text() for page in ("joins.html", "review.html"))
    shown = re.findall(rf'<div class="context">\s*<img class="thumb" src="crops/{name}"[^>]*>', pages)
    assert shown and all('width="180" height="135"' in found and "the whole frame at" in found for found in shown)
    picture = np.asarray(cv2.imread(str(reported.out / "crops" / str(name))))
    assert picture.shape == (480, 640, 3)  # not cut, as a crop would be


def test_an_earlier_report_is_replaced(reported: Reported, tmp_path: Path) -> None:
    out = shutil.copytree(reported.out, tmp_path / "report")
    stale = out / "crops" / f"{'0' * 64}.jpg"
    stale.write_bytes(b"old")
    (out / "notes.txt").write_text("mine")
    (out / "index.html").write_text("old")
    write_report(reported.town.store, reported.town.crops, "d1", out)
    assert not stale.exists()
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "index.html").read_bytes() == (reported.out / "index.html").read_bytes()
    assert not list(out.rglob("*.part*"))


def test_a_folder_without_a_report_is_not_touched(reported: Reported, tmp_path: Path) -> None:
    store, crops = reported.town.store, reported.town.crops
    (tmp_path / "index.html").write_text("somebody's page")
    with pytest.raises(InputError, match="holds other files"):
        write_report(store, crops, "d1", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]
    with pytest.raises(InputError, match="is a file"):
        write_report(store, crops, "d1", tmp_path / "index.html")
    with pytest.raises(InputError, match="cannot be written there"):
        write_report(store, crops, "d1", tmp_path / "index.html" / "below")


def test_a_link_in_the_folder_is_not_followed(reported: Reported, tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "report"
    elsewhere.mkdir()
    out.mkdir()
    (out / MARKER).touch()
    (out / "crops").symlink_to(elsewhere)
    with pytest.raises(InputError, match="is no plain folder"):
        write_report(reported.town.store, reported.town.crops, "d1", out)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(("unit", "said"), [("d9", "no unit 'd9'"), ("d1/s1", "d1/s1 is a street.*whole district: d1")])
def test_only_a_district_of_the_city_has_a_report(reported: Reported, tmp_path: Path, unit: str, said: str) -> None:
    with pytest.raises(CityError, match=said):
        write_report(reported.town.store, reported.town.crops, unit, tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_missing_and_damaged_pictures_are_counted_on_the_page(
    fresh_town: Callable[..., Town], lines: list[str], tmp_path: Path
) -> None:
    town = fresh_town()
    town.take_in(lines[:40])
    town.resolve()
    out = tmp_path / "report"
    write_report(town.store, town.crops, "d1", out)
    names = sorted(file.stem for file in (out / "crops").iterdir())
    with town.store.begin() as connection:
        hashes = connection.scalars(text("SELECT encode(picture, 'hex') FROM crop ORDER BY picture, id")).all()
    stored = dict(zip(hashes, town.pictures(), strict=True))
    stored[names[0]].unlink()
    stored[names[1]].write_bytes(b"no picture")
    write_report(town.store, town.crops, "d1", out)
    assert sorted(file.stem for file in (out / "crops").iterdir()) == names[2:]
    pages = read_pages(out)
    assert "2 pictures are missing or damaged" in pages["index.html"].text
    assert not any(name in link for page in pages.values() for link in page.pictures for name in names[:2])


def test_an_empty_city_states_what_to_do(store: Store, tmp_path: Path) -> None:
    store_city(store, SMALL)
    write_report(store, CropStore(store.settings), "d1", tmp_path)
    pages = read_pages(tmp_path)
    assert "No crops have been ingested yet" in pages["index.html"].text
    assert "No model is in use" in pages["index.html"].text
    assert (tmp_path / "decisions.jsonl").read_text() == ""


def test_before_any_resolve(fresh_town: Callable[..., Town], lines: list[str], tmp_path: Path) -> None:
    town = fresh_town()
    town.take_in(lines[:30])
    write_report(town.store, town.crops, "d1", tmp_path)
    index = read_pages(tmp_path)["index.html"].text
    assert "nothing is resolved yet" in index
    assert "windows that are not resolved yet" in index
    assert "Nothing is resolved yet, so nothing can be scored" in index


def test_without_truth_and_without_calibration(
    fresh_town: Callable[..., Town], lines: list[str], tmp_path: Path
) -> None:
    town = fresh_town(calibrated=False)
    town.take_in([json.dumps({k: v for k, v in json.loads(line).items() if k != "truth"}) for line in lines[:60]])
    town.resolve()
    write_report(town.store, town.crops, "d1", tmp_path)
    pages = read_pages(tmp_path)
    assert "These crops have no ground truth" in pages["index.html"].text
    assert "This model has no calibration" in pages["index.html"].text
    assert "Nothing was joined above the cameras" in pages["index.html"].text
    assert "no calibration" in pages["review.html"].text
    assert not any("truth:" in page.text for page in pages.values())


def test_crops_without_times(fresh_town: Callable[..., Town], tmp_path: Path) -> None:
    """A data set without times in its file names: each crop is a tracklet, and no time is shown."""
    town = fresh_town()
    folder = tmp_path / "set" / "query"
    folder.mkdir(parents=True)
    shades = np.random.default_rng(0)
    for person in (1, 2, 3):
        look = shades.integers(0, 255, (8, 4, 3))
        for camera in (1, 2):
            noisy = np.clip(np.kron(look, np.ones((16, 16, 1))) + shades.normal(0, 6, (128, 64, 3)), 0, 255)
            cv2.imwrite(str(folder / f"{person:04d}_c{camera}s1_00000{person}_00.jpg"), noisy.astype(np.uint8))
    units = [{"code": code} for code in ("d1", "d1/s1", "d1/s1/b1", "d1/s1/b2")]
    cameras = [{"code": f"d1/s1/b{n}/c1", "source": f"c{n}"} for n in (1, 2)]
    city = City.model_validate({"units": units + cameras})
    with Store.open(town.store.settings, "pytest") as store:
        store_city(store, city)
        ingest_dataset(store, town.crops, folder.parent, "market1501", city, "none")
        for unit in units_within(store, "d1"):
            if unit.count("/") == 3:
                embed_camera(store, town.core, town.crops, town.model, unit)
            resolve_unit(store, town.core, town.model, unit, settings=store.settings.association)
        write_report(store, town.crops, "d1", tmp_path / "report")
    pages = read_pages(tmp_path / "report")
    assert "times not known" in pages["identities.html"].text
    assert not any(year in page.text for page in pages.values() for year in ("1970", "01:00:00", "00:00:00"))
