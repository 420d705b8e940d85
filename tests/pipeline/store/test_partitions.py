"""Partitions: created by the program although it may create no table, and read by model and day."""

import threading
from datetime import UTC, date, datetime

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.store import Store
from pipeline.store.copy import copy_in
from pipeline.store.partitions import ensure_partitions
from schemas.errors import StoreError
from tests.helpers.orphans import count_orphans
from tests.helpers.rows import CAMERA, Row, insert_city, insert_crop, insert_identity, insert_model, insert_run

DAYS = [date(2025, 12, 31), date(2026, 1, 1), date(2026, 1, 2)]


def day_partitions(store: Store) -> set[str]:
    with store.begin() as connection:
        return set(
            connection.scalars(text("SELECT relid::text FROM pg_partition_tree('crop_embedding') WHERE isleaf")).all()
        )


def test_partitions_are_created_once(store: Store) -> None:
    with store.begin() as connection:
        small, large = insert_model(connection, 4, "small"), insert_model(connection, 8, "large")
    for _ in range(2):
        with store.begin() as connection:
            ensure_partitions(connection, "crop_embedding", small, [DAYS[1], DAYS[0], DAYS[1]])
            ensure_partitions(connection, "crop_embedding", large, DAYS[:1])
            ensure_partitions(connection, "crop_embedding", large, [])
    assert day_partitions(store) == {
        f"crop_embedding_m{small}_20251231",
        f"crop_embedding_m{small}_20260101",
        f"crop_embedding_m{large}_20251231",
    }


def test_other_tables_and_unknown_models_get_no_partition(store: Store) -> None:
    with pytest.raises(StoreError, match="no partitioned table: crop"), store.begin() as connection:
        ensure_partitions(connection, "crop", 1, DAYS)
    with pytest.raises(StoreError, match="no model 77"), store.begin() as connection:
        ensure_partitions(connection, "prototype", 77, DAYS)


def test_several_programs_create_the_same_partition_at_once(store: Store) -> None:
    with store.begin() as connection:
        model = insert_model(connection)
    gate = threading.Barrier(4)
    failures: list[BaseException] = []

    def create() -> None:
        try:
            gate.wait()
            with store.begin() as connection:
                ensure_partitions(connection, "crop_embedding", model, DAYS)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(day_partitions(store)) == 3


def test_a_new_partition_waits_for_no_reader(store: Store) -> None:
    with store.begin() as connection:
        model = insert_model(connection)
        ensure_partitions(connection, "crop_embedding", model, DAYS[:1])
    with store.begin() as reader:
        reader.execute(text("SELECT count(*) FROM crop_embedding JOIN crop ON crop.id = crop_id"))
        with store.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '1s'"))
            ensure_partitions(connection, "crop_embedding", model, DAYS)
    assert len(day_partitions(store)) == 3


def test_queries_read_only_the_partitions_of_their_model_and_day(store: Store) -> None:
    with store.begin() as connection:
        models = [insert_model(connection, 4, "small"), insert_model(connection, 4, "other")]
        for model in models:
            ensure_partitions(connection, "crop_embedding", model, DAYS)
            ensure_partitions(connection, "prototype", model, DAYS)
    with store.begin() as connection:
        for family in ("crop_embedding", "prototype"):
            plan = "\n".join(
                connection.scalars(
                    text(
                        f"EXPLAIN SELECT v FROM {family} WHERE model_id = :model AND day BETWEEN :low AND :high "
                        "ORDER BY v <=> CAST(:v AS halfvec) LIMIT 3"
                    ),
                    {"model": models[0], "low": DAYS[1], "high": DAYS[2], "v": "[1,2,3,4]"},
                )
            )
            for model in models:
                for day in DAYS:
                    wanted = model == models[0] and day in DAYS[1:]
                    assert (f"{family}_m{model}_{day:%Y%m%d}" in plan) == wanted


def test_a_partition_takes_only_its_own_model_and_day(store: Store) -> None:
    with store.begin() as connection:
        insert_city(connection)
        model, crop = insert_model(connection), insert_crop(connection)
        ensure_partitions(connection, "crop_embedding", model, DAYS[:1])
    row: Row = {"model_id": ("int4", [model]), "crop_id": ("int8", [crop]), "v": ("halfvec", np.ones((1, 4)))}
    with pytest.raises(StoreError, match="no partition"), store.begin() as connection:
        copy_in(connection, "crop_embedding", row | {"day": ("date", [DAYS[1]])})
    with pytest.raises(StoreError, match="foreign key"), store.begin() as connection:
        copy_in(connection, "crop_embedding", row | {"day": ("date", [DAYS[0]]), "crop_id": ("int8", [crop + 1])})


def test_orphans_are_counted(store: Store) -> None:
    with store.begin() as connection:
        insert_city(connection)
        model = insert_model(connection)
        crop = insert_crop(connection, CAMERA, datetime(2026, 1, 1, 23, 59, tzinfo=UTC))
        identity = insert_identity(connection, insert_run(connection, model))
        for family in ("crop_embedding", "prototype"):
            ensure_partitions(connection, family, model, DAYS)
        for day in DAYS[1:]:  # once on its day, once on another
            vector: Row = {"model_id": ("int4", [model]), "day": ("date", [day]), "v": ("halfvec", np.ones((1, 4)))}
            if day == DAYS[1]:  # a foreign key refuses another day
                copy_in(connection, "crop_embedding", vector | {"crop_id": ("int8", [crop])})
            mean: Row = {"ordinal": ("int2", [0]), "kind": ("enum", ["mean"]), "weight": ("float4", [1.0])}
            copy_in(connection, "prototype", vector | mean | {"identity_id": ("int8", [identity])})
    with store.begin() as connection:
        assert count_orphans(connection) == {
            "prototype without identity": 0,
            "crop_embedding without crop of its day": 0,
            "prototype of another day": 1,
            "partition without model": 0,
        }
