"""Several resolvers on one database, as on several hosts: one is at work, and another goes on when it is gone."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.store import Store
from schemas.errors import HomeError
from tests.helpers.command_line import environment_of
from tests.helpers.town import Town
from tests.helpers.waiting import wait_until
from urban_reid.resolver import _Chore, _Turns

_AT_WORK = text(
    "SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' "
    "AND l.objsubid = 1 AND l.granted AND a.application_name LIKE 'urban-reid resolver%' "
    "AND a.datname = current_database()"
)


@contextmanager
def resolver(town: Town, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-P", "-m", "urban_reid.resolver"]
    with log.open("wb") as said:
        process = subprocess.Popen(command, env=environment_of(town.store.settings), stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_another_goes_on_when_the_one_at_work_is_killed(town: Town, tmp_path: Path) -> None:
    def at_work() -> list[int]:
        with town.store.begin() as connection:
            return [*connection.execute(_AT_WORK).scalars()]

    other_said = tmp_path / "other"
    with resolver(town, tmp_path / "one") as one:
        first = wait_until(at_work, 240)
        with resolver(town, other_said):
            wait_until(lambda: "waiting for the city's resolver: urban-reid resolver" in other_said.read_text(), 240)
            assert at_work() == first
            one.kill()
            wait_until(lambda: at_work() not in ([], first), 240, other_said.read_text)


def test_what_fails_is_said_once_and_keeps_nothing_else_from_being_done(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = [HomeError("prefect.db is locked"), HomeError("prefect.db is locked"), OSError("broken")]
    monkeypatch.setenv("URBAN_REID_HOME", str(store.settings.home))
    turns, done = _Turns(store, None), list[int]()

    def fail() -> bool:
        raise faults[0]

    def some_at_a_time() -> bool:
        done.append(1)
        return len(done) < 3

    turns._chores = [_Chore("retention", 0.0, fail), _Chore("another", 3600.0, some_at_a_time)]
    with caplog.at_level(logging.WARNING, "urban_reid.resolver"):
        for _ in range(len(faults)):
            turns.take()
            faults.pop(0)
        turns._chores.pop(0)
        turns.take()
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "retention: prefect.db is locked" and len(said) == 2
    assert said[1].startswith("retention: unexpected OSError: broken; its traceback is in ")
    assert len(done) == 3
