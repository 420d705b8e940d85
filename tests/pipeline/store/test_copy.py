"""COPY BINARY: what goes in comes out."""

from datetime import UTC, date, datetime
from uuid import uuid4

import numpy as np
from sqlalchemy import text

from pipeline.store import Store
from pipeline.store.copy import copy_in, copy_out


def test_all_types_round_trip(store: Store) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    one, two = uuid4(), uuid4()
    v = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float16)
    with store.begin() as c:
        c.execute(
            text(
                "create temp table t (a int2, b int4, c int8, d float4, e float8, f bool, g text, h bytea, i timestamptz,"
                " j date, k uuid, l halfvec, m verdict, n float8[]) on commit drop"
            )
        )
        n = copy_in(
            c,
            "t",
            {
                "a": ("int2", [1, None, 3]),
                "b": ("int4", np.arange(3)),
                "c": ("int8", [1, 2, 2**40]),
                "d": ("float4", [1.5, None, 2]),
                "e": ("float8", np.array([0.1, 0.2, 0.3])),
                "f": ("bool", [True, False, True]),
                "g": ("text", ["", "é", None]),
                "h": ("bytea", [b"", b"\0x", b"abc"]),
                "i": ("timestamptz", [now, now, None]),
                "j": ("date", [date(1999, 1, 1), None, date(2026, 2, 3)]),
                "k": ("uuid", [one, two, None]),
                "l": ("halfvec", v),
                "m": ("enum", ["join", "review", None]),
                "n": ("float8[]", [[1.0, 2.0], None, []]),
            },
        )
        assert n == 3
        out = copy_out(
            c,
            "select * from t where b >= :low and h = ANY(:h)",
            {"low": np.int64(0), "h": [b"", b"\0x", b"abc"]},
            {
                "a": "int2?",
                "b": "int4",
                "c": "int8",
                "d": "float4",
                "e": "float8",
                "f": "bool",
                "g": "text",
                "h": "bytea",
                "i": "timestamptz?",
                "j": "date",
                "k": "uuid",
                "l": "halfvec",
                "m": "enum",
                "n": "float8[]",
            },
        )
    assert out["a"] == [1, None, 3]
    assert out["c"].tolist() == [1, 2, 2**40]
    assert np.isnan(out["d"][1]) and out["d"][0] == 1.5
    assert out["g"] == ["", "é", None] and out["h"] == [b"", b"\0x", b"abc"]
    assert out["j"] == [date(1999, 1, 1), None, date(2026, 2, 3)] and out["k"] == [one, two, None]
    assert (out["l"] == v.astype(np.float32)).all()
    assert out["m"] == ["join", "review", None] and out["n"] == [[1.0, 2.0], None, []]
    assert out["i"][2] is None and out["i"][0] == int(now.timestamp()) * 10**6 + 678901
