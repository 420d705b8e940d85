"""The registered models: a row in the database and a folder `models/NAME` for each, and one of them in use.

What a model computes never changes: another content needs another name. The calibrations of its card become rows, and
later calibrations are added to them. `changes` registers, renames and removes; `folders` handles the files; `in_use`
puts a model in use; `rows` reads.
"""

from pipeline.registry.changes import check_name, register_model, remove_model, rename_model
from pipeline.registry.in_use import (
    SwitchKind,
    check_model_in_use,
    hold_model_in_use,
    lock_model_in_use,
    model_in_use,
    switch_model,
    use_first_model,
    use_model,
)
from pipeline.registry.rows import (
    ModelRow,
    find_model,
    insert_calibration,
    insert_search_calibration,
    model_by_id,
    models,
)

__all__ = [
    "ModelRow",
    "SwitchKind",
    "check_model_in_use",
    "check_name",
    "find_model",
    "hold_model_in_use",
    "insert_calibration",
    "insert_search_calibration",
    "lock_model_in_use",
    "model_by_id",
    "model_in_use",
    "models",
    "register_model",
    "remove_model",
    "rename_model",
    "switch_model",
    "use_first_model",
    "use_model",
]
