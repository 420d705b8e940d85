"""Models that are a feature space on another model, their base: learned and registered.

Such a model's folder holds the base's files beside the space's, so that it is whole wherever it is copied to.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, check_name, find_model, model_by_id, register_model
from pipeline.resolve.embed import any_missing, embed_camera
from pipeline.spaces.learning import BasisSource, LearnedSpace, Unlabeled, basis_from, learn_space, teaching_people
from pipeline.store import Store
from reid_core.datasets import Dataset
from reid_core.feature_space import Basis
from reid_core.files import save_space
from reid_core.serving.core import ReIDCore
from schemas.city_file import unknown_unit
from schemas.errors import InputError


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
    basis: Unlabeled | Dataset = "none",
    on_step: Callable[[str], None] = lambda _: None,
) -> Normalized:
    """Learns the unit's feature space of the model `base` from its crops up to now, and registers it as `name`.

    basis: "none", "tracklets" of the same crops, or a labeled data set with training people, of whom those teach it
    who would not calibrate the model.

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
    kind: BasisSource
    given: Unlabeled | Basis
    if isinstance(basis, Dataset):
        people = teaching_people(basis, core.card.input)
        kind, given = "people", basis_from(core, people, on_step)
        learned_from = f"crops of {unit}; basis of {len(np.unique(people.identities))} people of {basis.source}"
    else:
        kind, given, learned_from = basis, basis, f"crops of {unit}"
    learned = learn_space(store, core, model, cameras, given)
    on_step(f"{sum(learned.tracklets.values())} tracklets of {len(learned.tracklets)} cameras")
    row = register_space(store, model, learned, name, kind, learned_from)
    return Normalized(row, model, learned)


def register_space(
    store: Store, base: ModelRow, learned: LearnedSpace, name: str, basis: BasisSource, learned_from: str
) -> ModelRow:
    """Registers a learned space on `base` as the model `name`. learned_from: its crops, in words."""
    with tempfile.TemporaryDirectory(prefix="urban-reid-space-") as folder:
        save_space(
            learned.space,
            base.directory(store.settings),
            Path(folder),
            name=name,
            basis=basis,
            learned_from=learned_from,
            crops=learned.crops,
            tracklets=learned.tracklets,
        )
        register_model(store, store.settings, Path(folder), name)
    with store.begin() as connection:
        return find_model(connection, name)
