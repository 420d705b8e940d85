"""The registered models: a row in the database and a folder `models/NAME` for each, and one of them in use.

What a model computes never changes: another content needs another name. The calibrations of its card become rows, and
later calibrations are added to them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection, Row, text

from pipeline.governance.audit import Action, audit
from pipeline.model_folders import copied_model, is_whole, move_into_place, renamed_model, take_away
from pipeline.store import Store
from reid_core.files import model_digest
from schemas.calibration import LevelCalibration
from schemas.cards import InputConvention, ModelCard
from schemas.errors import HomeError, InputError, ModelChanged
from schemas.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ModelRow:
    """A registered model."""

    id: int
    name: str
    digest: bytes
    dims: int
    card: ModelCard
    in_use: bool

    def directory(self, settings: Settings) -> Path:
        """Its model directory, for `open_core`."""
        return settings.models_dir / self.name


def register_model(
    store: Store, settings: Settings, source: Path, name: str, convention: InputConvention | None = None
) -> int:
    """Copies a model into this home after a trial, and writes its row and its card's calibrations; returns its id.

    `source`: a model directory, or an OpenVINO .xml or .onnx file, with the parts of its `convention` that it does not
    state itself. The same content again under the same name writes nothing. Raises InputError, ModelFileError,
    VectorError, CoreError and HomeError; then nothing is left behind.
    """
    _check_name(name)
    with copied_model(settings, source, name, convention) as (folder, card), store.begin() as connection:
        _lock_folders(connection)
        digest = model_digest(card)
        known = connection.execute(
            text("SELECT id, name, digest FROM model WHERE name = :name OR digest = :digest"),
            {"name": name, "digest": digest},
        ).all()
        for row in known:
            if bytes(row.digest) != digest:
                raise InputError(
                    f"another model is registered as {name}, and models do not change; choose another name"
                )
            if row.name != name:
                raise InputError(f"{source}: this model is registered already, as {row.name}; use that name")
        model_id = int(known[0].id) if known else _insert(connection, settings, card, digest)
        place = settings.models_dir / name
        if not (known and is_whole(place, digest)):
            move_into_place(folder, place)
    return model_id


def rename_model(store: Store, old: str, new: str) -> None:
    """Gives a registered model another name, in its row, its card and its folder, and writes it to the audit.

    Raises InputError for a name that is not registered, not valid or taken, ModelFileError for a damaged model, and
    HomeError; then nothing is changed.
    """
    _check_name(new)
    settings = store.settings
    with store.begin() as connection:
        _lock_folders(connection)
        model = find_model(connection, old)
        if connection.execute(text("SELECT FROM model WHERE name = :new"), {"new": new}).one_or_none() is not None:
            raise InputError(f"a model is registered as {new} already; choose another name")
        connection.execute(
            text("UPDATE model SET name = :new, card = CAST(:card AS jsonb) WHERE id = :id"),
            {"new": new, "card": model.card.model_copy(update={"name": new}).model_dump_json(), "id": model.id},
        )
        details = {"before": old, "model": new, "digest": model.digest.hex()}
        audit(connection, settings.operator, Action.MODEL_RENAME, details=details)
        with renamed_model(settings, model.directory(settings), new) as folder:
            move_into_place(folder, settings.models_dir / new)
    _take_away_unregistered(store, old)
    training = settings.training_dir(old)
    try:
        if training.is_dir() and not settings.training_dir(new).exists():
            training.rename(settings.training_dir(new))
    except OSError as error:
        raise HomeError(f"{training}: cannot be renamed: {error.strerror}") from None


def remove_model(store: Store, name: str) -> None:
    """Removes a model that nothing refers to: its row, the calibrations of its card, its comparisons and its folders.

    Writes it to the audit. Raises InputError for a name that is not registered and for a model that something refers
    to, and says what.
    """
    settings = store.settings
    with store.begin() as connection:
        lock_model_in_use(connection)
        model = find_model(connection, name)
        if found := references(connection, model):
            raise InputError(f"model {name} cannot be removed: {', '.join(found)}")
        connection.execute(text("SELECT remove_model(:id)"), {"id": model.id})
        details = {"model": name, "digest": model.digest.hex()}
        audit(connection, settings.operator, Action.MODEL_REMOVE, details=details)
    _take_away_unregistered(store, name)
    _take_away(settings.training_dir(name))


def references(connection: Connection, model: ModelRow) -> list[str]:
    """What refers to a model besides itself, in words; empty if it can be removed."""
    found = ["it is in use"] if model.in_use else []
    for words, query in _REFERENCES.items():
        if connection.scalar(text(f"SELECT EXISTS ({query})"), {"id": model.id, "own": len(model.card.calibration)}):
            found.append(words)
    return found


def models(store: Store) -> list[ModelRow]:
    """All registered models by name."""
    with store.begin() as connection:
        return [_row(row) for row in connection.execute(text(f"{_SELECT} ORDER BY name"))]


def find_model(connection: Connection, name: str) -> ModelRow:
    """The registered model of this name. Raises InputError that names the most similar ones."""
    found = {row.name: _row(row) for row in connection.execute(text(_SELECT))}
    if name not in found:
        near = ", ".join(get_close_matches(name, found, cutoff=0.4)) or ", ".join(sorted(found)[:10]) or "none yet"
        raise InputError(f"no model {name[:80]!r} is registered; there are: {near}")
    return found[name]


def model_by_id(connection: Connection, model_id: int) -> ModelRow:
    return _row(connection.execute(text(f"{_SELECT} WHERE id = :id"), {"id": model_id}).one())


def use_model(store: Store, name: str) -> ModelRow:
    """Puts a model in use, in a city in which no window is resolved yet, or only with this model.

    Raises InputError for a name that is not registered, and if windows are resolved with another model.
    """
    with store.begin() as connection:
        lock_model_in_use(connection)
        model = find_model(connection, name)
        if not model.in_use:
            if connection.scalar(text("SELECT EXISTS (SELECT FROM run)")):
                raise InputError(
                    f"this city is resolved with model {model_in_use(connection).name}; `urban-reid models promote "
                    f"{name}` embeds its crops with {name} first, so that no identity is lost"
                )
            switch_model(connection, SwitchKind.USE, model, store.settings.operator)
        return replace(model, in_use=True)


class SwitchKind(StrEnum):
    """How a model came into use."""

    USE = "use"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


def insert_calibration(connection: Connection, model_id: int, calibration: LevelCalibration) -> None:
    """Makes `calibration` the newest of its level and the model, in the connection's transaction."""
    connection.execute(
        text(
            "INSERT INTO calibration (model_id, level, parameters) "
            "VALUES (:model, CAST(:level AS unit_level), CAST(:parameters AS jsonb))"
        ),
        {"model": model_id, "level": calibration.level.value, "parameters": calibration.model_dump_json()},
    )


def switch_model(
    connection: Connection,
    kind: SwitchKind,
    model: ModelRow,
    operator: str,
    reason: str | None = None,
    *,
    forced: bool = False,
    details: Mapping[str, object] | None = None,
) -> None:
    """Puts `model` in use, in a transaction whose first statement was `lock_model_in_use`."""
    connection.execute(text("UPDATE model SET in_use = false WHERE in_use"))
    connection.execute(text("UPDATE model SET in_use = true WHERE id = :id"), {"id": model.id})
    connection.execute(
        text(
            "INSERT INTO model_switch (kind, model_id, operator, reason, forced) "
            "VALUES (CAST(:kind AS model_switch_kind), :model, :operator, :reason, :forced)"
        ),
        {"kind": kind.value, "model": model.id, "operator": operator, "reason": reason, "forced": forced},
    )
    said = {"model": model.name, "digest": model.digest.hex()} | ({"forced": True} if forced else {})
    audit(connection, operator, Action(f"model.{kind}"), reason=reason, details=said | dict(details or {}))


def lock_model_in_use(connection: Connection) -> None:
    """Until the transaction ends, only it can put another model in use, and no window is resolved.

    An advisory lock, because those who share it queue behind one who waits for it exclusively; behind a row lock they
    do not (docs/decisions/model-lock.md).
    """
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def hold_model_in_use(connection: Connection, model: ModelRow) -> None:
    """Until the transaction ends, `model` stays in use; several may hold it. Raises ModelChanged if another is."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock_shared({_LOCK})"))
    check_model_in_use(connection, model)


def check_model_in_use(connection: Connection, model: ModelRow) -> None:
    """Raises ModelChanged unless `model` is the one in use."""
    if not connection.execute(text("SELECT in_use FROM model WHERE id = :id"), {"id": model.id}).scalar_one():
        raise ModelChanged(f"model {model.name} is no longer in use, another one is; run the command again")


def model_in_use(connection: Connection) -> ModelRow:
    """The model that crops are embedded with. Raises InputError when none is in use."""
    row = connection.execute(text(f"{_SELECT} WHERE in_use")).one_or_none()
    if row is None:
        raise InputError(
            "no model is in use; `urban-reid models list` shows them, `urban-reid models use NAME` puts one in use"
        )
    return _row(row)


_LOCK = "hashtextextended('urban_reid model in use', 0)"
_SELECT = "SELECT id, name, digest, dims, card, in_use FROM model"
#: What keeps a model from being removed, in words, and the query that finds it.
_REFERENCES = {
    "it was in use before": "SELECT FROM model_switch WHERE model_id = :id",
    "crops are embedded with it": "SELECT FROM crop_embedding WHERE model_id = :id",
    "windows are resolved with it": "SELECT FROM run WHERE model_id = :id",
    "identities have prototypes of it": "SELECT FROM prototype WHERE model_id = :id",
    "searches used it": "SELECT FROM search_request WHERE model_id = :id "
    "UNION ALL SELECT FROM search_hit WHERE model_id = :id",
    "other models are compared with it": "SELECT FROM model_comparison WHERE against_id = :id",
    "it has calibrations that were learned here": "SELECT FROM calibration WHERE model_id = :id OFFSET :own",
}


def _row(row: Row[tuple[int, str, memoryview, int, dict[str, object], bool]]) -> ModelRow:
    return ModelRow(row.id, row.name, bytes(row.digest), row.dims, ModelCard.model_validate(row.card), row.in_use)


def _insert(connection: Connection, settings: Settings, card: ModelCard, digest: bytes) -> int:
    model_id: int = connection.execute(
        text(
            "INSERT INTO model (name, digest, dims, card) "
            "VALUES (:name, :digest, :dims, CAST(:card AS jsonb)) RETURNING id"
        ),
        {"name": card.name, "digest": digest, "dims": card.dims, "card": card.model_dump_json()},
    ).scalar_one()
    for calibration in card.calibration:
        insert_calibration(connection, model_id, calibration)
    audit(connection, settings.operator, Action.MODEL_REGISTER, details={"model": card.name, "digest": digest.hex()})
    return model_id


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} is not a valid model name: use 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or "
            "digit"
        )


def _lock_folders(connection: Connection) -> None:
    """Until the transaction ends, no other process changes the folders of registered models."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('urban_reid model folders', 0))"))


def _take_away_unregistered(store: Store, name: str) -> None:
    """Removes a model's folder after its row was committed to be gone, unless another one has the name by now."""
    with store.begin() as connection:
        _lock_folders(connection)
        if connection.execute(text("SELECT FROM model WHERE name = :name"), {"name": name}).one_or_none() is None:
            _take_away(store.settings.models_dir / name)


def _take_away(folder: Path) -> None:
    try:
        take_away(folder)
    except OSError as error:
        raise HomeError(f"{folder}: cannot be removed: {error.strerror}; remove it by hand") from None
