"""The models that this home knows: files under `models/NAME`, a row each, and one of them in use.

A model's row and folder never change: another content needs another name. Its card's calibrations become rows, to
which later ones are added.
"""

import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, Row, text

from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from reid_core.files import model_digest, read_card, write_card
from reid_core.tensors import refuse_pickles
from schemas.calibration import LevelCalibration
from schemas.cards import InputConvention, ModelCard
from schemas.errors import HomeError, InputError, ModelChanged, ModelFileError
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
        """Its folder in this home, for `open_core`."""
        return settings.models_dir / self.name


def register_model(
    store: Store, settings: Settings, source: Path, name: str, convention: InputConvention | None = None
) -> int:
    """Copy a model into this home, and write its row and its card's calibrations; returns its id.

    `source`: a model directory, or an OpenVINO .xml or .onnx file with its `convention` (the default one if None). The
    same content again under the same name writes nothing. Raises InputError, ModelFileError, CoreError and HomeError;
    then nothing is left behind.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} is no model name: 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
        )
    with _copied(settings, source, name, convention) as (folder, card), store.begin() as connection:
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
        # Last in the transaction: a folder without a row is replaced by the next try, a row without folder is broken.
        _move_into_place(folder, settings.models_dir / name)
    return model_id


def models(store: Store) -> list[ModelRow]:
    """All registered models by name."""
    with store.begin() as connection:
        return [_row(row) for row in connection.execute(text(f"{_SELECT} ORDER BY name"))]


def find_model(connection: Connection, name: str) -> ModelRow:
    """Raises InputError naming the nearest."""
    found = {row.name: _row(row) for row in connection.execute(text(_SELECT))}
    if name not in found:
        near = ", ".join(get_close_matches(name, found, cutoff=0.4)) or ", ".join(sorted(found)[:10]) or "none yet"
        raise InputError(f"no model {name[:80]!r} is registered; there are: {near}")
    return found[name]


def model_by_id(connection: Connection, model_id: int) -> ModelRow:
    return _row(connection.execute(text(f"{_SELECT} WHERE id = :id"), {"id": model_id}).one())


def use_model(store: Store, name: str) -> ModelRow:
    """Make one model the one in use, in a city of which nothing is resolved with another one yet.

    Raises InputError for a name that is not there, and where `promote` is the way.
    """
    with store.begin() as connection:
        lock_model_in_use(connection)
        model = find_model(connection, name)
        if not model.in_use:
            if connection.scalar(text("SELECT EXISTS (SELECT FROM run)")):
                raise InputError(
                    f"this city is resolved with model {model_in_use(connection).name}; `urban-reid models promote "
                    f"{name}` embeds its crops with {name} first, so that nobody who was seen is lost"
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
    """Puts `model` in use, in the transaction of a caller that called `lock_model_in_use` before anything else."""
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
    """Until the transaction ends, no other model comes into use but by it, and no window is resolved.

    An advisory lock: those who share it queue behind whoever waits to take it alone, which a row lock does not give
    (docs/decisions/model-lock.md).
    """
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def hold_model_in_use(connection: Connection, model: ModelRow) -> None:
    """Until the transaction ends, `model` stays the one in use; others may hold it too. Raises ModelChanged."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock_shared({_LOCK})"))
    check_model_in_use(connection, model)


def check_model_in_use(connection: Connection, model: ModelRow) -> None:
    """Raises ModelChanged unless `model` is the one in use."""
    if not connection.execute(text("SELECT in_use FROM model WHERE id = :id"), {"id": model.id}).scalar_one():
        raise ModelChanged(f"another model than {model.name} came into use meanwhile; run it again")


def model_in_use(connection: Connection) -> ModelRow:
    """The model that crops are embedded with. Raises InputError when none is in use."""
    row = connection.execute(text(f"{_SELECT} WHERE in_use")).one_or_none()
    if row is None:
        raise InputError(
            "no model is in use; `urban-reid models list` shows them, `urban-reid models use NAME` takes one"
        )
    return _row(row)


_LOCK = "hashtextextended('urban_reid model in use', 0)"
_SELECT = "SELECT id, name, digest, dims, card, in_use FROM model"


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


@contextmanager
def _copied(
    settings: Settings, source: Path, name: str, convention: InputConvention | None
) -> Iterator[tuple[Path, ModelCard]]:
    """A temporary folder in this home's models with the model's files and its card under `name`, tried out."""
    from reid_core.serving.foreign import foreign_card, foreign_files
    from reid_core.serving.local import LocalCore

    if source.is_dir():
        if convention is not None:
            raise InputError(f"{source}: a model directory's card has its input convention; give none")
        card = read_card(source).model_copy(update={"name": name})
        files = [source / file for file in card.sha256]
    else:
        if not source.is_file():
            raise InputError(f"{source}: no such file or model directory")
        refuse_pickles(source)
        card = foreign_card(source, name, convention or InputConvention(), settings)
        files = foreign_files(source)
    folder = settings.models_dir / f".{name}.{uuid.uuid4().hex}"
    try:
        try:
            folder.mkdir(parents=True)
            for file in files:
                shutil.copyfile(file, folder / file.name)
            write_card(card, folder)
        except OSError as error:
            raise HomeError(f"{folder.parent}: cannot keep the model there: {error.strerror}") from None
        core = LocalCore.open(settings.model_copy(update={"batch_size": 1}), folder)
        if card.engine != "none":
            # One gray picture through the copy: damaged weights are found here and not in the first run.
            core.embed(np.full((1, card.input.height, card.input.width, 3), 128, np.uint8))
        yield folder, card
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_into_place(folder: Path, place: Path) -> None:
    """Rename `folder` to `place`, unless an intact copy of the same model lies there."""
    try:
        if model_digest(read_card(place)) == model_digest(read_card(folder)):
            return
    except ModelFileError:
        pass  # nothing there, or damaged: replaced below
    try:
        shutil.rmtree(place, ignore_errors=True)
        folder.rename(place)
    except OSError as error:
        raise HomeError(f"{place}: cannot keep the model there: {error.strerror}") from None
