"""Searches by what people wear and carry: beside a picture, and without one; and with several uploaded pictures."""

from datetime import timedelta

import numpy as np
import pytest
from alembic import command
from pydantic import ValidationError
from sqlalchemy import text

from pipeline.attributes.recognize import recognize_camera
from pipeline.crops.crop_store import place_of_crop
from pipeline.erasure.absence import verify_absence
from pipeline.erasure.erase import erase
from pipeline.search.nearest import Gallery
from pipeline.search.probe import crop_feature, probe_feature
from pipeline.search.request import read_request, request_search, upload_probe
from pipeline.store import embedded, schema
from reid_core.attributes import open_attributes
from schemas.errors import InputError, NotAllowed, StoreError
from schemas.parameters import SearchParameters
from tests.helpers.attribute_network import keep_attribute_network
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of
from tests.helpers.town import Town
from tests.pipeline.search.test_index import agree, attention, core_of, index_of, keys
from tests.pipeline.store.test_schema import as_owner

ASKED = {"unit": "d1", "reason": "a test", "operator": "me"}


@pytest.fixture
def seen(town: Town, lines: list[str]) -> Town:
    """A resolved town of whose cameras some were looked at for attributes."""
    town.take_in(lines[:60])
    town.resolve()
    keep_attribute_network(town.store.settings.attributes_dir)
    recognize(town, "d1/s1")
    return town


def recognize(town: Town, street: str) -> None:
    recognizer = open_attributes(town.store.settings)
    with town.store.begin() as connection:
        sql = text("SELECT code FROM urban_unit WHERE level = 'camera' AND starts_with(code, :street) ORDER BY code")
        cameras = connection.scalars(sql, {"street": f"{street}/"}).all()
    for camera in cameras:
        recognize_camera(town.store, town.crops, recognizer, camera)


def upload(town: Town, key: str) -> tuple[bytes, str]:
    with town.store.begin() as connection:
        row = connection.execute(
            text("SELECT camera, captured_at, picture FROM crop WHERE key = :key"), {"key": bytes.fromhex(key)}
        ).one()
    data = town.crops.get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
    return data, str(upload_probe(town.store, town.crops, data, "me"))


def test_a_filter_leaves_out_who_shows_something_else_and_says_of_whom_nothing_is_known(seen: Town) -> None:
    index, key = index_of(seen), keys(seen)[0]
    every = agree(seen, index, crop_key=key, top=200)
    probability = {hit.identity: hit.probability for hit in every.hits}
    assert every.attributes is None and all(hit.attributes is None for hit in every.hits)
    bag, no_bag = (agree(seen, index, crop_key=key, top=200, attributes=said) for said in ("bag", "no bag"))
    assert bag.attributes is not None and no_bag.attributes is not None
    done = bag.attributes
    assert done.matching and done.unknown and done.left_out and no_bag.attributes.matching == done.left_out
    assert done.matching + done.unknown + done.left_out == bag.compared == every.compared
    assert done.asked == ("bag",) and done.disagree == pytest.approx(0.39)
    assert len(bag.hits) == done.matching + done.unknown
    for hit in bag.hits:
        assert hit.probability == probability[hit.identity], "a filter is no evidence"
        assert hit.attributes is None or "bag" in hit.attributes
    assert sum(hit.attributes is None for hit in bag.hits) == done.unknown
    assert {hit.identity for hit in (*bag.hits, *no_bag.hits)} == set(probability)
    for asked in ({"places": ["d1/s1/b1"]}, {"to_time": "2100-01-01T00:00Z"}):
        for said in ("bag", "no bag"):
            agree(seen, index, crop_key=key, attributes=said, top=200, **asked)
            agree(seen, index, attributes=said, top=200, **asked)
    there = agree(seen, index, attributes="no hat", places=["d1/s2"], top=200)
    assert there.attributes is not None and there.attributes.matching == 0 < there.attributes.unknown
    assert bag.not_here == every.not_here and "39%" in bag.summary and f"of {done.unknown} nothing" in bag.summary


def test_without_a_picture_it_is_a_list_of_people(seen: Town, server: embedded.EmbeddedServer) -> None:
    index = index_of(seen)
    found = agree(seen, index, top=200, attributes="bag")
    done = found.attributes
    assert done is not None and done.unknown and len(found.hits) == done.matching
    assert found.not_here is None and "Nobody was compared with a picture" in found.note
    for hit in found.hits:
        assert hit.distance is None and hit.probability is None and hit.lead is None
        assert hit.attributes is not None and "bag" in hit.attributes
        assert hit.crops and all(crop.distance is None and crop.lineage[0] == hit.identity for crop in hit.crops)
        passages = [crop.lineage[-1] for crop in hit.crops]
        assert len(set(passages[: len(set(passages))])) == len(set(passages)), "first one crop of each passage"
    first = agree(seen, index, top=2, attributes="bag")
    assert [hit.identity for hit in first.hits] == [hit.identity for hit in found.hits[:2]]
    with seen.store.owning() as connection:
        without = connection.scalar(text("SELECT count(*) FROM search_hit WHERE distance IS NULL"))
    assert without == 2 * len(found.hits) + 2 * len(first.hits)
    assert agree(seen, index, attributes="hat, pink top, purple bottom").hits == ()
    connect = as_owner(server, seen.store.settings)
    schema.migrate(connect, command.downgrade, "0041")  # an earlier version knows no such search
    with seen.store.owning() as connection:
        assert connection.scalar(text("SELECT count(*) FROM search_hit WHERE distance IS NULL")) == 0
        assert connection.scalar(text("SELECT count(*) FROM search_request WHERE erased_at IS NULL")) == 0
    schema.migrate(connect)
    assert agree(seen, index, attributes="bag", top=200).hits


def test_what_is_kept_goes_on_with_what_is_recognized_and_erased(seen: Town) -> None:
    index = index_of(seen)
    before = agree(seen, index, attributes="bag", top=200)
    recognize(seen, "d1/s2")
    after = agree(seen, index, attributes="bag", top=200)
    assert before.attributes is not None and after.attributes is not None
    assert after.attributes.unknown < before.attributes.unknown
    erase(seen.store, "identity", [str(after.hits[0].identity)], actor="anna", reason="asked for")
    gone = agree(seen, index, attributes="bag", top=200)
    assert after.hits[0].identity not in {hit.identity for hit in gone.hits}
    with index.held(seen.model, "d1") as unit:
        unit.clear()
        assert not len(unit._attributes.known.ids)


def test_a_filter_leaves_as_many_rows_as_are_asked_for() -> None:
    rng = np.random.default_rng(5)
    v = rng.normal(size=(6000, 32)).astype(np.float16)
    gallery = Gallery(np.arange(6000), np.ones(6000, np.int64), v)
    wanted = np.zeros(6000, bool)
    wanted[rng.permutation(6000)[:150]] = True
    core = core_of(attention("sub_abs"))
    without, found = (gallery.compare(core, v[0].astype(np.float64), most=400, wanted=one) for one in (None, wanted))
    assert (without.exact & wanted).sum() < 50 and found.exact[wanted].all()
    both = without.exact & found.exact
    assert np.array_equal(without.distance[both], found.distance[both])
    assert np.array_equal(without.sample, found.sample)


def test_several_uploaded_pictures_count_as_their_mean(resolved: Town) -> None:
    first, second, third = keys(resolved)
    (_, one), (_, other) = upload(resolved, first), upload(resolved, second)
    asked = SearchParameters.model_validate(ASKED | {"probe_id": one, "pictures": [other], "more": [third]})
    request = request_search(resolved.store, resolved.model, asked)
    assert read_request(resolved.store, request).parameters == asked
    with resolved.store.begin() as connection:
        of = (connection, resolved.core, resolved.crops, resolved.model)
        alone = [probe_feature(*of, SearchParameters.model_validate(ASKED | {"probe_id": one})) for one in (one, other)]
        mean = (alone[0] + alone[1] + crop_feature(*of, third)) / 3
        assert probe_feature(*of, asked) == pytest.approx(mean)
    with resolved.store.signed_in() as connection:
        sql = "SELECT details->'pictures' FROM audit WHERE action = 'search.start' AND details->>'request' = :id "
        assert connection.scalars(text(sql + "ORDER BY id"), {"id": str(request)}).all() == [None, [other]]
    assert agree(resolved, index_of(resolved), probe_id=one, pictures=[other]).hits
    erase(resolved.store, "probe", [other], actor="anna", reason="the search is over")
    with pytest.raises(InputError, match="was erased"):
        read_request(resolved.store, request)
    assert verify_absence(resolved.store, other, actor="anna").found == ()


def test_what_was_asked_is_read_again_and_audited(resolved: Town) -> None:
    for picture in ({"crop_key": keys(resolved)[0]}, {}):
        asked = SearchParameters.model_validate(ASKED | picture | {"attributes": "no hat, Red  top"})
        request = request_search(resolved.store, resolved.model, asked)
        assert read_request(resolved.store, request).parameters == asked
        with resolved.store.signed_in() as connection:
            sql = "SELECT details FROM audit WHERE action = 'search.start' AND details->>'request' = :id"
            said = connection.scalar(text(sql), {"id": str(request)})
        assert said["attributes"] == ["red top", "no hat"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "give a crop key, a probe id, or attributes alone"),
        ({"attributes": ""}, "or attributes alone"),
        ({"attributes": "male"}, "is no attribute"),
        ({"attributes": "bag", "more": ["1" * 64]}, "or attributes alone"),
        (
            {
                "probe_id": "0" * 8 + "-0000-4000-8000-" + "0" * 12,
                "pictures": ["0" * 8 + "-0000-4000-8000-" + "0" * 12],
            },
            "twice",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchParameters.model_validate(ASKED | wrong)


def test_a_list_of_people_needs_an_authorization_and_gives_no_leads(
    seen: Town, server: embedded.EmbeddedServer
) -> None:
    index = index_of(seen)
    (hit, *_) = agree(seen, index, attributes="bag", unit="d1/s1").hits
    _, probe = upload(seen, keys(seen)[0])
    assert hit.first_seen is not None and hit.last_seen is not None
    governed = Governed(seen.store, superuser_of(server, seen.store.settings))
    authorization = governed.authorized(
        "case 1", units=("d1/s1",), from_time=hit.first_seen, to_time=hit.last_seen + timedelta(1)
    )
    governed.as_("anna")
    asked = SearchParameters.model_validate(ASKED | {"attributes": "bag"})
    with pytest.raises(NotAllowed, match="needs an authorization"):
        request_search(seen.store, seen.model, asked)
    governed.as_("anna", authorization)
    with pytest.raises(NotAllowed, match="does not cover d1"):
        request_search(seen.store, seen.model, asked)
    found = agree(seen, index, attributes="bag", unit="d1/s1")
    assert found.hits and all(one.lead is None for one in found.hits)
    with pytest.raises(StoreError, match="row-level security"), seen.store.signed_in() as connection:
        request = request_search(seen.store, seen.model, asked.model_copy(update={"unit": "d1/s1"}))
        sql = "INSERT INTO search_example (request_id, probe_id, is_person) VALUES (:request, :probe, true)"
        connection.execute(text(sql), {"request": request, "probe": probe})  # of no case
    with seen.store.owning() as connection:
        assert connection.scalar(text("SELECT count(*) FROM lead")) == 0
