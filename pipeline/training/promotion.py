"""Promotion: a candidate replaces the model in use, once every identity has been re-embedded with the candidate.

Decisions are not made again. The earlier model stays in use until the re-embedding is complete, then one transaction
switches; its rows stay. `rollback` switches back in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from pipeline.crops.crop_store import CropStore
from pipeline.governance.audit import Action, audit
from pipeline.registry import (
    ModelRow,
    SwitchKind,
    check_model_in_use,
    find_model,
    lock_model_in_use,
    model_by_id,
    model_in_use,
    switch_model,
)
from pipeline.resolve.calibrations import current_calibrations
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from pipeline.training.comparison import read_comparison
from pipeline.training.reembed import Reembedded, count_unknown, missing_pictures, reembed
from reid_core.serving.core import ReIDCore
from schemas.errors import InputError
from schemas.levels import UPWARD, Level
from schemas.text import said

#: Name of the lock that a promotion holds; no unit has this code.
_LOCK = "model promotion"
#: If a round embedded no more than this, the rest is embedded during the switch, while resolves wait.
_FEW = 512
#: Most rounds before the switch, for a city where crops arrive as fast as they are embedded.
_ROUNDS = 5

OpenCore = Callable[[ModelRow], ReIDCore]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Promotion:
    """What a promotion or a rollback did."""

    model: str  # in use now
    before: str  # in use before
    done: Reembedded
    unknown: dict[Level, int]  # current identities without a prototype of the model
    uncalibrated: list[Level]  # levels at which the model joins nothing


def promote(
    store: Store,
    crops: CropStore,
    open_core: OpenCore,
    name: str,
    *,
    operator: str,
    reason: str,
    force: bool = False,
    accept_missing: bool = False,
    progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Promotion:
    """Makes a registered model the one in use. After an interruption it can be called again and continues.

    Raises InputError for `objections` unless `force`, and for crops whose picture is missing unless `accept_missing`,
    which marks these pictures as gone for good. `progress`: crops and identities done, and in all. `on_wait`: a line
    that names the process that promotes a model now, while this one waits.
    """
    with unit_lock(store, _LOCK, on_wait):
        with store.begin() as connection:
            before, model = model_in_use(connection), find_model(connection, name)
            if model.in_use:
                raise InputError(f"{name} is in use already")
            against = objections(connection, model, before)
        if against and not force:
            raise InputError(f"{name} is not promoted: {'; '.join(against)}", do="--force promotes it all the same")
        switch = _Switch(SwitchKind.PROMOTE, before, model, operator, reason, against)
        return _switch(store, crops, open_core(model), switch, accept_missing, progress)


def rollback(
    store: Store,
    crops: CropStore,
    open_core: OpenCore,
    *,
    operator: str,
    reason: str,
    accept_missing: bool = False,
    progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Promotion:
    """Makes the model that was in use before the one in use again, after embedding what came in since.

    Raises InputError if no other model was in use before. Options as for `promote`.
    """
    with unit_lock(store, _LOCK, on_wait):
        with store.begin() as connection:
            before, model = model_in_use(connection), _model_before(connection)
        switch = _Switch(SwitchKind.ROLLBACK, before, model, operator, reason, ())
        return _switch(store, crops, open_core(model), switch, accept_missing, progress)


def objections(connection: Connection, model: ModelRow, before: ModelRow) -> list[str]:
    """Reasons against `model` in place of `before`: it is worse or was not compared, or a level has no calibration."""
    found = []
    comparison = read_comparison(connection, model, before)
    if comparison is None:
        how = f"`urban-reid models compare {model.name} --dataset DATA`"
        found.append(said(f"it was never compared with {before.name}; {how} does it"))
    elif comparison.worse:
        found.append(said(f"it is worse than {before.name}: {comparison}"))
    levels = [level.value for level in _uncalibrated(connection, model)]
    if levels:
        how = f"`urban-reid models calibrate {model.name} --dataset DATA`"
        found.append(
            said(f"it has no calibration for {', '.join(levels)} and would join nothing there; {how} makes one")
        )
    return found


@dataclass(frozen=True)
class _Switch:
    kind: SwitchKind
    before: ModelRow
    model: ModelRow
    operator: str
    reason: str
    against: Sequence[str]  # objections that `force` overruled


def _switch(
    store: Store, crops: CropStore, core: ReIDCore, switch: _Switch, accept_missing: bool, progress: Progress | None
) -> Promotion:
    model = switch.model
    _settle_missing(store, crops, switch, accept_missing)
    done = Reembedded()
    for _ in range(_ROUNDS):
        more = reembed(store, core, crops, model, progress)
        done += more
        if more.crops + more.identities <= _FEW:
            break
    with store.begin() as connection:
        # No window is resolved until this transaction ends, so nothing else can be missing afterwards.
        lock_model_in_use(connection)
        check_model_in_use(connection, switch.before)
        done += reembed(store, core, crops, model, resolved=True)
        unknown = count_unknown(connection, model.id)
        switch_model(
            connection,
            switch.kind,
            model,
            switch.operator,
            switch.reason,
            forced=bool(switch.against),
            details={
                "before": switch.before.name,
                "against": list(switch.against),
                "unknown": {level.value: many for level, many in unknown.items()},
            },
        )
        return Promotion(model.name, switch.before.name, done, unknown, _uncalibrated(connection, model))


def _settle_missing(store: Store, crops: CropStore, switch: _Switch, accept: bool) -> None:
    """Marks the pictures of crops that are missing in the crop store as gone, if accepted. Raises InputError if not."""
    missing = missing_pictures(store, crops, switch.model)
    if not missing:
        return
    if not accept:
        raise InputError(
            f"the pictures of {len(missing)} crops are not in {crops.files.place}, so {switch.model.name} cannot "
            "embed them; put them back",
            do="or accept with --accept-missing that they are gone for good",
        )
    with store.begin() as connection:
        connection.execute(text("UPDATE crop SET picture_gone_at = now() WHERE id = ANY(:ids)"), {"ids": missing})
        audit(connection, switch.operator, Action.CROP_LOSE, reason=switch.reason, details={"crops": len(missing)})


def _model_before(connection: Connection) -> ModelRow:
    """The model that a rollback switches to. Raises InputError if there is none."""
    stack: list[int] = []
    for row in connection.execute(text("SELECT kind, model_id FROM model_switch ORDER BY id")):
        if row.kind == SwitchKind.ROLLBACK:
            stack.pop()
        elif row.kind == SwitchKind.USE:
            stack = [row.model_id]
        else:
            stack.append(row.model_id)
    if len(stack) < 2:
        raise InputError(f"no model was in use before {model_in_use(connection).name}; there is nothing to go back to")
    return model_by_id(connection, stack[-2])


def _uncalibrated(connection: Connection, model: ModelRow) -> list[Level]:
    calibrated = current_calibrations(connection, model.id)
    return [level for level in UPWARD[1:] if level not in calibrated]
