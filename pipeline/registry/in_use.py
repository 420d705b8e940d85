"""Which model is in use: how it changes, and how it is kept from changing."""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from sqlalchemy import Connection, text

from pipeline.governance.audit import Action, audit
from pipeline.registry.rows import SELECT, ModelRow, find_model, row_of
from pipeline.store import Store
from pipeline.store.replica import TIMELINE
from schemas.errors import InputError, ModelChanged

_LOCK = "hashtextextended('urban_reid model in use', 0)"


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
                    f"this city is resolved with model {model_in_use(connection).name}",
                    do=f"`urban-reid models promote {name}` embeds its crops with {name} first, so that no identity is "
                    "lost",
                )
            switch_model(connection, SwitchKind.USE, model, store.settings.operator)
        return replace(model, in_use=True)


def use_first_model(store: Store, name: str) -> ModelRow:
    """Puts a model in use where none is, and returns the one in use. Raises InputError for an unknown name."""
    with store.begin() as connection:
        lock_model_in_use(connection)
        model = find_model(connection, name)
        row = connection.execute(text(f"{SELECT} WHERE in_use")).one_or_none()
        if row is not None:
            return row_of(row)
        switch_model(connection, SwitchKind.USE, model, store.settings.operator)
        return replace(model, in_use=True)


class SwitchKind(StrEnum):
    """How a model came into use."""

    USE = "use"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


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


#: One round trip, as it stands before each chunk of windows that is written.
_HOLD = text(
    f"SELECT pg_advisory_xact_lock_shared({_LOCK}); SELECT in_use, {TIMELINE} AS timeline FROM model WHERE id = :id"
)


def hold_model_in_use(connection: Connection, model: ModelRow) -> int:
    """Until the transaction ends, `model` stays in use; several may hold it. Raises ModelChanged if another is.

    Returns the database's timeline, as `Store.timeline`.
    """
    row = connection.execute(_HOLD, {"id": model.id}).one()
    _check(row.in_use, model)
    return int(row.timeline)


def check_model_in_use(connection: Connection, model: ModelRow) -> None:
    """Raises ModelChanged unless `model` is the one in use."""
    _check(connection.execute(text("SELECT in_use FROM model WHERE id = :id"), {"id": model.id}).scalar_one(), model)


def _check(is_in_use: bool, model: ModelRow) -> None:
    if not is_in_use:
        raise ModelChanged(f"model {model.name} is no longer in use, another one is; run the command again")


def model_in_use(connection: Connection) -> ModelRow:
    """The model that crops are embedded with. Raises InputError when none is in use."""
    row = connection.execute(text(f"{SELECT} WHERE in_use")).one_or_none()
    if row is None:
        raise InputError(
            "no model is in use", do="`urban-reid models list` shows them, `urban-reid models use NAME` puts one in use"
        )
    return row_of(row)
