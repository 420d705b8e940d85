"""Cost of row-level security: the same resolve and the same searches, with its policies and without, in one run.

    python -m benchmarks.row_security [--cameras 24] [--hours 2] [--searches 10] [--rounds 6]

Each round takes a simulated city in and resolves it in one process, with the policies and without. The last
city then becomes a live one, and an operator signed in under an authorization for its district and time searches for
stored crops: in each round all with the policies and all without, each time after two searches that are not counted,
because switching policies makes the database plan everything anew. Printed are, of resolve and of a search, the median
of the rounds' ratios by the clock and the ratio by the processor's time of this process and of the database's, which
other programs on the machine change less.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from pydantic import SecretStr
from sqlalchemy import text

from benchmarks.cities import fill, simulated
from benchmarks.home import home
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow
from pipeline.resolve import resolve_unit, units_within
from pipeline.search.request import request_search
from pipeline.search.search import search
from pipeline.store import Store, embedded, roles
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.parameters import SearchParameters
from schemas.settings import Settings

_DISTRICT, _SEED = "d1", 7
_TOKEN = "ab" * 32
_SECURED = (
    "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace "
    "AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)"
)
#: An authorization for all that was taken in, and a session under it, past the rules of cases.
_SIGN_IN = f"""
SET session_replication_role = replica;
UPDATE city SET kind = 'live';
INSERT INTO account (name, password) VALUES ('anna', 'none'), ('ben', 'none');
INSERT INTO case_file (name, opened_by) SELECT 'benchmark', min(id) FROM account;
INSERT INTO case_authorization (case_id, purpose, legal_basis, sought, units, from_time, to_time, expires_at, asked_by,
    approved_by, approved_at)
    SELECT c.id, 'benchmark', 'none', 'nobody', '{{{_DISTRICT}}}', t.first, t.last, now() + interval '1 day', a.one,
        a.two, now()
    FROM case_file c, (SELECT min(id) AS one, max(id) AS two FROM account) a,
        (SELECT min(captured_at) - interval '1 day' AS first, max(captured_at) + interval '1 day' AS last FROM crop) t;
INSERT INTO session (hash, account_id, role, units, authorization_id, expires_at)
    SELECT sha256(decode('{_TOKEN}', 'hex')), a.asked_by, 'operator', '{{""}}', a.id, now() + interval '1 day'
    FROM case_authorization a
"""


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, and of the processor in this process and its connections' in the database."""

    clock: float
    processor: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=24)
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--searches", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    spent: dict[bool, list[Spent]] = {True: [], False: []}
    for number in range(1, arguments.rounds + 1):
        for secured in (True, False) if number % 2 else (False, True):
            with city(arguments.cameras, arguments.hours, secured=secured) as (store, model, core):
                spent[secured].append(timed(store, partial(resolve, store, model, core)))
                if len(spent[False]) == len(spent[True]) == arguments.rounds:
                    tell("resolve", spent)
                    search_rounds(store, model, core, arguments.searches, arguments.rounds)


def timed(store: Store, work: Callable[[], None]) -> Spent:
    clock, processor = time.perf_counter(), processor_s(store)
    work()
    return Spent(time.perf_counter() - clock, processor_s(store) - processor)


def processor_s(store: Store) -> float:
    with connected(store.settings.home, roles.SUPERUSER) as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, 'benchmark')")
        of_server = [psutil.Process(pid).cpu_times() for (pid,) in cursor.fetchall()]
    return time.process_time() + float(sum(times.user + times.system for times in of_server))


def tell(what: str, spent: Mapping[bool, Sequence[Spent]], times: int = 1) -> None:
    """Prints the two ratios; `times`: how often it was done in each `Spent`."""
    pairs = list(zip(spent[True], spent[False], strict=True))
    clock = statistics.median(with_.clock / without.clock for with_, without in pairs) - 1
    processor = sum(with_.processor for with_, _ in pairs) / sum(without.processor for _, without in pairs) - 1
    with_s, without_s = (statistics.median(one.clock for one in spent[secured]) / times for secured in (True, False))
    print(
        f"{what}: {clock:+.1%} by the clock ({with_s:.3f} s with, {without_s:.3f} s without), "
        f"{processor:+.1%} of the processor's time",
        flush=True,
    )


@contextmanager
def city(cameras: int, hours: float, *, secured: bool) -> Iterator[tuple[Store, ModelRow, ReIDCore]]:
    with home() as folder, Store.open(Settings(home=folder, database_url=None), "benchmark") as store:
        secure(folder, secured)
        model = fill(store, simulated(cameras, hours, _SEED))
        yield store, model, open_core(store.settings, model.directory(store.settings))


def resolve(store: Store, model: ModelRow, core: ReIDCore) -> None:
    for unit in units_within(store, _DISTRICT):
        resolve_unit(store, core, model, unit, settings=store.settings.association)


def search_rounds(store: Store, model: ModelRow, core: ReIDCore, searches: int, rounds: int) -> None:
    with connected(store.settings.home, roles.SUPERUSER) as cursor:
        cursor.execute(_SIGN_IN)
    store.settings = store.settings.model_copy(update={"token": SecretStr(_TOKEN)})
    with store.begin() as connection:
        identities = connection.scalar(text("SELECT count(*) FROM identity_now WHERE unit = 'd1'"))
        keys = connection.scalars(
            text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT :many"), {"many": searches}
        ).all()
    spent: dict[bool, list[Spent]] = {True: [], False: []}
    for number in range(rounds):
        for secured in (True, False) if number % 2 else (False, True):
            secure(store.settings.home, secured)
            search_for(store, model, core, keys[:2])
            spent[secured].append(timed(store, partial(search_for, store, model, core, keys)))
    tell(f"search among {identities} identities", spent, len(keys))


def search_for(store: Store, model: ModelRow, core: ReIDCore, keys: Sequence[str]) -> None:
    crops = CropStore(store.settings)
    for key in keys:
        asked = SearchParameters(unit=_DISTRICT, crop_key=key, reason=f"benchmark {uuid4()}", operator="anna")
        request = request_search(store, model, asked)
        search(store, lambda _: core, crops, model, request, asked)


def secure(folder: Path, secured: bool) -> None:
    """Turns the policies of all tables on or off."""
    with connected(folder, roles.OWNER) as cursor:
        cursor.execute(_SECURED)
        for (table,) in cursor.fetchall():
            cursor.execute(f"ALTER TABLE {table} {'ENABLE' if secured else 'DISABLE'} ROW LEVEL SECURITY")


@contextmanager
def connected(folder: Path, role: str) -> Iterator[Any]:
    """A cursor in a transaction of its own."""
    with (
        embedded.hold(folder) as server,
        closing(server.connect(role)) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        yield cursor


if __name__ == "__main__":
    main()
