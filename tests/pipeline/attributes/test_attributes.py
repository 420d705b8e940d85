"""Attributes of a resolved city's people: of a few crops of each tracklet, gone with them, and what is asked for."""

from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from flows.failures import call_unreported
from flows.resolve import district
from flows.work import working
from pipeline.attributes.read import Attributes
from pipeline.attributes.recognize import MOST_CROPS, recognize_camera
from pipeline.erasure.erase import erase
from pipeline.ingest.undo import undo
from pipeline.store import Store
from reid_core.attributes import AttributeRecognizer, open_attributes
from schemas.attributes import WantedAttributes
from schemas.errors import InputError
from schemas.parameters import ResolveParameters
from tests.helpers.attribute_network import keep_attribute_network
from tests.helpers.town import Town


@pytest.fixture
def recognizer(town: Town, lines: list[str]) -> AttributeRecognizer:
    town.take_in(lines[:100])
    town.resolve()
    keep_attribute_network(town.store.settings.attributes_dir)
    return open_attributes(town.store.settings)


def recognize(town: Town, recognizer: AttributeRecognizer) -> int:
    with town.store.begin() as connection:
        cameras = connection.scalars(text("SELECT code FROM urban_unit WHERE level = 'camera' ORDER BY code")).all()
    return sum(recognize_camera(town.store, town.crops, recognizer, camera) for camera in cameras)


def rows(store: Store, sql: str, **values: object) -> list[tuple[object, ...]]:
    with store.begin() as connection:
        return [tuple(row) for row in connection.execute(text(sql), values)]


LOOKED_AT = (
    "SELECT i.id, count(*), count(a.crop_id) FROM identity_now i JOIN identity_member m ON m.identity_id = i.id "
    "LEFT JOIN crop_attributes a ON a.crop_id = m.crop_id WHERE i.level = 'camera' GROUP BY 1"
)


def test_the_best_crops_of_each_tracklet_are_looked_at_once(town: Town, recognizer: AttributeRecognizer) -> None:
    looked_at = recognize(town, recognizer)
    found = rows(town.store, LOOKED_AT)
    assert len(found) > 10 and all(done == min(crops, MOST_CROPS) for _, crops, done in found)  # type: ignore[call-overload]
    assert looked_at == sum(done for _, _, done in found)  # type: ignore[misc]
    assert recognize(town, recognizer) == 0
    better = (
        "SELECT count(*) FROM identity_member m JOIN crop c ON c.id = m.crop_id JOIN identity_member n "
        "ON n.identity_id = m.identity_id JOIN crop d ON d.id = n.crop_id WHERE c.quality > d.quality "
        "AND EXISTS (SELECT FROM crop_attributes a WHERE a.crop_id = d.id) "
        "AND NOT EXISTS (SELECT FROM crop_attributes a WHERE a.crop_id = c.id)"
    )
    assert rows(town.store, better) == [(0,)]


def test_an_identity_has_what_most_of_its_crops_show(town: Town, recognizer: AttributeRecognizer) -> None:
    query = "SELECT id, tracklets FROM identity_now WHERE unit = 'd1' ORDER BY id"
    people = {int(str(one)): [int(str(i)) for i in tracklets] for one, tracklets in rows(town.store, query)}  # type: ignore[attr-defined]
    tracklets = np.array([one for own in people.values() for one in own])
    ids, counts = np.array(list(people)), np.array([len(own) for own in people.values()])

    def known() -> Attributes:
        with town.store.signed_in() as connection:
            return Attributes.read(connection, tracklets).of_identities(ids, tracklets, counts)

    assert not known().known.any() and not known().matching(WantedAttributes.parse("bag")).any()
    assert known().terms(0) is None
    recognize(town, recognizer)
    found = known()
    assert found.known.all()
    bag, no_bag = (found.matching(WantedAttributes.parse(said)) for said in ("bag", "no bag"))
    assert (bag != no_bag).all() and bag.any() and no_bag.any()
    crops = "SELECT count(*), avg(a.bag), array_agg(a.top ORDER BY a.top) FROM identity i JOIN identity_member m "
    crops += "ON m.identity_id = ANY(i.tracklets) JOIN crop_attributes a ON a.crop_id = m.crop_id WHERE i.id = :id"
    for row, one in enumerate(people):
        ((many, mean, tops),) = rows(town.store, crops, id=one)
        assert isinstance(tops, list)
        assert (found.crops[row], found.colors[row].sum()) == (many, 2 * int(str(many)))
        assert found.agreement(WantedAttributes.parse("bag"))[row] == pytest.approx(mean)
        assert bag[row] == (float(str(mean)) >= 0.5)
        color = min(set(tops), key=lambda one: (-tops.count(one), one))
        assert found.matching(WantedAttributes.parse(f"{color} top"))[row]
        terms = found.terms(row)
        assert terms is not None and terms[0] == f"{color} top" and ("bag" in terms) == bag[row]
        assert found.matching(WantedAttributes.parse(", ".join(terms)))[row]
    both = found.rows(ids[:1] == ids).with_more(found.rows(ids != ids[0]))
    assert np.array_equal(both.ids, ids) and np.array_equal(both.has, found.has)


def test_they_go_with_the_crops_that_they_are_of(town: Town, recognizer: AttributeRecognizer) -> None:
    recognize(town, recognizer)
    ((person,), *_) = rows(town.store, "SELECT persistent_id FROM identity_now WHERE unit = 'd1' ORDER BY crops DESC")
    own = "SELECT m.crop_id FROM identity_now i JOIN identity_member m ON m.identity_id = ANY(i.tracklets) "
    own += "WHERE i.persistent_id = :person"
    crops = [row[0] for row in rows(town.store, own, person=person)]
    there = "SELECT count(*) FROM crop_attributes WHERE crop_id = ANY(:crops)"
    assert rows(town.store, there, crops=crops) != [(0,)]
    ((before,),) = rows(town.store, "SELECT count(*) FROM crop_attributes")
    erase(town.store, "identity", [str(UUID(str(person)))], actor="anna", reason="asked for")
    assert rows(town.store, there, crops=crops) == [(0,)]
    ((after,),) = rows(town.store, "SELECT count(*) FROM crop_attributes")
    assert 0 < int(str(after)) < int(str(before))
    assert recognize(town, recognizer) == 0


def test_an_undone_ingest_takes_them_back_and_the_next_one_brings_them(
    town: Town, recognizer: AttributeRecognizer, lines: list[str]
) -> None:
    recognize(town, recognizer)
    ((batch, before),) = rows(
        town.store, "SELECT min(b.id), (SELECT count(*) FROM crop_attributes) FROM ingest_batch b"
    )
    undo(town.store, town.crops, int(str(batch)), operator="anna", reason="wrong camera")
    assert rows(town.store, "SELECT count(*) FROM crop_attributes") == [(0,)]
    town.resolve()
    assert recognize(town, recognizer) == 0
    town.take_in(lines[:100])
    town.resolve()
    assert recognize(town, recognizer) == before


def test_a_resolve_recognizes_them_where_the_home_has_a_model(town: Town, lines: list[str]) -> None:
    keep_attribute_network(town.store.settings.attributes_dir)
    town.take_in(lines[:60])
    with working(town.store.settings):
        digest = call_unreported(district, ResolveParameters(unit="d1")).digest
        ((many,),) = rows(town.store, "SELECT count(*) FROM crop_attributes")
        assert int(str(many)) > 0
        assert call_unreported(district, ResolveParameters(unit="d1")).digest == digest
    assert rows(town.store, "SELECT count(*) FROM crop_attributes") == [(many,)]


def test_what_is_wanted_is_read_from_words() -> None:
    wanted = WantedAttributes.parse(" Red  top, long trousers, no hat,blue bottom ")
    assert (wanted.top, wanted.bottom, wanted.has) == ("red", "blue", {"long trousers": True, "hat": False})
    assert wanted.terms == ("red top", "blue bottom", "no hat", "long trousers")
    assert WantedAttributes.parse(", ".join(wanted.terms)) == wanted
    assert wanted.disagree == pytest.approx(1 - 0.57 * 0.64 * 0.72 * 0.99)
    for said in ("", ",", "male", "a man", "old", "red", "red hat", "no red top", "bag, no bag", "red top, blue top"):
        with pytest.raises(InputError, match=r"is no attribute|no attribute is named"):
            WantedAttributes.parse(said)
