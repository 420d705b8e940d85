"""The cores that a process may use, by the files of control groups."""

import os
from pathlib import Path

import pytest

from schemas.cores import core_limit, usable_cores


@pytest.mark.parametrize(
    ("mine", "written", "cores"),
    [
        ("0::/\n", {"": "400000 100000"}, 4),  # a container, whose own group is the root that it sees
        ("0::/\n", {"": "150000 100000"}, 2),
        ("0::/\n", {"": "max 100000"}, 0),
        ("0::/a/b\n", {"a": "200000 100000", "a/b": "max 100000"}, 2),  # a limit above holds too
        ("0::/a/b\n", {"a": "200000 100000", "a/b": "50000 100000"}, 1),
        ("1:cpu:/x\n", {}, 0),
        ("", {}, 0),
    ],
)
def test_the_limit_of_cores(tmp_path: Path, mine: str, written: dict[str, str], cores: int) -> None:
    (tmp_path / "cgroup").write_text(mine)
    groups = tmp_path / "groups"
    groups.mkdir()
    for folder, said in written.items():
        (groups / folder).mkdir(exist_ok=True)
        (groups / folder / "cpu.max").write_text(said + "\n")
    assert core_limit(tmp_path / "cgroup", groups) == cores


def test_no_more_than_those_it_may_run_on() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
