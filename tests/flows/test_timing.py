import pytest

from flows.timing import Timing


def test_a_moment_counts_once_for_the_first_kind() -> None:
    timing = Timing()
    for kind, start, end in (
        ("prefect", 1.0, 9.0),
        ("association", 2.0, 8.0),
        ("database", 3.0, 5.0),
        ("database", 3.5, 6.0),
        ("core", 4.0, 7.0),
    ):
        timing.add(kind, start, end)
    assert timing.split(0.0, 10.0) == {
        "core": 3.0,
        "database": 1.0,
        "association": 2.0,
        "prefect": 2.0,
        "start": 2.0,
        "total": 10.0,
    }


def test_kinds_add_up_to_the_total_in_any_stretch() -> None:
    timing = Timing()
    timing.add("core", 0.0, 4.0)
    timing.add("database", 3.0, 20.0)
    split = timing.split(2.0, 5.0)
    total = split.pop("total")
    assert total == 3.0 and sum(split.values()) == pytest.approx(total)
    assert split["core"] == 2.0 and split["start"] == 0.0
