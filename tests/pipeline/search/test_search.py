"""A search: hits with lineage, the unit and period searched, uploaded pictures, and what is refused."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
import pytest
from sqlalchemy import Connection, text

from pipeline.cameras.rows import came_up, read_outages, went_down
from pipeline.crops.crop_store import place_of_crop
from pipeline.governance.audit import Action, audit
from pipeline.governance.audit_chain import verify_city
from pipeline.registry import insert_search_calibration
from pipeline.search.calibrations import search_calibration
from pipeline.search.descent import MOST_CROPS
from pipeline.search.posterior import posterior
from pipeline.search.request import request_search, upload_probe
from pipeline.search.result import read_evidence
from pipeline.search.search import search
from schemas.calibration import straight_line
from schemas.errors import CityError, InputError, PictureError, UrbanReidError
from schemas.feeds import Outage
from schemas.levels import Level
from schemas.parameters import SearchHit, SearchParameters, SearchResult
from schemas.text import chance
from schemas.times import from_us, to_us
from tests.helpers.rows import insert_model
from tests.helpers.town import Town


def some_crop(town: Town, camera: str = "") -> str:
    with town.store.begin() as connection:
        key: str = connection.scalar(
            text("SELECT encode(key, 'hex') FROM crop WHERE starts_with(camera, :camera) ORDER BY key LIMIT 1"),
            {"camera": camera},
        )
    return key


def run(town: Town, **parameters: object) -> tuple[SearchHit, ...]:
    return whole(town, **parameters).hits


def whole(town: Town, **parameters: object) -> SearchResult:
    asked = SearchParameters.model_validate({"unit": "d1", "reason": "a test", "operator": "me", "top": 5} | parameters)
    request = request_search(town.store, town.model, asked)
    return search(town.store, lambda _: town.core, town.crops, town.model, request, asked)


def test_a_stored_crop_finds_its_own_identity_with_lineage(resolved: Town) -> None:
    key = some_crop(resolved)
    hits = run(resolved, crop_key=key)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    distances = [hit.distance for hit in hits if hit.distance is not None]
    assert distances == sorted(distances) and len(distances) == len(hits)
    best = hits[0]
    assert best.crops[0].key == key and best.crops[0].distance == pytest.approx(0, abs=1e-6)
    assert 0 <= distances[0] < distances[-1]
    assert best.probability is not None and 0 < best.probability < 1
    for hit in hits:
        assert 1 <= len(hit.crops) <= MOST_CROPS
        looks = [crop.distance for crop in hit.crops if crop.distance is not None]
        assert looks == sorted(looks) and len(looks) == len(hit.crops)
        for crop in hit.crops:
            assert crop.lineage[0] == hit.identity and len(crop.lineage) == 4
    with resolved.store.begin() as connection:  # each step of the lineage is a member of the one before
        for upper, lower in zip(best.crops[0].lineage, best.crops[0].lineage[1:], strict=False):
            assert connection.scalar(
                text(
                    "SELECT count(*) FROM identity_now u JOIN identity_member m ON m.identity_id = u.id "
                    "JOIN identity l ON l.id = m.child_id WHERE u.persistent_id = :upper AND l.persistent_id = :lower"
                ),
                {"upper": upper, "lower": lower},
            )


@pytest.mark.parametrize(("unit", "depth"), [("d1/s1", 3), ("d1/s1/b1", 2), ("d1/s1/b1/c1", 1)])
def test_a_search_starts_at_its_unit(resolved: Town, unit: str, depth: int) -> None:
    hits = run(resolved, unit=unit, crop_key=some_crop(resolved, unit))
    assert hits and {hit.unit for hit in hits} == {unit}
    for hit in hits:
        assert {len(crop.lineage) for crop in hit.crops} == {depth}
        assert all(crop.camera == unit or crop.camera.startswith(f"{unit}/") for crop in hit.crops)
    assert (hits[0].probability is None) == (unit.count("/") == 3)  # a camera has no calibration


def test_an_uploaded_picture_of_a_crop_gives_the_hits_of_the_crop(resolved: Town) -> None:
    key = some_crop(resolved)
    with resolved.store.begin() as connection:
        sql = text("SELECT camera, captured_at, picture FROM crop WHERE key = :key")
        crop = connection.execute(sql, {"key": bytes.fromhex(key)}).one()
    data = resolved.crops.get(place_of_crop(crop.camera, crop.captured_at), bytes(crop.picture))
    by_probe = run(resolved, probe_id=upload_probe(resolved.store, resolved.crops, data, "me"))
    by_crop = run(resolved, crop_key=key)
    assert [hit.identity for hit in by_probe] == [hit.identity for hit in by_crop]
    assert [hit.distance for hit in by_probe] == pytest.approx([hit.distance for hit in by_crop], abs=1e-3)


def test_only_crops_of_the_period_are_returned(resolved: Town) -> None:
    key = some_crop(resolved)
    times = sorted(to_us(crop.time) for hit in run(resolved, crop_key=key, top=200) for crop in hit.crops if crop.time)
    start, end = from_us(times[len(times) // 4]), from_us(times[len(times) // 2])
    hits = run(resolved, crop_key=key, top=200, from_time=start, to_time=end)
    assert hits
    assert all(crop.time is not None and start <= crop.time < end for hit in hits for crop in hit.crops)
    assert run(resolved, crop_key=key, from_time=from_us(times[-1] + 10**9)) == ()


def test_a_result_says_which_cameras_were_blind_then(resolved: Town) -> None:
    key, noon = some_crop(resolved), datetime(2026, 1, 1, 12, tzinfo=UTC)
    hour = timedelta(hours=1)
    with resolved.store.begin() as connection:
        for camera, at in (("d1/s1/b1/c1", noon), ("d1/s1/b2/c1", noon), ("d1/s1/b1/c1", noon + 3 * hour)):
            went_down(connection, camera, at, "stalled")
            came_up(connection, camera, at + hour)

    def blind(unit: str, start: datetime | None, end: datetime | None) -> list[tuple[str, datetime]]:
        found = whole(resolved, crop_key=key, unit=unit, from_time=start, to_time=end)
        return [(outage.camera, outage.down_at) for outage in found.blind]

    assert blind("d1/s1/b1", None, None) == [("d1/s1/b1/c1", noon + 3 * hour), ("d1/s1/b1/c1", noon)]
    assert blind("d1/s1", noon + hour / 2, noon + hour) == [("d1/s1/b1/c1", noon), ("d1/s1/b2/c1", noon)]
    assert blind("d1", noon + hour, noon + 2 * hour) == []


def test_probabilities_follow_from_what_is_stored_and_not_here_is_stated(resolved: Town) -> None:
    found = whole(resolved, crop_key=some_crop(resolved), top=200)
    best = found.hits[0]
    assert found.not_here is not None and found.note == ""
    assert f"{found.compared} identities were compared." in found.summary
    assert f"Not here: it is {chance(found.not_here)} likely" in found.summary
    with resolved.store.signed_in() as connection:
        request = connection.execute(
            text(
                "SELECT r.id, f.compared, f.not_here FROM search_request r, LATERAL figures_of_search(r.id) f "
                "ORDER BY r.requested_at DESC LIMIT 1"
            )
        ).one()
        hits = connection.execute(
            text("SELECT log_ratio, probability FROM search_hit WHERE request_id = :id ORDER BY rank"),
            {"id": request.id},
        ).all()
        log_sum = connection.scalar(
            text("SELECT log_sum FROM search_evidence WHERE request_id = :id"), {"id": request.id}
        )
        evidence = read_evidence(connection, request.id)
        calibration = search_calibration(connection, resolved.model.id, Level.DISTRICT)
    assert calibration is not None and calibration.value.level is Level.DISTRICT
    assert (request.compared, request.not_here) == (found.compared, found.not_here) == (evidence.count, found.not_here)
    assert log_sum == pytest.approx(evidence.log_sum)
    assert [(hit.log_ratio, hit.probability) for hit in found.hits] == [tuple(hit) for hit in hits]
    stated = posterior(evidence, calibration.value)
    assert stated.not_here == pytest.approx(found.not_here)
    assert best.log_ratio is not None and stated.of(best.log_ratio, best.log_look) == pytest.approx(best.probability)
    shown = [hit.probability or 0.0 for hit in found.hits]
    assert shown == sorted(shown, reverse=True)


def test_another_levels_calibration_is_used_with_a_word_and_none_states_nothing(
    fresh_town: Callable[..., Town], lines: list[str]
) -> None:
    town = fresh_town(calibrated=False)  # without calibrations of pairs; those of searches are there
    town.take_in(lines[:60])
    town.resolve()
    with town.store.begin() as connection:
        street = search_calibration(connection, town.model.id, Level.STREET)
        assert street is not None
        bare = insert_model(connection, dims=town.model.dims, name="bare")
        assert search_calibration(connection, bare, Level.STREET) is None
        insert_search_calibration(connection, bare, street.value)
        borrowed = search_calibration(connection, bare, Level.BUILDING)
        assert borrowed is not None and borrowed.value.level is Level.STREET
    found = whole(town, unit="d1/s1/b1/c1", crop_key=some_crop(town, "d1/s1/b1/c1"))
    assert found.not_here is None and "search the building, street or district" in found.note
    assert {hit.probability for hit in found.hits} == {None}


def test_others_may_write_to_the_audit_while_somebody_searches(resolved: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain of the audit has one row after another; a search saw the one before in its snapshot."""

    def look(connection: Connection, *rest: Any, **options: Any) -> list[Outage]:
        with resolved.store.begin() as other:
            audit(other, "anna", Action.PEOPLE_SHOW, unit="d1", details={})
        return read_outages(connection, *rest, **options)

    monkeypatch.setattr("pipeline.search.search.read_outages", look)
    assert run(resolved, crop_key=some_crop(resolved))
    assert not verify_city(resolved.store).faults


def test_implausible_children_are_not_opened(resolved: Town) -> None:
    """A calibration that finds all distances plausible opens more children than one that finds none plausible."""

    def opened() -> int:
        return sum(len(hit.crops) for hit in run(resolved, crop_key=some_crop(resolved), top=200))

    def calibrate(intercept: float) -> None:
        with resolved.store.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO calibration (model_id, level, parameters) SELECT DISTINCT ON (level) model_id, level, "
                    "jsonb_set(parameters, '{terms}', CAST(:terms AS jsonb)) FROM calibration WHERE purpose = 'pair'"
                ),
                {"terms": straight_line(6.0, intercept).model_dump_json()},
            )

    try:
        calibrate(1000.0)
        everything = opened()
        calibrate(-1000.0)
        assert 0 < opened() < everything
    finally:
        calibrate(3.5)


def test_a_refused_search_writes_nothing(town: Town) -> None:
    with pytest.raises(InputError, match="no crop has the key"):
        run(town, crop_key="ab" * 32)
    with pytest.raises(InputError, match="no probe"):
        run(town, probe_id="00000000-0000-0000-0000-000000000000")
    with pytest.raises(CityError, match="nearest: d1"):
        run(town, unit="d2", crop_key="ab" * 32)
    with pytest.raises(PictureError):
        upload_probe(town.store, town.crops, b"PK\x03\x04 an archive", "me")
    new, picture = uuid4(), cv2.imencode(".png", np.full((64, 32, 3), 90, np.uint8))[1].tobytes()
    for fault, data in (({"unit": "d2"}, picture), ({"more": ["ab" * 32]}, picture), ({}, b"PK\x03\x04 an archive")):
        asked = SearchParameters.model_validate(
            {"unit": "d1", "reason": "r", "operator": "me", "probe_id": new} | fault
        )
        with pytest.raises(UrbanReidError):
            request_search(town.store, town.model, asked, pictures={new: data})
    with town.store.begin() as connection:
        for table in ("search_request", "probe", "search_hit"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0
    assert not (town.store.settings.home / "crops" / "_probes").exists()
    request_search(town.store, town.model, asked, pictures={new: picture})
    probe = upload_probe(town.store, town.crops, picture, "me")
    assert run(town, probe_id=probe) == ()  # a city without crops
