"""A feature space is a model of its own: prepared beside its base, promoted, searched, rolled back, never mixed."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import store_city
from pipeline.city.watermarks import mark_everything
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.features import take_in_features
from pipeline.registry import (
    ModelRow,
    find_model,
    insert_calibration,
    insert_search_calibration,
    model_in_use,
    register_model,
    remove_model,
    rename_model,
)
from pipeline.resolve import resolve_unit, units_within
from pipeline.search.request import request_search
from pipeline.search.search import search
from pipeline.spaces.derived import normalize
from pipeline.spaces.overview import borrowed_means, camera_means
from pipeline.store import Store
from pipeline.store.copy import copy_out
from pipeline.store.embedded import EmbeddedServer
from pipeline.store.partitions import ensure_partitions
from pipeline.training.candidate import recipe_of
from pipeline.training.promotion import Promotion, promote, rollback
from reid_core import open_model
from reid_core.export.export import export_model
from reid_core.feature_space import FeatureSpace
from reid_core.files import model_digest, read_card, save_base
from reid_core.serving.core import ReIDCore, compared_features, symmetric_distances
from reid_core.serving.factory import open_core
from schemas.city_file import City
from schemas.errors import CityError, InputError, ModelFileError, StoreError
from schemas.parameters import SearchHit, SearchParameters, TrainParameters
from schemas.settings import Settings
from tests.helpers.homes import fresh_settings
from tests.helpers.thin_town import Crowd, ThinTown, calibrations, crowd
from tests.helpers.town import Town


def cores(store: Store) -> Callable[[ModelRow], ReIDCore]:
    return lambda model: open_core(store.settings, model.directory(store.settings))


def normalized(town: ThinTown | Town, name: str = "space", unit: str = "d1", **options: Any) -> ModelRow:
    store = town.store
    return normalize(store, CropStore(store.settings), cores(store), town.model.name, unit, name, **options).model


def calibrated(store: Store, model: ModelRow) -> ModelRow:
    """The model with a calibration that joins at the distances of a space."""
    with store.begin() as connection:
        for calibration in calibrations(14.0, 15.0, 1.0):
            insert_calibration(connection, model.id, calibration)
    return model


def promoted(town: ThinTown | Town, name: str, **options: Any) -> Promotion:
    crops = CropStore(town.store.settings)
    return promote(town.store, crops, cores(town.store), name, operator="anna", reason="a test", force=True, **options)


def resolve(store: Store) -> int:
    with store.begin() as connection:
        model = model_in_use(connection)
    core = cores(store)(model)
    settings = store.settings.association
    return sum(resolve_unit(store, core, model, unit, settings=settings).written for unit in units_within(store, "d1"))


def digest(store: Store) -> str:
    with store.begin() as connection:
        return decision_digest(connection, None)


def scalar(store: Store, sql: str, **parameters: Any) -> Any:
    with store.begin() as connection:
        return connection.scalar(text(sql), parameters)


def means_of_tracklets(store: Store, model: ModelRow) -> dict[int, np.ndarray]:
    query = "SELECT identity_id, v FROM prototype WHERE model_id = :model AND ordinal = 0 ORDER BY 1"
    with store.begin() as connection:
        rows = copy_out(connection, query, {"model": model.id}, {"identity_id": "int8", "v": "halfvec"})
    return dict(zip(np.asarray(rows["identity_id"]).tolist(), rows["v"], strict=True))


@pytest.fixture(scope="module")
def people() -> Crowd:
    return crowd(cameras=8, people=20, days=0.05)


@pytest.fixture(scope="module")
def resolved(server: EmbeddedServer, people: Crowd) -> Iterator[Settings]:
    """A resolved simulated city of a few people, which nobody is connected to."""
    with fresh_settings(server) as settings:
        with Store.open(settings, "pytest") as store:
            town = ThinTown(store, people)
            town.take_in()
            town.resolve()
        yield settings


@pytest.fixture
def thin(server: EmbeddedServer, resolved: Settings, people: Crowd) -> Iterator[ThinTown]:
    """A copy of it."""
    with fresh_settings(server, like=resolved) as settings, Store.open(settings, "pytest") as store:
        yield ThinTown(store, people)


def test_a_space_is_prepared_beside_its_base_switched_and_rolled_back(thin: ThinTown) -> None:
    store = thin.store
    stored = scalar(store, "SELECT count(*) FROM crop_embedding")
    decided = digest(store)
    space = calibrated(store, normalized(thin, basis="tracklets"))
    assert (space.base_id, space.features_id, space.in_use) == (thin.model.id, thin.model.id, False)
    assert digest(store) == decided and resolve(store) == 0  # nothing changes yet

    done = promoted(thin, "space")
    assert done.done.crops == 0 and done.done.identities > 0 and done.unknown == {}
    assert scalar(store, "SELECT count(*) FROM crop_embedding") == stored
    assert digest(store) == decided
    with store.begin() as connection:
        mark_everything(connection)
    assert resolve(store) == 0  # what was decided stands

    again = rollback(store, CropStore(store.settings), cores(store), operator="anna", reason="a test")
    assert (again.model, again.done.crops, again.done.identities) == ("thin", 0, 0)


def test_an_interrupted_promotion_goes_on(thin: ThinTown) -> None:
    store, decided = thin.store, digest(thin.store)
    calibrated(store, normalized(thin))

    class Killed(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        assert done <= total
        raise Killed

    with pytest.raises(Killed):
        promoted(thin, "space", progress=interrupt)
    made = scalar(
        store,
        "SELECT count(DISTINCT identity_id) FROM prototype p JOIN model m ON m.id = p.model_id "
        "WHERE m.base_id IS NOT NULL",
    )
    with store.begin() as connection:
        assert model_in_use(connection).name == "thin"
    assert made > 0 and digest(store) == decided
    done = promoted(thin, "space")
    assert done.unknown == {} and done.done.identities > 0 and digest(store) == decided


def test_prototypes_are_made_of_features_in_the_space(thin: ThinTown) -> None:
    """Each crop goes into the space before a prototype is made: the mean of points, not the point of the mean."""
    store = thin.store
    space = calibrated(store, normalized(thin))
    promoted(thin, "space")
    opened = FeatureSpace.open(space.directory(store.settings))
    assert {code for code in opened.units if code.count("/") == 3} <= set(thin.crowd.cameras)
    found = means_of_tracklets(store, space)
    query = (
        "SELECT m.identity_id, c.camera, c.quality, e.v FROM identity_member m JOIN crop c ON c.id = m.crop_id "
        "JOIN crop_embedding e ON e.crop_id = c.id ORDER BY m.identity_id, c.captured_at, c.key"
    )
    with store.begin() as connection:
        columns = {"identity_id": "int8", "camera": "text", "quality": "float4", "v": "halfvec"}
        rows = copy_out(connection, query, {}, columns)
    owners, quality = np.asarray(rows["identity_id"]), np.asarray(rows["quality"], np.float64)
    placed = opened.apply(np.asarray(rows["v"]), list(rows["camera"]))
    for owner in np.unique(owners).tolist()[:20]:
        its = owners == owner
        mean = quality[its] @ placed[its] / quality[its].sum()
        assert np.array_equal(np.asarray(found[owner], np.float16), mean.astype(np.float16))


def test_the_order_of_arrival_does_not_change_a_space_and_later_crops_do_not(thin: ThinTown, server: Any) -> None:
    first = normalized(thin, basis="tracklets")
    again = normalized(thin, basis="tracklets")
    assert again.id == first.id  # the same call writes nothing
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        other = ThinTown(store, thin.crowd)
        rows = np.arange(len(thin.crowd.crops))
        for part in reversed(np.array_split(rows, 4)):
            other.take_in(part)
        assert normalized(other, basis="tracklets").digest == first.digest
    folder = first.directory(thin.store.settings)
    assert FeatureSpace.open(folder).basis is not None
    card = read_card(folder)
    assert card.feature_space is not None and sum(card.feature_space.tracklets.values()) > 10
    assert card.feature_space.base == thin.model.digest.hex()


def test_resolving_with_a_space_decides_by_it_and_the_same_again(thin: ThinTown) -> None:
    """Two versions of a space never meet: every decision's distance is that of prototypes of its run's own model."""
    store = thin.store
    for name, basis in (("first", "none"), ("second", "tracklets")):
        calibrated(store, normalized(thin, name, basis=basis))
        promoted(thin, name)
        with store.begin() as connection:
            connection.execute(text("UPDATE run SET decide_again = true WHERE superseded_at IS NULL"))
            mark_everything(connection)
        assert resolve(store) > 0
    after = digest(store)
    assert scalar(store, "SELECT count(DISTINCT model_id) FROM run WHERE superseded_at IS NULL") == 1
    with store.begin() as connection:
        mark_everything(connection)
    assert resolve(store) == 0 and digest(store) == after

    with store.begin() as connection:
        second = model_in_use(connection)
    core = cores(store)(second)
    query = (
        "SELECT d.distance, a.v AS left_v, b.v AS right_v FROM match_decision d JOIN run r ON r.id = d.run_id "
        "JOIN LATERAL (SELECT i.id FROM identity i JOIN run o ON o.id = i.run_id WHERE i.key = d.left_key "
        "  AND o.superseded_at IS NULL ORDER BY i.id DESC LIMIT 1) AS l ON true "
        "JOIN LATERAL (SELECT i.id FROM identity i JOIN run o ON o.id = i.run_id WHERE i.key = d.right_key "
        "  AND o.superseded_at IS NULL ORDER BY i.id DESC LIMIT 1) AS g ON true "
        "JOIN prototype a ON a.identity_id = l.id AND a.ordinal = 0 AND a.model_id = r.model_id "
        "JOIN prototype b ON b.identity_id = g.id AND b.ordinal = 0 AND b.model_id = r.model_id "
        "WHERE r.superseded_at IS NULL AND r.level = 'building' ORDER BY d.id"
    )
    with store.begin() as connection:
        rows = copy_out(connection, query, {}, {"distance": "float8", "left": "halfvec", "right": "halfvec"})
    assert len(rows["distance"]) > 10
    left, right = (np.asarray(rows[side], np.float64) for side in ("left", "right"))
    assert core.distances(left, right) == pytest.approx(np.asarray(rows["distance"]), abs=1e-3)


@pytest.mark.parametrize("tracked", (True, False))
def test_somebody_who_loiters_hardly_moves_a_camera_s_mean(thin: ThinTown, tracked: bool) -> None:
    """Eighty crops of one person at one camera, each a track of its own, or without any: as a few crops would."""
    store, crops = thin.store, thin.crowd.crops
    camera = int(np.bincount(crops.camera).argmax())
    code = thin.crowd.cameras[camera]
    row = np.full(80, np.flatnonzero(crops.camera == camera)[0])
    loiterer = thin.crowd.take(row)
    noise = np.random.default_rng(0).normal(scale=0.02 * np.abs(loiterer.features).mean(), size=loiterer.features.shape)
    moved = replace(
        loiterer,
        track=10**6 + np.arange(80),
        time_us=crops.time_us.max() + 1_000_000 * np.arange(1, 81),
        features=(loiterer.features + noise).astype(loiterer.features.dtype),
    )
    before = FeatureSpace.open(normalized(thin, "before").directory(store.settings))
    take_in_features(store, thin.model, thin.crowd.cameras, moved)
    if not tracked:
        with store.begin() as connection:
            connection.execute(text("UPDATE crop SET track = NULL WHERE length(track) > 6"))
    after = normalized(thin, "after")
    assert after.card.feature_space is not None
    old, new = before, FeatureSpace.open(after.directory(store.settings))
    own = loiterer.features[0] / np.linalg.norm(loiterer.features[0])
    shift = new.means[new.units.index(code)] - old.means[old.units.index(code)]
    toward = own - old.means[old.units.index(code)]
    # Eighty votes beside those of the camera's own tracklets and its parent's 20 would go more than half of the way.
    own_tracklets = after.card.feature_space.tracklets[code] - 80
    assert 80 / (own_tracklets + 80 + 20) > 0.5
    assert np.linalg.norm(shift) < 0.15 * np.linalg.norm(toward)


def test_a_space_has_no_features_of_its_own(thin: ThinTown) -> None:
    store = thin.store
    space = normalized(thin)
    with pytest.raises(StoreError, match="is a feature space and has no features of its own"), store.begin() as held:
        ensure_partitions(held, "crop_embedding", space.id, [scalar(store, "SELECT min(day) FROM crop")])
    insert = (
        "INSERT INTO model (name, digest, dims, card, base_id) SELECT 'nested', sha256('nested'), dims, card, :base "
        "FROM model WHERE id = :base"
    )
    with pytest.raises(StoreError, match="foreign key"), store.begin() as connection:
        connection.execute(text(insert), {"base": space.id})


def test_a_base_stays_as_long_as_a_space_needs_it(thin: ThinTown) -> None:
    store = thin.store
    space = normalized(thin)
    with pytest.raises(InputError, match="feature spaces are computed from it"):
        remove_model(store, "thin")
    with pytest.raises(InputError, match="space is a feature space itself; normalize its base, thin"):
        normalize(store, CropStore(store.settings), cores(store), "space", "d1", "twice")
    rename_model(store, "space", "winter")
    rename_model(store, "thin", "base")
    with store.begin() as connection:
        winter, base = find_model(connection, "winter"), find_model(connection, "base")
    assert (winter.id, winter.digest, winter.base_id) == (space.id, space.digest, base.id)
    assert cores(store)(winter).space is not None
    remove_model(store, "winter")
    assert not winter.directory(store.settings).exists()


def test_what_cannot_be_learned_is_said(thin: ThinTown) -> None:
    with pytest.raises(CityError, match="d9"):
        normalized(thin, unit="d9")
    with pytest.raises(InputError, match="not a valid model name"):
        normalized(thin, "a b")
    with thin.store.begin() as connection:
        connection.execute(text("UPDATE crop SET withdrawn_at = now() WHERE camera <> 'd1/s1/b1/c1'"))
    with pytest.raises(InputError, match="0 tracklets of thin's features, where 10 are needed"):
        normalized(thin, unit="d1/s1/b1/c2")


def test_the_folder_of_a_space_holds_its_base_and_is_checked(thin: ThinTown, tmp_path: Path) -> None:
    folder = normalized(thin).directory(thin.store.settings)
    save_base(folder, tmp_path / "base")
    assert model_digest(read_card(tmp_path / "base")) == thin.model.digest
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "feature_space.json").write_text("{}")
    with pytest.raises(ModelFileError, match="SHA-256"):
        register_model(thin.store, thin.store.settings, damaged, "damaged")


def test_a_space_of_an_unknown_base_is_refused(thin: ThinTown, server: Any, tmp_path: Path) -> None:
    folder = normalized(thin).directory(thin.store.settings)
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as other:
        with pytest.raises(InputError, match="on a model that is not registered here"):
            register_model(other, settings, folder, "space")
        save_base(folder, tmp_path / "base")
        register_model(other, settings, tmp_path / "base", "base")
        register_model(other, settings, folder, "space")
        with other.begin() as connection:
            assert find_model(connection, "space").base_id == find_model(connection, "base").id


def test_a_camera_added_later_takes_the_mean_of_its_building_and_says_so(thin: ThinTown) -> None:
    store = thin.store
    space = normalized(thin)
    unseen = borrowed_means(store, space)  # a few cameras saw nobody
    assert camera_means(store, thin.model) == []
    units = [{"code": unit.code} for unit in thin.crowd.city.units]
    units += [{"code": "d1/s1/b1/later"}, {"code": "d2"}, {"code": "d2/s1"}, {"code": "d2/s1/b1"}]
    units += [{"code": "d2/s1/b1/c1"}]
    store_city(store, City.model_validate({"units": units}))
    assert borrowed_means(store, space) == {**unseen, "d1/s1/b1/later": "d1/s1/b1", "d2/s1/b1/c1": ""}
    own = [one for one in camera_means(store, space) if one.unit == one.camera]
    assert len(own) == 8 - len(unseen) > 3 and all(one.tracklets > 0 for one in own)
    core = cores(store)(space)
    raw = np.tile(np.linspace(1, 2, space.card.raw_dims), (2, 1))
    one, other = compared_features(core, raw, ["d1/s1/b1/later", "d1/s1/b1"])
    assert np.array_equal(one, other)


def test_what_knows_no_cameras_refuses_a_space(thin: ThinTown, tmp_path: Path) -> None:
    folder = normalized(thin).directory(thin.store.settings)
    refused = "space is a feature space, which needs to know the camera of each picture"
    with pytest.raises(InputError, match=refused):
        export_model(thin.store.settings, folder, tmp_path / "out", "openvino")
    with pytest.raises(InputError, match=refused):
        open_model(folder)
    words = {"name": "next", "dataset": "rendered:1", "operator": "anna", "reason": "a test"}
    with pytest.raises(InputError, match=refused):
        recipe_of(thin.store, TrainParameters.model_validate({**words, "start_from": "space"}))


# ---- pictures: a model that embeds


def find(town: Town, **probe: Any) -> tuple[SearchHit, ...]:
    store = town.store
    asked = SearchParameters(unit="d1", reason="a test", operator="me", top=200, **probe)
    with store.begin() as connection:
        model = model_in_use(connection)
    return search(store, cores(store), town.crops, model, request_search(store, model, asked), asked).hits


def test_searches_in_a_space_find_by_stored_crop_and_by_picture(town: Town, lines: list[str]) -> None:
    from pipeline.crops.crop_store import place_of_crop
    from pipeline.search.request import upload_probe

    town.take_in(lines[:80])
    town.resolve()
    store = town.store
    first = find(town, crop_key=scalar(store, "SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 1"))
    space = calibrated(store, normalized(town))
    with store.begin() as connection:
        for calibration in town.model.card.search_calibration:
            insert_search_calibration(connection, space.id, calibration)
    promoted(town, "space")
    row = None
    with store.begin() as connection:
        row = connection.execute(
            text("SELECT encode(key, 'hex') AS key, camera, captured_at, picture FROM crop ORDER BY key LIMIT 1")
        ).one()
    hits = find(town, crop_key=row.key)
    assert {hit.model for hit in hits} == {"space"} and {hit.identity for hit in hits} == {h.identity for h in first}
    distance, key = min((crop.distance or 0.0, crop.key) for hit in hits for crop in hit.crops)
    assert key == row.key and distance == pytest.approx(0.0, abs=1e-6)

    data = town.crops.get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
    probe = upload_probe(store, town.crops, data, "me")
    shown = find(town, probe_id=probe)
    assert {hit.identity for hit in shown} == {hit.identity for hit in hits}
    # The picture has no camera: it takes the mean of the unit that is searched.
    core = cores(store)(space)
    with store.begin() as connection:
        query = "SELECT e.v FROM crop_embedding e JOIN crop c ON c.id = e.crop_id WHERE c.key = :key"
        raw = np.asarray(copy_out(connection, query, {"key": bytes.fromhex(row.key)}, {"v": "halfvec"})["v"])
    own, of_unit = compared_features(core, np.repeat(raw, 2, axis=0), [row.camera, "d1"])
    near = min(crop.distance for hit in shown for crop in hit.crops if crop.distance is not None)
    assert near <= float(symmetric_distances(core, own[None], of_unit[None])[0]) + 1e-3
