"""Several resolvers on one database, as on several hosts: one is at work, and another goes on when it is gone."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from tests.helpers.command_line import environment_of
from tests.helpers.town import Town
from tests.helpers.waiting import wait_until

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
