"""Whose mean each camera takes in a feature space."""

from dataclasses import dataclass

from pipeline.city.units import find_city
from pipeline.registry import ModelRow
from pipeline.store import Store
from reid_core.files import open_space


@dataclass(frozen=True)
class CameraMean:
    camera: str
    unit: str  # whose mean it takes: itself, the nearest unit above it that has one, or "" for that of everything
    tracklets: int  # behind a mean of its own


def camera_means(store: Store, model: ModelRow) -> list[CameraMean]:
    """For each camera of the city, by code; empty for a model that is no feature space. Raises ModelFileError."""
    space, city = open_space(model.directory(store.settings), model.card), find_city(store)
    if space is None or model.card.feature_space is None or city is None:
        return []
    tracklets = model.card.feature_space.tracklets
    return [CameraMean(one.code, space.unit_of(one.code), tracklets.get(one.code, 0)) for one in city.cameras()]


def borrowed_means(store: Store, model: ModelRow) -> dict[str, str]:
    """The cameras without a mean of their own, and the unit whose mean each takes."""
    return {one.camera: one.unit for one in camera_means(store, model) if one.unit != one.camera}
