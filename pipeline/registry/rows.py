"""The rows of registered models and of their calibrations."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sqlalchemy import Connection, Row, text

from pipeline.store import Store
from schemas.calibration import LevelCalibration, SearchCalibration
from schemas.cards import ModelCard
from schemas.errors import InputError
from schemas.settings import Settings

SELECT = "SELECT id, name, digest, dims, card, in_use, base_id FROM model"


@dataclass(frozen=True)
class ModelRow:
    """A registered model."""

    id: int
    name: str
    digest: bytes
    dims: int
    card: ModelCard
    in_use: bool
    base_id: int | None = None  # of a feature space: the model that it is computed from

    @property
    def features_id(self) -> int:
        """Id of the model under which the crops' raw features are stored: its base for a feature space, or its own."""
        return self.id if self.base_id is None else self.base_id

    def directory(self, settings: Settings) -> Path:
        """Its model directory, for `open_core`."""
        return settings.models_dir / self.name


def models(store: Store) -> list[ModelRow]:
    """All registered models by name."""
    with store.begin() as connection:
        return [row_of(row) for row in connection.execute(text(f"{SELECT} ORDER BY name"))]


def find_model(connection: Connection, name: str) -> ModelRow:
    """The registered model of this name. Raises InputError that names the most similar ones."""
    found = {row.name: row_of(row) for row in connection.execute(text(SELECT))}
    if name not in found:
        near = ", ".join(get_close_matches(name, found, cutoff=0.4)) or ", ".join(sorted(found)[:10]) or "none yet"
        raise InputError(f"no model {name[:80]!r} is registered; there are: {near}")
    return found[name]


def model_by_id(connection: Connection, model_id: int) -> ModelRow:
    return row_of(connection.execute(text(f"{SELECT} WHERE id = :id"), {"id": model_id}).one())


def insert_calibration(
    connection: Connection, model_id: int, calibration: LevelCalibration, learning_id: int | None = None
) -> None:
    """Makes `calibration` the newest of its level and the model, in the connection's transaction.

    learning_id: the row of `learning` that says for which unit and windows it holds; None: for all.
    """
    connection.execute(
        text(
            "INSERT INTO calibration (model_id, level, parameters, learning_id) "
            "VALUES (:model, CAST(:level AS unit_level), CAST(:parameters AS jsonb), :learning)"
        ),
        {
            "model": model_id,
            "level": calibration.level.value,
            "parameters": calibration.model_dump_json(),
            "learning": learning_id,
        },
    )


def insert_search_calibration(connection: Connection, model_id: int, calibration: SearchCalibration) -> None:
    """Makes `calibration` the newest of its level's searches and the model, in the connection's transaction."""
    connection.execute(
        text(
            "INSERT INTO calibration (model_id, level, purpose, parameters) "
            "VALUES (:model, CAST(:level AS unit_level), 'search', CAST(:parameters AS jsonb))"
        ),
        {"model": model_id, "level": calibration.level.value, "parameters": calibration.model_dump_json()},
    )


def row_of(row: Row[tuple[int, str, memoryview, int, dict[str, object], bool, int | None]]) -> ModelRow:
    card = ModelCard.model_validate(row.card)
    return ModelRow(row.id, row.name, bytes(row.digest), row.dims, card, row.in_use, row.base_id)
