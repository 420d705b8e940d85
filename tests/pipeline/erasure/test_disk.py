"""The second proof: no byte of the data directory holds what was erased, once the database's files are written anew."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.backup import backup, restore
from pipeline.backup.earlier import earlier_backups
from pipeline.city.decision_digest import decision_digest
from pipeline.erasure.absence import verify_absence
from pipeline.erasure.erase import erase
from pipeline.erasure.erasure_list import list_path
from pipeline.erasure.scrub import scrub
from pipeline.governance.audit_chain import verify_city
from pipeline.store import Store, stop
from pipeline.store.copy import copy_out
from schemas.errors import InputError
from schemas.settings import Settings
from tests.helpers.thin_town import ThinTown, crowd

_KEYS = text(
    "SELECT i.key, i.persistent_id, c.key AS crop, c.picture FROM identity_now n "
    "CROSS JOIN unnest(n.tracklets) AS t(id) JOIN identity i ON i.id = t.id "
    "JOIN identity_member m ON m.identity_id = t.id JOIN crop c ON c.id = m.crop_id "
    "WHERE n.persistent_id = ANY(CAST(:people AS uuid[]))"
)
_VECTORS = (
    "SELECT e.v FROM identity_now n CROSS JOIN unnest(n.tracklets) AS t(id) "
    "JOIN identity_member m ON m.identity_id = t.id JOIN crop_embedding e ON e.crop_id = m.crop_id "
    "WHERE n.persistent_id = ANY(CAST(:people AS uuid[]))"
)


_PERSON = text("SELECT EXISTS (SELECT FROM identity WHERE persistent_id = CAST(:id AS uuid))")


def raw_names(store: Store, people: list[str]) -> set[bytes]:
    """Keys and hashes of people's tracklets and crops, and ids, as the database's files hold them."""
    with store.begin() as connection:
        rows = connection.execute(_KEYS, {"people": people}).all()
    names = {bytes(one) for row in rows for one in (row.key, row.crop, row.picture)}
    return names | {row.persistent_id.bytes for row in rows} | {UUID(one).bytes for one in people}


def needles(store: Store, people: list[str]) -> set[bytes]:
    """The same, as any text holds them, and their vectors."""
    raw = raw_names(store, people)
    with store.begin() as connection:
        vectors = np.asarray(copy_out(connection, _VECTORS, {"people": people}, {"v": "halfvec"})["v"], np.float16)
    texts = {one.hex().encode() for one in raw} | {str(UUID(bytes=one)).encode() for one in raw if len(one) == 16}
    return raw | texts | {vector.tobytes() for vector in vectors}


def files(home: Path) -> Iterator[Path]:
    return (path for path in home.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size)


def held_in(home: Path, wanted: set[bytes]) -> dict[bytes, str]:
    """Which of the needles, of 8 bytes or more, a file of the data directory holds, and which one."""
    starts: dict[int, list[bytes]] = {}
    for needle in wanted:
        starts.setdefault(int.from_bytes(needle[:8], "little"), []).append(needle)
    sought = np.array(sorted(starts), np.uint64)
    found: dict[bytes, str] = {}
    none = np.empty(0, "<u8")
    for path in files(home):
        content = path.read_bytes()
        for shift in range(8):
            words = np.frombuffer(content, "<u8", (len(content) - shift) // 8, shift) if len(content) > 15 else none
            for at in np.flatnonzero(np.isin(words, sought)).tolist():
                place = 8 * at + shift
                for needle in starts[int(words[at])]:
                    if content.startswith(needle, place):
                        found[needle] = str(path)
    return found


@pytest.mark.system
def test_no_byte_of_the_data_directory_holds_an_erased_person(home: Path, tmp_path: Path) -> None:
    settings = Settings(home=home, database_url=None)
    with Store.open(settings, "pytest") as store:
        town = ThinTown(store, crowd(cameras=8, people=60, days=0.05, seed=5), intercept=10.0)
        town.take_in()
        town.resolve()
        query = text("SELECT persistent_id FROM identity_now WHERE unit = 'd1' ORDER BY crops DESC, key LIMIT 60")
        with store.begin() as connection:
            people = [str(one) for one in connection.execute(query).scalars()]
            before = decision_digest(connection)
        assert len(people) == 60
        there, raw = raw_names(store, people[:50]), raw_names(store, people[50:])
        erased = needles(store, people[:50]) - needles(store, people[50:])
    stop(settings)
    assert held_in(home, there).keys() == there  # the search works
    assert len(held_in(home, erased)) > len(there)  # and finds vectors
    with Store.open(settings, "pytest") as store:
        done = erase(store, "identity", people[:50], actor="anna", reason="asked for")
        absence = verify_absence(store, str(done.id), actor="anna")
        assert absence.found == ()
    scrub(settings)
    stop(settings)
    assert held_in(home, erased) == {}
    assert held_in(home, raw).keys() == raw
    with Store.open(settings, "pytest") as store:
        with store.begin() as connection:
            assert decision_digest(connection) == before
        assert verify_city(store).faults == []
    backup(settings, tmp_path / "backup")
    stop(settings)
    again = home / "again"
    restore(Settings(home=again, database_url=None), tmp_path / "backup")
    stop(Settings(home=again, database_url=None))
    assert held_in(again, erased) == {} and held_in(again, raw).keys() == raw


@pytest.mark.system
def test_a_restored_backup_of_before_forgets_who_was_erased_since(home: Path, tmp_path: Path) -> None:
    city = Settings(home=home / "city", database_url=None)
    with Store.open(city, "pytest") as store:
        erased, people, crops, before = _erased_after_a_backup(store, tmp_path / "backup")
        backup(city, tmp_path / "later")
    stop(city)
    without = Settings(home=home / "without", database_url=None)
    empty = restore(without, tmp_path / "backup")
    assert (empty.has_list, empty.erased) == (False, None)
    stop(without)
    settings = Settings(home=home / "restored", database_url=None)
    restored = restore(settings, tmp_path / "backup", erasures=list_path(city))
    assert restored.has_list and restored.erased is not None
    assert restored.erased.counts["crops"] == crops and restored.erased.counts["people"] >= 1
    with Store.open(settings, "pytest") as other:
        with other.begin() as connection:
            assert decision_digest(connection) == before
            assert not connection.scalar(_PERSON, {"id": people[0]}) and connection.scalar(_PERSON, {"id": people[1]})
        assert verify_absence(other, people[0], actor="anna").found == ()
        assert verify_city(other).faults == []
    stop(settings)
    scrub(settings)
    stop(settings)
    assert held_in(settings.home, {one for one in erased if len(one) > 16}) == {}
    other_list = tmp_path / "other.jsonl"
    other_list.write_text('{"format": "urban-reid erasures 1", "salt": "' + "00" * 32 + '"}\n')
    with pytest.raises(InputError, match="another city"):
        restore(Settings(home=home / "wrong", database_url=None), tmp_path / "later", erasures=other_list)


def _erased_after_a_backup(store: Store, folder: Path) -> tuple[set[bytes], list[str], int, str]:
    """Names of a person who is erased after a backup, the ids of that one and another, how many crops, the digest."""
    town = ThinTown(store, crowd(cameras=8, people=60, days=0.05, seed=5), intercept=10.0)
    town.take_in()
    town.resolve()
    query = text("SELECT persistent_id FROM identity_now WHERE unit = 'd1' ORDER BY crops DESC, key LIMIT 2")
    with store.begin() as connection:
        people = [str(one) for one in connection.execute(query).scalars()]
        before = decision_digest(connection)
    backup(store.settings, folder)
    erased = needles(store, people[:1]) - needles(store, people[1:])
    done = erase(store, "identity", people[:1], actor="anna", reason="asked for")
    assert str(folder) in "".join(earlier_backups(store))
    return erased, people, done.counts["crops"], before
