"""Whole cities for benchmarks, rendered or simulated, and how well their identities fit the truth."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

import reid_core
from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import agreement_by_level
from pipeline.calibration.labeled_pairs import tracklet_truths, wrong_joins
from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import ModelRow, register_model, use_model
from pipeline.simulation import ingest_simulated
from pipeline.store import Store
from schemas.levels import UPWARD, Level
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city
from synthetic.rendered_city import SimulatedCity, write_city


def seeds_of(text: str) -> Iterable[int]:
    """The seeds that `text` names, such as 1-10 or 11,12."""
    first, _, last = text.partition("-")
    return range(int(first), int(last) + 1) if last else map(int, text.split(","))


def simulated(cameras: int, hours: float, seed: int) -> EmbeddingCitySettings:
    return replace(EmbeddingCitySettings(cameras=cameras, seed=seed), days=hours / 24)


def fill(store: Store, city: SimulatedCity | EmbeddingCitySettings) -> ModelRow:
    """Takes in a rendered or a simulated city; returns the packaged model, in use."""
    if isinstance(city, EmbeddingCitySettings):
        return ingest_simulated(store, embedding_city(city))
    take_in(store, write_city(city, Path(store.settings.home) / "input"))
    register_model(store, store.settings, reid_core.DEMO_MODEL, "demo")
    return use_model(store, "demo")


def take_in(store: Store, manifest: Path) -> None:
    """Takes in the crops of a manifest and the city file beside it."""
    store_city(store, read_city_file(manifest.with_name("city.yaml")))
    ingest_manifest(store, CropStore(store.settings), manifest)


def agreement(store: Store, model: ModelRow) -> dict[Level, list[str]]:
    """Of each level of the resolved district d1: pairwise F1, precision / recall, wrong joins of all, as cells."""
    found_of = agreement_by_level(labeled_tracklets(store, "d1", model.id), {})
    with store.begin() as connection:
        truth = tracklet_truths(connection)
    rows = {}
    for level in UPWARD[1:]:
        found, wrong = found_of[level.value], wrong_joins(store, "d1", level, truth)[0]
        both = f"{found['precision']:.3f} / {found['recall']:.3f}"
        rows[level] = [f"{found['pairwise_f1']:.3f}", both, f"{int(np.sum(wrong))} of {len(wrong)}"]
    return rows
