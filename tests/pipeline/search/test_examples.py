"""Searches with several pictures of the person, with crops of whom it is not, in some places and at some hours."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pydantic import ValidationError
from sqlalchemy import text

from pipeline.search.narrowing import Narrowing
from pipeline.search.probe import crop_feature, probe_feature
from pipeline.search.request import read_request, request_search
from pipeline.search.transit import Passages
from schemas.errors import CityError, InputError
from schemas.parameters import SearchParameters
from schemas.times import from_us, to_us
from tests.helpers.town import Town
from tests.pipeline.search.test_index import agree, ask, index_of, keys

ASKED = {"unit": "d1", "reason": "a test", "operator": "me"}


def test_what_was_asked_is_read_again(resolved: Town) -> None:
    first, second, third = keys(resolved)
    asked = SearchParameters.model_validate(
        ASKED
        | {
            "crop_key": first,
            "more": [second],
            "unlike": [third],
            "places": ["d1/s1/b1", "d1/s1/b1/c1"],
            "day_from": "22:00",
            "day_to": "06:00",
        }
    )
    request = request_search(resolved.store, resolved.model, asked)
    assert read_request(resolved.store, request).parameters == asked
    with resolved.store.signed_in() as connection:
        sql = "SELECT details FROM audit WHERE action = 'search.start' AND details->>'request' = :id ORDER BY id"
        rows = connection.scalars(text(sql), {"id": str(request)}).all()
    said = rows[0] | rows[1]
    assert (said["more"], said["unlike"], said["places"]) == ([second], [third], ["d1/s1/b1", "d1/s1/b1/c1"])
    assert (said["day_from"], said["day_to"]) == ("22:00:00", "06:00:00")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"more": ["0" * 64]}, "given twice"),
        ({"places": ["d2"]}, "does not lie in d1"),
        ({"day_from": "08:00"}, "both hours"),
        ({"day_from": "08:00", "day_to": "08:00"}, "end where they begin"),
        ({"day_from": "08:00Z", "day_to": "09:00Z"}, "city's zone"),
        ({"unlike": ["1" * 64] * 6}, "at most 5"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchParameters.model_validate(ASKED | {"crop_key": "0" * 64} | wrong)


def test_what_is_not_there_is_refused_and_nothing_is_written(resolved: Town) -> None:
    def count() -> int:
        with resolved.store.signed_in() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM search_request")) or 0)

    before = count()
    for wrong, error in (({"more": ["1" * 64]}, InputError), ({"places": ["d1/s9"]}, CityError)):
        with pytest.raises(error):
            ask(resolved, None, crop_key=keys(resolved)[0], **wrong)
    assert count() == before


def test_several_pictures_count_as_their_mean(resolved: Town) -> None:
    first, second, _ = keys(resolved)
    with resolved.store.begin() as connection:
        of = (connection, resolved.core, resolved.crops, resolved.model)
        asked = SearchParameters.model_validate(ASKED | {"crop_key": first, "more": [second]})
        both = probe_feature(*of, asked)
        assert both == pytest.approx((crop_feature(*of, first) + crop_feature(*of, second)) / 2)
    index = index_of(resolved)
    found = agree(resolved, index, crop_key=first, more=[second], top=200)
    assert [hit.identity for hit in found.hits] == [
        hit.identity for hit in agree(resolved, index, crop_key=second, more=[first], top=200, unit="d1").hits
    ] or found.impossible  # the time and place are those of the first


def test_not_this_one_leaves_its_holder_out(resolved: Town) -> None:
    key, index = keys(resolved)[0], index_of(resolved)
    before = agree(resolved, index, crop_key=key, top=200)
    best = next(hit for hit in before.hits if not hit.impossible)
    wrong = next(crop.key for crop in best.crops if crop.key != key)
    after = agree(resolved, index, crop_key=key, unlike=[wrong], top=200)
    assert {hit.identity for hit in after.hits} == {hit.identity for hit in before.hits} - {best.identity}
    assert after.compared == before.compared - 1


def test_a_place_narrows_a_search_and_never_its_number_of_rows(resolved: Town) -> None:
    key, index = keys(resolved)[0], index_of(resolved)
    every = agree(resolved, index, crop_key=key, top=200)
    seen = {hit.identity: {crop.camera for crop in hit.crops} for hit in every.hits}
    for within in (["d1/s1/b1"], ["d1/s1/b1/c1", "d1/s1/b2"]):
        found = agree(resolved, index, crop_key=key, places=within, top=200)
        there = {
            one
            for one, cameras in seen.items()
            if any(f"{c}/".startswith(f"{unit}/") for c in cameras for unit in within)
        }
        assert there <= {hit.identity for hit in found.hits} and found.compared < every.compared
        assert found.compared == len(found.hits)
        for hit in found.hits:
            assert all(any(f"{crop.camera}/".startswith(f"{unit}/") for unit in within) for crop in hit.crops)


def test_hours_of_the_day_are_the_citys(resolved: Town) -> None:
    key, index = keys(resolved)[0], index_of(resolved)
    every = agree(resolved, index, crop_key=key, top=200)
    moments = sorted(crop.time for hit in every.hits for crop in hit.crops if crop.time)
    with resolved.store.begin() as connection:
        zone = ZoneInfo(str(connection.scalar(text("SELECT timezone FROM city"))))
    middle = moments[len(moments) // 2].astimezone(zone).time().replace(microsecond=0)
    before = agree(resolved, index, crop_key=key, top=200, day_from=time(0), day_to=middle)
    after = agree(resolved, index, crop_key=key, top=200, day_from=middle, day_to=time(0))
    assert before.hits and after.hits and max(before.compared, after.compared) < every.compared
    for found, is_before in ((before, True), (after, False)):
        crops = [crop for hit in found.hits for crop in hit.crops]
        assert crops and all(
            crop.time is not None and (crop.time.astimezone(zone).time() < middle) == is_before for crop in crops
        )


def test_hours_go_over_midnight_and_over_a_change_of_clocks(resolved: Town) -> None:
    zone = ZoneInfo("Europe/Berlin")
    asked = SearchParameters.model_validate(ASKED | {"crop_key": "0" * 64, "day_from": "23:00", "day_to": "02:30"})
    with resolved.store.begin() as connection:
        narrowing = Narrowing.of(connection, asked, zone.key)
    assert narrowing is not None
    start = to_us(datetime(2026, 3, 28, 12, tzinfo=UTC))  # clocks go forward in the night
    moments = np.arange(start, start + 24 * 3_600_000_000, 15 * 60_000_000)
    n = len(moments)
    alone = Passages(
        ("d1/c",), np.zeros(n, np.int64), np.arange(n), np.stack([moments] * 2), np.ones(n, bool), np.ones(n, np.int64)
    )
    found = narrowing.identities(alone)
    local = [from_us(int(one)).astimezone(zone).time() for one in moments]
    assert found.tolist() == [one >= time(23) or one < time(2, 30) for one in local]
    assert [narrowing.shows("d1/c", from_us(int(one))) for one in moments] == found.tolist()
    assert not narrowing.shows("d1/c", None)
