"""Cost of row-level security: the same resolve and the same searches, with its policies and without, in one run.

    python -m benchmarks.row_security [--cameras 64] [--hours 6] [--searches 20] [--rounds 3]

Each round takes a simulated city in and resolves it in one process, with the policies and without. The last
city then becomes a live one, and an operator signed in under an authorization for its district and time searches for
stored crops, with and without in turn. Prints the seconds of each and the median of the rounds' ratios.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=64)
    parser.add_argument("--hours", type=float, default=6)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ratios: list[float] = []
    for number in range(1, arguments.rounds + 1):
        seconds: dict[bool, float] = {}
        for secured in (True, False) if number % 2 else (False, True):
            with city(arguments.cameras, arguments.hours, secured=secured) as (store, model, core):
                seconds[secured] = timed_resolve(store, model, core)
                if number == arguments.rounds and len(seconds) == 2:
                    search_rounds(store, model, core, arguments.searches, arguments.rounds)
        tell("resolve", number, seconds, ratios)
    print(f"resolve: median {statistics.median(ratios):+.1%}")


def tell(what: str, number: int, seconds: dict[bool, float], ratios: list[float]) -> None:
    ratios.append(seconds[True] / seconds[False] - 1)
    print(f"{what} {number}: {seconds[True]:.2f} s with, {seconds[False]:.2f} s without, {ratios[-1]:+.1%}", flush=True)


@contextmanager
def city(cameras: int, hours: float, *, secured: bool) -> Iterator[tuple[Store, ModelRow, ReIDCore]]:
    with home() as folder, Store.open(Settings(home=folder, database_url=None), "benchmark") as store:
        secure(folder, secured)
        model = fill(store, simulated(cameras, hours, _SEED))
        yield store, model, open_core(store.settings, model.directory(store.settings))


def timed_resolve(store: Store, model: ModelRow, core: ReIDCore) -> float:
    began = time.perf_counter()
    for unit in units_within(store, _DISTRICT):
        resolve_unit(store, core, model, unit, settings=store.settings.association)
    return time.perf_counter() - began


def search_rounds(store: Store, model: ModelRow, core: ReIDCore, searches: int, rounds: int) -> None:
    with connected(store.settings.home, roles.SUPERUSER) as cursor:
        cursor.execute(_SIGN_IN)
    store.settings = store.settings.model_copy(update={"token": SecretStr(_TOKEN)})
    with store.begin() as connection:
        identities = connection.scalar(text("SELECT count(*) FROM identity_now WHERE unit = 'd1'"))
        keys = connection.scalars(
            text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT :many"), {"many": searches}
        ).all()
    print(f"{rounds} times {searches} searches among {identities} identities", flush=True)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    timed_searches(store, model, core, keys[:3])
    for number, key in enumerate([*keys] * rounds):  # in turn, so that what else the machine does falls on both
        for secured in (True, False) if number % 2 else (False, True):
            secure(store.settings.home, secured)
            seconds[secured].append(timed_searches(store, model, core, [key]))
    with_, without = (statistics.median(seconds[secured]) for secured in (True, False))
    print(f"search: median {with_:.3f} s with, {without:.3f} s without, {with_ / without - 1:+.1%}", flush=True)


def timed_searches(store: Store, model: ModelRow, core: ReIDCore, keys: Sequence[str]) -> float:
    crops = CropStore(store.settings)
    began = time.perf_counter()
    for key in keys:
        asked = SearchParameters(unit=_DISTRICT, crop_key=key, reason=f"benchmark {uuid4()}", operator="anna")
        request = request_search(store, model, asked)
        search(store, lambda _: core, crops, model, request, asked)
    return time.perf_counter() - began


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
