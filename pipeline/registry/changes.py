"""Models registered, renamed and removed: row and folder together, each written to the audit."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from pipeline.governance.audit import Action, audit
from pipeline.registry.folders import copied_model, is_whole, move_into_place, renamed_model, take_away
from pipeline.registry.in_use import lock_model_in_use
from pipeline.registry.packaged import earlier_searches, is_packaged
from pipeline.registry.rows import ModelRow, find_model, insert_calibration, insert_search_calibration
from pipeline.store import Store
from reid_core.files import base_card, model_digest, write_card
from reid_core.speed.kept import is_measured
from schemas.cards import Arithmetic, InputConvention, ModelCard
from schemas.errors import HomeError, InputError
from schemas.settings import Settings

if TYPE_CHECKING:
    from reid_core.export.export import Labeled

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: What keeps a model from being removed, in words, and the query that finds it.
_REFERENCES = {
    "it was in use before": "SELECT FROM model_switch WHERE model_id = :id",
    "crops are embedded with it": "SELECT FROM crop_embedding WHERE model_id = :id",
    "windows are resolved with it": "SELECT FROM run WHERE model_id = :id",
    "identities have prototypes of it": "SELECT FROM prototype WHERE model_id = :id",
    "searches used it": "SELECT FROM search_request WHERE model_id = :id "
    "UNION ALL SELECT FROM search_hit WHERE model_id = :id",
    "other models are compared with it": "SELECT FROM model_comparison WHERE against_id = :id",
    "feature spaces are computed from it": "SELECT FROM model WHERE base_id = :id",
    "a calibration without labels was tried with it": "SELECT FROM learning WHERE model_id = :id",
    "it has calibrations that were learned here": "SELECT FROM calibration WHERE model_id = :id OFFSET :own",
}


def register_model(
    store: Store,
    settings: Settings,
    source: Path,
    name: str,
    convention: InputConvention | None = None,
    *,
    arithmetic: Arithmetic | None = None,
    labeled: "Callable[[InputConvention], Labeled] | None" = None,
) -> int:
    """Copies a model into this home after a trial, and writes its row and its card's calibrations; returns its id.

    `source`: a model directory, or an OpenVINO .xml or .onnx file, with the parts of its `convention` that it does not
    state itself. `arithmetic`: what its features are computed with; None: what is chosen now, and `labeled` reads the
    pictures on which bfloat16 is judged. A model that was registered before keeps what it has.

    The same content again under the same name writes nothing. Raises InputError, ModelFileError, VectorError, CoreError
    and HomeError; then nothing is left behind.
    """
    check_name(name)
    with copied_model(settings, source, name, convention) as (folder, card), ExitStack() as stack:
        digest = model_digest(card)
        card = card.model_copy(update={"arithmetic": _arithmetic(store, folder, card, arithmetic, labeled)})
        write_card(card, folder)
        connection = stack.enter_context(store.begin())
        _lock_folders(connection)
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
    check_name(new)
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
    for converted in settings.engines_dir.glob(f"{model.digest.hex()}.*"):
        converted.unlink(missing_ok=True)


def references(connection: Connection, model: ModelRow) -> list[str]:
    """What refers to a model besides itself, in words; empty if it can be removed."""
    found = ["it is in use"] if model.in_use else []
    own = len(model.card.calibration) + len(model.card.search_calibration) + earlier_searches(model.card)
    for words, query in _REFERENCES.items():
        if connection.scalar(text(f"SELECT EXISTS ({query})"), {"id": model.id, "own": own}):
            found.append(words)
    return found


def _arithmetic(
    store: Store,
    folder: Path,
    card: ModelCard,
    given: Arithmetic | None,
    labeled: "Callable[[InputConvention], Labeled] | None",
) -> Arithmetic | None:
    """What the features of the model in `folder` are computed with: as before where it is registered, else as chosen.

    A feature space has its base's features.
    """
    from reid_core.export.chosen import choose_arithmetic

    digest = model_digest(card if card.feature_space is None else base_card(card))
    with store.begin() as connection:
        row = connection.execute(
            text("SELECT card FROM model WHERE digest = :digest"), {"digest": digest}
        ).one_or_none()
    if row is not None:
        return ModelCard.model_validate(row.card).arithmetic
    if given is not None:
        return given
    if is_packaged(digest) and is_measured(store.settings):
        return Arithmetic(engine="torch", precision="float32", why="a packaged model is computed alike everywhere")
    return choose_arithmetic(store.settings, folder, labeled(card.input) if labeled else None)


def _insert(connection: Connection, settings: Settings, card: ModelCard, digest: bytes) -> int:
    model_id: int = connection.execute(
        text(
            "INSERT INTO model (name, digest, dims, card, base_id) "
            "VALUES (:name, :digest, :dims, CAST(:card AS jsonb), :base) RETURNING id"
        ),
        {
            "name": card.name,
            "digest": digest,
            "dims": card.dims,
            "card": card.model_dump_json(),
            "base": _base(connection, card),
        },
    ).scalar_one()
    for calibration in card.calibration:
        insert_calibration(connection, model_id, calibration)
    for search in card.search_calibration:
        insert_search_calibration(connection, model_id, search)
    audit(connection, settings.operator, Action.MODEL_REGISTER, details={"model": card.name, "digest": digest.hex()})
    return model_id


def _base(connection: Connection, card: ModelCard) -> int | None:
    """The id of a feature space's base, None for any other model. Raises InputError if the base is not registered."""
    if card.feature_space is None:
        return None
    found = connection.execute(
        text("SELECT id FROM model WHERE digest = :digest"), {"digest": bytes.fromhex(card.feature_space.base)}
    ).scalar_one_or_none()
    if found is None:
        raise InputError(f"{card.name} is a feature space on a model that is not registered here; register that first")
    return int(found)


def check_name(name: str) -> None:
    """Raises InputError for what is no name of a model."""
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
