"""Where and when a stored probe was seen: what it says about each identity, and who cannot be the person."""

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.association.geometry import unit_geometry
from pipeline.city.units import read_city
from pipeline.search import transit
from pipeline.search.transit import Passages, Sighting, Surroundings
from schemas.city_file import City
from schemas.settings import AssociationSettings
from tests.helpers.town import Town
from tests.pipeline.search.test_search import run, some_crop, whole

CITY = City.model_validate(
    {
        "units": [
            {"code": "d1"},
            {"code": "d2"},
            *({"code": f"d1/s{street}"} for street in (1, 2)),
            *({"code": f"d1/s{street}/b1"} for street in (1, 2)),
            {"code": "d1/s1/b1/c1", "position": [0, 0]},
            {"code": "d1/s2/b1/c1", "position": [650, 0]},
            {"code": "d2/s1"},
            {"code": "d2/s1/b1"},
            {"code": "d2/s1/b1/c1"},
        ]
    }
)
HERE, THERE = "d1/s1/b1/c1", "d1/s2/b1/c1"
SECOND = 1_000_000


def passages(*identities: list[tuple[str, int, int]]) -> Passages:
    """Each identity as its tracklets: camera, first and last second. Ids count from 0."""
    every = [tracklet for identity in identities for tracklet in identity]
    return Passages(
        codes=(HERE, THERE),
        camera=np.array([(HERE, THERE).index(camera) for camera, _, _ in every], np.int64),
        tracklet=np.arange(len(every)),
        span_us=np.array([[start, end] for _, start, end in every], np.int64).reshape(-1, 2).T * SECOND,
        has_time=np.ones(len(every), dtype=bool),
        count=np.array([len(identity) for identity in identities]),
    )


def surroundings(town: Town, unit: str, camera: str) -> Surroundings | None:
    with town.store.begin() as connection:
        return Surroundings.read(connection, CITY, town.model.id, unit, camera, AssociationSettings())


@pytest.mark.parametrize("at_once", [2, 4096])
def test_what_is_impossible_and_what_a_walk_says(resolved: Town, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transit, "_IDENTITIES", at_once)
    around = surroundings(resolved, "d1", HERE)
    assert around is not None
    found = around.compare(
        Sighting(HERE, 100 * SECOND, 110 * SECOND),
        passages(
            [(THERE, 105, 115)],  # two places at once
            [(THERE, 150, 160)],  # 650 m in 40 s
            [(THERE, 700, 710)],  # walks 590 s, where 500 are usual
            [(THERE, 80_000, 80_010)],  # a day later
            [(HERE, 20, 30), (THERE, 700, 710), (THERE, 105, 106)],
            [(HERE, 105, 120)],  # two people beside each other
        ),
    )
    assert found.impossible.tolist() == [True, True, False, False, True, True]
    assert found.log_odds[2] > 1 > 0 > found.log_odds[3]


def test_its_own_passage_says_nothing_about_itself(resolved: Town) -> None:
    around = surroundings(resolved, "d1", HERE)
    assert around is not None
    others = passages([(HERE, 100, 110), (THERE, 700, 710)], [(HERE, 100, 110)])
    found = around.compare(Sighting(HERE, 100 * SECOND, 110 * SECOND, frozenset([0])), others)
    assert found.impossible.tolist() == [False, True] and found.log_odds[0] == 0


def test_a_probe_of_a_neighbor_counts_and_of_another_district_says_nothing(resolved: Town) -> None:
    neighbor = surroundings(resolved, "d1/s2", HERE)
    assert neighbor is not None and set(neighbor.geometry.cameras) == {HERE, THERE}
    assert surroundings(resolved, "d1", "d2/s1/b1/c1") is None


def test_a_search_gives_the_impossible_no_probability_with_a_word(resolved: Town) -> None:
    key = some_crop(resolved)
    found = whole(resolved, crop_key=key, top=200)
    geometry = unit_geometry(read_city(resolved.store), "d1", resolved.store.settings.association)
    place = {code: number for number, code in enumerate(geometry.cameras)}
    with resolved.store.begin() as connection:
        sighting = Sighting.of_crop(connection, key)
        assert sighting is not None and sighting.tracklets
        rows = connection.execute(
            text(
                "SELECT i.persistent_id, t.id, t.unit, extract(epoch FROM t.first_seen) AS first, "
                "extract(epoch FROM t.last_seen) AS last FROM identity_now i "
                "JOIN identity t ON t.id = ANY(i.tracklets) WHERE i.unit = 'd1'"
            )
        ).all()
    expected, own = set(), set()
    for row in rows:
        gap = max(float(row.first) * 1e6, sighting.start_us) - min(float(row.last) * 1e6, sighting.end_us)
        if gap < geometry.min_gap_us[place[sighting.camera], place[row.unit]]:
            expected.add(row.persistent_id)
        if row.id in sighting.tracklets:
            own.add(row.persistent_id)
    assert len(own) == 1 and expected - own
    assert {hit.identity for hit in found.hits if hit.impossible} == expected - own
    assert found.hits[0].identity in own
    assert f"{len(expected - own)} of them cannot be the person" in found.summary
    for hit in found.hits:
        assert (hit.probability == 0) == hit.impossible == (hit.log_ratio is None)
    possible = [hit.impossible for hit in found.hits]
    assert possible == sorted(possible)  # the impossible come last


def test_an_uploaded_picture_has_no_time_and_rules_out_nobody(resolved: Town) -> None:
    from pipeline.crops.crop_store import place_of_crop
    from pipeline.search.request import upload_probe

    with resolved.store.begin() as connection:
        crop = connection.execute(text("SELECT camera, captured_at, picture FROM crop ORDER BY key LIMIT 1")).one()
    data = resolved.crops.get(place_of_crop(crop.camera, crop.captured_at), bytes(crop.picture))
    hits = run(resolved, probe_id=upload_probe(resolved.store, resolved.crops, data, "me"), top=200)
    assert not any(hit.impossible for hit in hits) and all(hit.log_look == hit.log_ratio for hit in hits)
