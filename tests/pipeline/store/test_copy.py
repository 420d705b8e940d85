"""COPY BINARY: values come back as they were written, and invalid values are refused."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pgvector import HalfVector
from sqlalchemy import text

from pipeline.store import Store, embedded
from pipeline.store.copy import copy_in, copy_out
from pipeline.store.copy_format import encode
from pipeline.store.partitions import ensure_partitions
from schemas.errors import StoreError, VectorError
from schemas.times import EPOCH, to_us
from tests.helpers.homes import fresh_settings
from tests.helpers.rows import Row, insert_city, insert_crop, insert_model

same_store = hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20, database=None
)

_TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int2": st.integers(-(2**15), 2**15 - 1),
    "int4": st.integers(-(2**31), 2**31 - 1),
    "int8": st.integers(-(2**63), 2**63 - 1),
    "float4": st.floats(width=32, allow_nan=False),
    "float8": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    "bytea": st.binary(max_size=20),
    "uuid": st.uuids(),
    "date": st.dates(date(1, 1, 1), date(9999, 12, 31)),
    "timestamptz": _TIMES,
    "float8[]": st.lists(st.floats(allow_nan=False), max_size=4),
    "int8[]": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
}


@pytest.fixture(scope="module")
def store(server: embedded.EmbeddedServer) -> Iterator[Store]:
    """One database for all tests of this module, which write to temporary tables."""
    with fresh_settings(server) as fresh, Store.open(fresh) as opened:
        yield opened


def round_trip(store: Store, kind: str, values: Sequence[Any] | np.ndarray, read_as: str) -> Any:
    with store.begin() as connection:
        connection.execute(text(f"CREATE TEMP TABLE there (n int8, v {kind}) ON COMMIT DROP"))
        count = copy_in(connection, "there", {"n": ("int8", np.arange(len(values))), "v": (kind, values)})
        assert count == len(values)
        return copy_out(connection, "SELECT v FROM there ORDER BY n", {}, {"v": read_as})["v"]


@pytest.mark.parametrize("kind", _VALUES)
@same_store
@given(data=st.data())
def test_lists_with_nulls_come_back(store: Store, kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | _VALUES[kind], max_size=8))
    back = round_trip(store, kind, values, kind + "?")
    if kind == "timestamptz":
        values = [None if value is None else to_us(value) for value in values]
    assert back == values


@pytest.mark.parametrize("kind", ["int2", "int4", "int8", "float4", "float8", "bool", "timestamptz"])
@same_store
@given(data=st.data())
def test_lists_without_nulls_come_back_as_arrays(store: Store, kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(_VALUES[kind], max_size=8))
    back = round_trip(store, kind, values, kind)
    assert isinstance(back, np.ndarray)
    assert back.dtype.isnative
    assert back.tolist() == ([to_us(value) for value in values] if kind == "timestamptz" else values)


@same_store
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
        elements=st.floats(-65504, 65504, width=16).filter(lambda x: x == 0 or abs(x) > 1e-3),
    )
)
def test_vectors_come_back_as_the_nearest_half(store: Store, vectors: np.ndarray) -> None:
    vectors[:, 0] = 1
    back = round_trip(store, "halfvec", vectors, "halfvec")
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, vectors.astype(np.float16).astype(np.float32))


def test_postgres_reads_the_same_numbers(store: Store) -> None:
    """Compared with Postgres' own text form, since reading and writing could have the same fault."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    with store.begin() as connection:
        connection.execute(
            text(
                "CREATE TEMP TABLE there (a int4, b float8, c halfvec, d timestamptz, e date, f verdict, g float8[],"
                " h int8[], i bytea, j bool, k uuid) ON COMMIT DROP"
            )
        )
        columns: Row = {
            "a": ("int4", [-7]),
            "b": ("float8", [0.1]),
            "c": ("halfvec", np.array([[0.5, -2.0, 65504.0]])),
            "d": ("timestamptz", [moment]),
            "e": ("date", np.array(["1999-12-31"], "datetime64[D]")),
            "f": ("enum", ["review"]),
            "g": ("float8[]", [[1.5, -2.0]]),
            "h": ("int8[]", [np.array([], np.int64)]),
            "i": ("bytea", [b"\x00\xff"]),
            "j": ("bool", [True]),
            "k": ("uuid", [UUID(int=5)]),
        }
        copy_in(connection, "there", columns)
        found = connection.execute(
            text("SELECT row(a, b, c, d AT TIME ZONE 'UTC', e, f, g, h, i, j, k)::text FROM there")
        ).scalar_one()
    assert found == (
        '(-7,0.1,"[0.5,-2,65504]","2026-01-02 03:04:05.678901",1999-12-31,review,"{1.5,-2}",{},"\\\\x00ff",t,'
        "00000000-0000-0000-0000-000000000005)"
    )


def test_many_rows_go_in_several_chunks(store: Store) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(9_000, 600)).astype(np.float16)
    names = [f"row {at}" * (at % 3) for at in range(len(vectors))]
    with store.begin() as connection:
        connection.execute(text("CREATE TEMP TABLE there (n int8, name text, v halfvec) ON COMMIT DROP"))
        columns: Row = {"n": ("int8", np.arange(9_000)), "name": ("text", names), "v": ("halfvec", vectors)}
        copy_in(connection, "there", columns)
        back = copy_out(
            connection, "SELECT n, name, v FROM there ORDER BY n", {}, {"n": "int8", "name": "text", "v": "halfvec"}
        )
    assert back["n"].tolist() == list(range(9_000))  # type: ignore[union-attr]
    assert back["name"] == names
    np.testing.assert_array_equal(back["v"], vectors.astype(np.float32))


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        ([1.0, np.nan], "holds nan"),
        ([np.inf, 1.0], "holds inf"),
        ([1.0, -np.inf], "holds inf"),
        ([0.0, 0.0], "is zero"),
        ([1e-9, -1e-9], "is zero"),
        ([65505.0, 1.0], "holds 65505"),
        ([-7e4, 1.0], "holds 70000"),
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused_before_sending(
    store: Store, vector: list[float], says: str
) -> None:
    with store.begin() as connection:
        connection.execute(text("CREATE TEMP TABLE there (v halfvec) ON COMMIT DROP"))
        with pytest.raises(VectorError, match=says) as refusal:
            copy_in(connection, "there", {"v": ("halfvec", np.array([[1.0, 2.0], vector]))})
        assert "vector 1 of 2" in str(refusal.value)
        assert connection.scalar(text("SELECT count(*) FROM there")) == 0  # the transaction goes on


def test_a_vector_of_another_width_than_the_model_is_refused(store: Store) -> None:
    with store.begin() as connection:
        insert_city(connection)
        model = insert_model(connection, dims=4)
        crop = insert_crop(connection)
        ensure_partitions(connection, "crop_embedding", model, [date(2026, 1, 1)])
    columns: Row = {
        "model_id": ("int4", [model]),
        "day": ("date", [date(2026, 1, 1)]),
        "crop_id": ("int8", [crop]),
        "v": ("halfvec", np.ones((1, 3))),
    }
    with pytest.raises(VectorError, match="another width"), store.begin() as connection:
        copy_in(connection, "crop_embedding", columns)
    with store.begin() as connection:
        copy_in(connection, "crop_embedding", columns | {"v": ("halfvec", np.ones((1, 4)))})


def test_parameters_are_quoted(store: Store) -> None:
    nasty = "'; DROP TABLE crop; -- %s :x \\ 100%"
    one = uuid4()
    with store.begin() as connection:
        back = copy_out(
            connection,
            "SELECT CAST(:nasty AS text), '50%', n FROM unnest(CAST(:numbers AS int8[])) AS n "
            "WHERE n = ANY(:wanted) AND :one = ANY(:ids) AND :moment > '2025-01-01'::timestamptz AND 'a' LIKE 'a%'",
            {
                "nasty": nasty,
                "numbers": np.array([1, 2, 3]),
                "wanted": [2, 3],
                "one": one,
                "ids": [one],
                "moment": EPOCH + timedelta(days=365 * 60),
            },
            {"nasty": "text", "percent": "text", "n": "int8"},
        )
        without = copy_out(connection, "SELECT '50%'", {}, {"percent": "text"})
    assert back["nasty"] == [nasty, nasty]
    assert back["percent"] == ["50%", "50%"]
    assert list(back["n"]) == [2, 3]
    assert without["percent"] == ["50%"]


def test_no_rows(store: Store) -> None:
    with store.begin() as connection:
        connection.execute(text("CREATE TEMP TABLE there (n int8, v halfvec) ON COMMIT DROP"))
        assert copy_in(connection, "there", {"n": ("int8", []), "v": ("halfvec", np.empty((0, 8)))}) == 0
        back = copy_out(connection, "SELECT n, v, 'x' FROM there", {}, {"n": "int8", "v": "halfvec", "t": "text"})
    assert back["n"].shape == (0,)  # type: ignore[union-attr]
    assert back["n"].dtype == np.int64  # type: ignore[union-attr]
    assert back["v"].shape == (0, 0)  # type: ignore[union-attr]
    assert back["t"] == []


def test_null_in_a_plain_column(store: Store) -> None:
    with store.begin() as connection:
        floats = copy_out(connection, "VALUES (1.5::float8), (NULL)", {}, {"f": "float8"})["f"]
        np.testing.assert_array_equal(floats, [1.5, np.nan])
        with pytest.raises(StoreError, match=r"column n contains NULL.*`int8\?`"):
            copy_out(connection, "VALUES (1::int8), (NULL)", {}, {"n": "int8"})
        with pytest.raises(StoreError, match="4 bytes wide, which does not fit int8"):
            copy_out(connection, "VALUES (1::int4)", {}, {"n": "int8"})
        with pytest.raises(StoreError, match="2 columns where 1"):
            copy_out(connection, "VALUES (1::int8, 2::int8)", {}, {"n": "int8"})


@pytest.mark.parametrize(
    ("kind", "values"),
    [("int2", [40_000]), ("int4", np.array([2**40])), ("int4", np.array([1.5])), ("int8", ["1"])],
)
def test_numbers_that_do_not_fit_are_refused(store: Store, kind: str, values: Any) -> None:
    with pytest.raises(ValueError, match=f"do not fit a column of type {kind}"), store.begin() as connection:
        connection.execute(text(f"CREATE TEMP TABLE there (n {kind}) ON COMMIT DROP"))
        copy_in(connection, "there", {"n": (kind, values)})


def test_columns_of_different_length_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="differ in length"), store.begin() as connection:
        copy_in(connection, "crop", {"id": ("int8", [1]), "key": ("bytea", [])})


def test_a_copy_is_reported_as_a_wait_for_the_database(store: Store) -> None:
    waits: list[float] = []
    store.listen(lambda start, end: waits.append(end - start))
    with store.begin() as connection:
        waits.clear()
        copy_out(connection, "SELECT 1::int4 FROM pg_sleep(0.05)", {}, {"n": "int4"})
        assert len(waits) == 1 and waits[0] >= 0.05


def test_vectors_are_written_as_pgvector_writes_them() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    sent = b"".join(encode([("halfvec", vectors)], len(vectors)))
    for vector in vectors:
        field = HalfVector(vector.tolist()).to_binary()
        assert len(field).to_bytes(4, "big") + field in sent
