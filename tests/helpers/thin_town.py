"""A simulated city without pictures: ingested within a second, with joins, merges and splits at each level."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.city.units import store_city
from pipeline.ingest.features import take_in_features
from pipeline.registry import ModelRow, register_model, use_model
from pipeline.resolve import resolve_unit, units_within
from pipeline.resolve.runs import UnitResult
from pipeline.store import Store
from reid_core.files import write_card
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.arrays import Ints
from schemas.calibration import LevelCalibration, straight_line
from schemas.cards import ModelCard
from schemas.city_file import City
from schemas.levels import UPWARD
from schemas.parameters import Period
from synthetic.embedding_city import EmbeddingCitySettings, PassageBatch, embedding_city

#: Slope and intercept of the log-odds: uncertain enough that some joins are undone later.
SLOPE, INTERCEPT = 14.0, 15.0


@dataclass(frozen=True)
class Crowd:
    """A city and all its crops, by time."""

    city: City
    cameras: tuple[str, ...]
    crops: PassageBatch

    def take(self, rows: Ints) -> PassageBatch:
        return PassageBatch(**{name: column[rows] for name, column in vars(self.crops).items()})


def crowd(cameras: int = 20, people: int = 50, days: float = 0.15, seed: int = 1) -> Crowd:
    simulated = embedding_city(EmbeddingCitySettings(cameras=cameras, people=people, days=days, seed=seed))
    batches = [batch for batch in simulated.batches() if len(batch)]
    columns = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in vars(batches[0])}
    whole = Crowd(simulated.city, simulated.camera_codes, PassageBatch(**columns))
    return replace(whole, crops=whole.take(np.argsort(whole.crops.time_us, kind="stable")))


def calibrations(slope: float, intercept: float, transit: float) -> tuple[LevelCalibration, ...]:
    """The same calibration for each level."""
    return tuple(
        LevelCalibration(
            level=level,
            terms=straight_line(slope, intercept).model_copy(update={"transit": transit}),
            join_log_odds=0.0,
            review_log_odds=-1.0,
            fitted_on="nothing",
            pairs=0,
            positives=0,
        )
        for level in UPWARD[1:]
    )


class ThinTown:
    """A store with a crowd's city, and a model whose features come with the crops."""

    def __init__(
        self,
        store: Store,
        crowd: Crowd,
        *,
        slope: float = SLOPE,
        intercept: float = INTERCEPT,
        transit: float = 1.0,
        calibrated: bool = True,
    ) -> None:
        self.store, self.crowd = store, crowd
        store_city(store, crowd.city)
        card = ModelCard(
            name="thin",
            engine="none",
            dims=crowd.crops.features.shape[1],
            architecture="foreign",
            baseline="foreign",
            calibration=calibrations(slope, intercept, transit) if calibrated else (),
            sha256={},
        )
        with tempfile.TemporaryDirectory() as folder:
            write_card(card, Path(folder))
            register_model(store, store.settings, Path(folder), "thin")
        self.model: ModelRow = use_model(store, "thin")
        self.core: ReIDCore = open_core(store.settings, self.model.directory(store.settings))

    def take_in(self, rows: Ints | None = None) -> None:
        """Stores these rows of the crowd's crops, or all."""
        crops = self.crowd.crops if rows is None else self.crowd.take(rows)
        take_in_features(self.store, self.model, self.crowd.cameras, crops)

    def resolve(self, units: Sequence[str] | None = None, period: Period | None = None) -> list[UnitResult]:
        settings = self.store.settings.association
        return [
            resolve_unit(self.store, self.core, self.model, code, settings=settings, period=period)
            for code in (units_within(self.store, "d1") if units is None else units)
        ]


def looks(*passages: tuple[str, float, float]) -> Crowd:
    """Tracklets of one crop each in one street: camera, second, and the direction of the feature in degrees.

    Cameras are b1/c1, b1/c2 and b2/c1; without a building they are of b1.
    """
    codes = tuple(f"d1/s1/{camera}" for camera in ("b1/c1", "b1/c2", "b2/c1"))
    above = ("d1", "d1/s1", "d1/s1/b1", "d1/s1/b2")
    city = City.model_validate({"units": [{"code": code} for code in (*above, *codes)]})
    n = len(passages)
    angles = np.radians([angle for _, _, angle in passages])
    crops = PassageBatch(
        camera=np.array(
            [codes.index(f"d1/s1/b1/{c}" if "/" not in c else f"d1/s1/{c}") for c, _, _ in passages], np.int32
        ),
        track=np.arange(n),
        time_us=1_767_225_600_000_000 + np.array([round(at * 1e6) for _, at, _ in passages]),
        person=np.arange(n),
        quality=np.full(n, 0.5, np.float32),
        features=np.stack([np.cos(angles), np.sin(angles)], axis=1),
    )
    return Crowd(city, codes, crops)
