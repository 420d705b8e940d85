"""Partitions of the tables that hold vectors: by model, and below each model by UTC day."""

from collections.abc import Iterable
from datetime import date

from sqlalchemy import Connection, text

_MISSING = text(
    "SELECT day FROM unnest(CAST(:days AS date[])) AS day "
    "WHERE to_regclass(format('public.%s_m%s_%s', :family, :model, to_char(day, 'YYYYMMDD'))) IS NULL"
)


def missing_partitions(connection: Connection, family: str, model_id: int, days: Iterable[date]) -> set[date]:
    """Those of the UTC days for which `family` has no partition of the model."""
    return set(connection.execute(_MISSING, {"family": family, "model": model_id, "days": sorted(days)}).scalars())


def ensure_partitions(connection: Connection, family: str, model_id: int, days: Iterable[date]) -> None:
    """Creates the missing partitions of `family` ('crop_embedding' or 'prototype') for `model_id` and these UTC days.

    Call it in a short transaction of its own, before the transaction that fills them: a new partition's foreign keys
    wait for transactions that are writing crops or identities, so two writers that also create partitions could
    deadlock.
    """
    wanted = sorted(set(days))
    if wanted:
        connection.execute(
            text(
                "SELECT ensure_partition(:family, :model, day) FROM unnest(CAST(:days AS date[])) AS day ORDER BY day"
            ),
            {"family": family, "model": model_id, "days": wanted},
        )
