"""Models that are a feature space on another model, their base: their folders and rows.

Such a folder holds the base's files beside the space's, so that it is a whole model wherever it is copied to.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, check_name, find_model, model_by_id, register_model
from pipeline.resolve.embed import any_missing, embed_camera
from pipeline.spaces.learning import Basis, LearnedSpace, learn_space
from pipeline.store import Store
from reid_core.files import base_card, read_card, write_card
from reid_core.serving.core import ReIDCore
from schemas.cards import ModelCard, SpaceSource
from schemas.city_file import unknown_unit
from schemas.errors import InputError, ModelFileError


@dataclass(frozen=True)
class Normalized:
    """A registered feature space, and what it was learned from."""

    model: ModelRow
    base: ModelRow
    learned: LearnedSpace


def normalize(
    store: Store,
    crops: CropStore,
    open_core: Callable[[ModelRow], ReIDCore],
    base: str,
    unit: str,
    name: str,
    basis: Basis = "none",
    on_step: Callable[[str], None] = lambda _: None,
) -> Normalized:
    """Learns the unit's feature space of the model `base` from its crops up to now, and registers it as `name`.

    Crops without a feature of the base are embedded first. Nothing else changes, and later crops do not change it. The
    same stored features give the same files, so that the same call again writes nothing. Raises InputError, CityError
    for an unknown unit, and what `register_model` raises.
    """
    check_name(name)
    city = read_city(store)
    with store.begin() as connection:
        model = find_model(connection, base)
        if model.base_id is not None:
            raise InputError(
                f"{base} is a feature space itself; normalize its base, {model_by_id(connection, model.base_id).name}"
            )
    known = {one.code for one in city.units}
    if unit not in known:
        raise unknown_unit(unit, known)
    cameras = [one.code for one in city.cameras(unit)]
    core = open_core(model)
    with store.begin() as connection:
        missing = any_missing(connection, model, cameras)
    if missing:
        for number, camera in enumerate(cameras, 1):
            embed_camera(store, core, crops, model, camera)
            on_step(f"camera {number} of {len(cameras)}: features")
    learned = learn_space(store, core, model, cameras, basis)
    on_step(f"{sum(learned.tracklets.values())} tracklets of {len(learned.tracklets)} cameras")
    row = register_space(store, model, learned, name, basis, f"crops of {unit}")
    return Normalized(row, model, learned)


def register_space(
    store: Store, base: ModelRow, learned: LearnedSpace, name: str, basis: Basis, learned_from: str
) -> ModelRow:
    """Registers a learned space on `base` as the model `name`. learned_from: its crops, in words."""
    directory = base.directory(store.settings)
    with _temporary() as folder:
        card = read_card(directory)
        for file in card.sha256:
            shutil.copyfile(directory / file, folder / file)
        hashes = learned.space.save(folder)
        source = SpaceSource(
            base=base.digest.hex(),
            dims=card.dims,
            diff_attention=card.diff_attention,
            basis=basis,
            learned_from=learned_from,
            crops=learned.crops,
            tracklets=learned.tracklets,
        )
        derived = base_card(card).model_copy(
            update={
                "name": name,
                "dims": learned.space.dims_out,
                "diff_attention": None,
                "feature_space": source,
                "metrics": {},
                "calibration": (),
                "search_calibration": (),
                "operating_point": None,
                "sha256": {**card.sha256, **hashes},
            }
        )
        write_card(ModelCard.model_validate(derived.model_dump()), folder)
        register_model(store, store.settings, folder, name)
    with store.begin() as connection:
        return find_model(connection, name)


@contextmanager
def base_directory(directory: Path) -> Iterator[Path]:
    """A temporary model directory of the base of the feature space in `directory`. Raises ModelFileError."""
    card = read_card(directory)
    if card.feature_space is None:
        raise ModelFileError(f"{directory}: is no feature space")
    base = base_card(card)
    with _temporary() as folder:
        for file in base.sha256:
            shutil.copyfile(directory / file, folder / file)
        write_card(base, folder)
        yield folder


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="urban-reid-space-") as folder:
        yield Path(folder)
