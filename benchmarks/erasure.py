"""What erasure and retention take: fifty people of a resolved city erased and proved gone; a whole city gone by age.

    python -m benchmarks.erasure [--cameras 48] [--hours 6] [--people 50] [--seed 21]

Simulates a city without pictures and resolves it. Then it erases people, those with the most crops first, and proves
that they are gone; asks for 500 keys whether they were erased, as an ingest does in each transaction; rewrites the
database's files; and has everything that is left go by age. Says at each step whether the decision digest is the same
and the audit verifies.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from benchmarks.cities import fill, simulated
from benchmarks.home import home
from pipeline.city.decision_digest import decision_digest
from pipeline.erasure.absence import verify_absence
from pipeline.erasure.erase import erase
from pipeline.erasure.expire import expire
from pipeline.erasure.scrub import scrub
from pipeline.governance.audit_chain import verify_city
from pipeline.governance.retention import LEVELS, set_retention
from pipeline.governance.tombstones import erased_crops
from pipeline.resolve import resolve_unit, units_within
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.settings import Settings

_COUNTS = text(
    "SELECT (SELECT count(*) FROM crop), (SELECT count(*) FROM identity), (SELECT count(*) FROM match_decision)"
)
_PEOPLE = text("SELECT persistent_id FROM identity_now WHERE unit = 'd1' ORDER BY crops DESC, key LIMIT :most")


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=48)
    parser.add_argument("--hours", type=float, default=6)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seed", type=int, default=21)
    given = parser.parse_args()
    with home() as folder:
        settings = Settings(home=folder / "home", database_url=None)
        with Store.open(settings, "benchmark") as store:
            model = fill(store, simulated(given.cameras, given.hours, given.seed))
            core = open_core(settings, model.directory(settings))
            with timed("resolve"):
                for unit in units_within(store, "d1"):
                    resolve_unit(store, core, model, unit, settings=settings.association)
            _measure(store, given.people)
        with timed("scrub"):
            done = scrub(settings)
        print(f"database: {done.before / 1e6:.0f} MB before, {done.after / 1e6:.0f} MB after")
        with Store.open(settings, "benchmark") as store:
            _expire(store)


def _measure(store: Store, most: int) -> None:
    with store.begin() as connection:
        crops, versions, decisions = connection.execute(_COUNTS).one()
        people = [str(one) for one in connection.execute(_PEOPLE, {"most": most}).scalars()]
        before = decision_digest(connection)
        keys = [bytes(key) for key in connection.execute(text("SELECT key FROM crop LIMIT 500")).scalars()]
    print(f"{crops} crops, {versions} versions of identities, {decisions} decisions")
    _ask(store, keys, "before anything was erased")
    with timed(f"erase {len(people)} people"):
        done = erase(store, "identity", people, actor="benchmark", reason="benchmark")
    print(f"gone: {done.counts['crops']} crops, {done.counts['versions']} versions of identities")
    with timed("prove that they are gone"):
        absence = verify_absence(store, str(done.id), actor="benchmark")
    print(f"found of {absence.hashes} erased names: {len(absence.found)}")
    _ask(store, keys, "with that many erased")
    _check(store, before)


def _ask(store: Store, keys: list[bytes], when: str) -> None:
    with store.begin() as connection:
        erased_crops(connection, keys)
        began = time.perf_counter()
        for _ in range(20):
            erased_crops(connection, keys)
    print(f"asking for {len(keys)} keys, {when}: {(time.perf_counter() - began) / 20 * 1000:.2f} ms")


def _expire(store: Store) -> None:
    with store.begin() as connection:
        before = decision_digest(connection)
    set_retention(store, "", LEVELS, 72, actor="benchmark", reason="benchmark")
    with timed("a run that finds nothing due"):
        expire(store, actor="benchmark", now=datetime.now(UTC))
    with timed("all that is left goes by age"):
        done = expire(store, actor="benchmark", now=datetime.now(UTC) + timedelta(days=400))
    print(f"gone: {done.crops} crops, {done.versions} versions of identities, {done.partitions} partitions")
    _check(store, before)


def _check(store: Store, before: str) -> None:
    with store.begin() as connection:
        same = decision_digest(connection) == before
    print(f"decision digest: {'the same' if same else 'ANOTHER'}; audit: {verify_city(store)}")


if __name__ == "__main__":
    main()
