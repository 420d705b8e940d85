"""Checks of the city's database, and of the files that its rows name. Migrates nothing."""

import shutil
import time
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from pipeline.city.status import gone_pictures
from pipeline.city.units import find_city
from pipeline.crops.context_frames import context_store, count_expired, count_frames, named_frames
from pipeline.crops.crop_store import PROBES, CropStore, Place
from pipeline.doctor.cameras import check_cameras, check_detectors
from pipeline.doctor.check import Check, ok, to_do, unknown
from pipeline.encryption.data_keys import DataKeys
from pipeline.governance.keys import keys_of
from pipeline.ingest.earlier_pictures import earlier_pictures
from pipeline.ingest.features import SOURCE
from pipeline.registry import models
from pipeline.store import Store, embedded, revision, schema
from pipeline.store.embedded_home import exists
from pipeline.store.embedded_programs import MAJOR, major_of
from reid_core.files import model_digest, read_card
from reid_core.speed.kept import read, this_machine
from schemas.errors import PicturesUnavailable, UrbanReidError
from schemas.settings import Settings
from schemas.text import byte_size

_NAMES = ("rows", "keys", "pictures", "files", "context", "models", "arithmetic", "clock", "growth")
_SLACK = timedelta(seconds=60)
_DAYS = 7
_ENOUGH_DAYS, _YEARS = 30, 1000


def check_city(settings: Settings) -> Iterator[Check]:
    with ExitStack() as stack:
        try:
            if settings.database_url is None:
                if not exists(settings.home):
                    yield ok("database", "there is none yet; the first command that needs it makes it")
                    return
                if (major := major_of(settings.home)) != MAJOR:
                    yield from _to_upgrade(f"it is of PostgreSQL {major}, and this program has {MAJOR}")
                    return
                stack.enter_context(embedded.hold(settings.home))
            found, newest = revision(settings)
            if found is None or (found != newest and schema.is_known(found)):
                yield from _to_upgrade(f"it has revision {found or 'none'}, and this program needs {newest}")
                return
            store = stack.enter_context(Store.open(settings, "urban-reid doctor"))
            with store.begin() as connection:
                schema.check_versions(connection)
                checks = [_database(connection, settings, found), _rows(connection)]
            checks += _replica(store)
        except UrbanReidError as error:
            yield to_do("database", str(error), "do what this line says, and look again")
            yield from (unknown(name, "needs the database") for name in _NAMES)
            return
        yield from checks
        yield check_keys(store.settings)
        yield from _with_keys(lambda: [*_pictures(store)], "pictures", "files")
        yield from _with_keys(lambda: [check_context_frames(store)], "context")
        yield _models(store)
        yield _arithmetic(store)
        yield _clock(store)
        yield _growth(store)
        yield check_detectors(store)
        yield from check_cameras(store)


def _with_keys(look: Callable[[], list[Check]], *names: str) -> list[Check]:
    """Checks that ask for pictures' names, which the keys give; unknown where these cannot be read."""
    try:
        return look()
    except UrbanReidError:  # which the check of keys says
        return [unknown(name, "needs the key file and the keys that it wraps") for name in names]


def _to_upgrade(found: str) -> Iterator[Check]:
    yield to_do("database", found, "run `urban-reid db upgrade`, which dumps it first")
    yield from (unknown(name, "needs the database at its version") for name in _NAMES)


def _database(connection: Connection, settings: Settings, revision: str) -> Check:
    server = connection.scalar(text("SHOW server_version"))
    vector = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    used, most = connection.execute(
        text("SELECT count(*), current_setting('max_connections')::int FROM pg_stat_activity WHERE datid IS NOT NULL")
    ).one()
    kind = "embedded" if settings.database_url is None else "user-supplied"
    said = f"{kind} PostgreSQL {server}, pgvector {vector}, revision {revision}, {used} of {most} connections"
    if used > 0.8 * most:
        return to_do("database", said, "end programs that hold many, or raise max_connections")
    return ok("database", said)


def _replica(store: Store) -> list[Check]:
    state = store.replica_state()
    if state is None:
        return []
    if state.reason:
        do = "see that it runs and follows the primary, which is read in its place"
        return [to_do("replica", f"URBAN_REID_REPLICA_URL: {state.reason}", do)]
    return [ok("replica", f"it is read; it had all of the primary's log within {state.waited_s:.3f} s")]


def _rows(connection: Connection) -> Check:
    """Rows that point to nothing. Foreign keys forbid most of them, unless a restore went around those."""
    unproved = connection.scalars(
        text("SELECT conname FROM pg_constraint WHERE contype = 'f' AND NOT convalidated")
    ).all()
    lonely = connection.scalar(
        text(
            "SELECT count(*) FROM identity i JOIN run r ON r.id = i.run_id WHERE NOT i.retired "
            "AND r.erased_at IS NULL AND NOT EXISTS (SELECT FROM identity_member m WHERE m.identity_id = i.id)"
        )
    )
    if unproved:
        return to_do("rows", f"foreign keys were never proved: {', '.join(unproved)}", "restore the last backup")
    if lonely:
        return to_do(
            "rows", f"{lonely} identities have no member", "restore the last backup, and report it with the log"
        )
    return ok("rows", "each row's references exist")


def _pictures(store: Store) -> Iterator[Check]:
    """Pictures without a file, and files without a picture."""
    crops = CropStore(store.settings)
    with store.begin() as connection:
        gone = gone_pictures(connection)
        named = connection.execute(
            text(
                "SELECT picture, owner, day, bool_and(gone) FILTER (WHERE NOT withdrawn) AS gone, "
                "bool_and(withdrawn) AS withdrawn FROM ("
                "  SELECT picture, split_part(camera, '/', 1) AS owner, day, picture_gone_at IS NOT NULL AS gone, "
                "  withdrawn_at IS NOT NULL AS withdrawn FROM crop WHERE source <> :features UNION ALL "
                "  SELECT picture, :probes, (uploaded_at AT TIME ZONE 'UTC')::date, false, false FROM probe"
                ") AS named GROUP BY picture, owner, day"
            ),
            {"features": SOURCE, "probes": PROBES},
        ).all()
    there = set(crops.files.names())
    names = {_file(crops, there, Place(row.owner, row.day), bytes(row.picture)): row for row in named}
    wanted = {name: row.gone for name, row in names.items() if not row.withdrawn}
    withdrawn = {name for name, row in names.items() if row.withdrawn}
    missing, unnamed, parts = {name for name, is_gone in wanted.items() if not is_gone} - there, 0, 0
    stale = time.time() - 3600
    for name in there:
        if name.endswith(".part"):
            info = crops.files.info(name)
            parts += info is not None and info.modified_at < stale
        elif name not in wanted and name not in withdrawn:
            unnamed += 1
    if missing:
        yield to_do(
            "pictures",
            f"{len(missing)} of {len(wanted)} pictures have no file, for example {crops.files.where(min(missing))}",
            "bring the files back from a backup, or run `urban-reid resolve`, which marks them as gone and goes on",
        )
    elif gone:
        yield to_do(
            "pictures", f"{gone} crops have lost their picture", "bring the files back from a backup, if there is one"
        )
    else:
        yield ok("pictures", f"all {len(wanted)} pictures have their file")
    if unnamed or parts:
        yield to_do(
            "files",
            f"{unnamed} files in {crops.files.place} are no picture of a crop, and {parts} are parts of one",
            "repeat ingests that were killed, which need them; what is left then may be removed",
        )
    else:
        yield ok("files", "each file in the crop store is a crop's or a probe's picture")


def _file(pictures: CropStore, there: Set[str], place: Place, sha256: bytes) -> str:
    """The name that the picture has among the names that are there, or should have."""
    names = pictures.names(place, sha256)
    return next((name for name in names if name in there), names[0])


def check_context_frames(store: Store) -> Check:
    contexts = context_store(store.settings)
    with store.begin() as connection:
        many, expired = count_frames(connection), count_expired(connection, store.settings)
        frames = named_frames(connection)
    there = {name for name in contexts.files.names() if not name.endswith(".part")}
    named = {_file(contexts, there, place, picture) for place, picture in frames}
    kept = f"{many} context frames, each kept for {store.settings.context_days} days"
    if named - there:
        gone = f"{len(named - there)} of them have no file, for example {contexts.files.where(min(named - there))}"
        return to_do("context", f"{kept}; {gone}", "bring the files back from a backup, or wait until they are too old")
    if there - named:
        return to_do(
            "context",
            f"{kept}; {len(there - named)} files in {contexts.files.place} are none of them",
            "repeat ingests that were killed, which need them; what is left then may be removed",
        )
    if expired:
        return to_do("context", f"{kept}; {expired} are older", "run `urban-reid up`, which removes them")
    return ok("context", kept)


def check_keys(settings: Settings) -> Check:
    """Whether the keys of pictures can be read, and whether there are pictures that are not encrypted."""
    keys = DataKeys(settings)
    try:
        names = list(keys.names())
        for owner, _, day in (name.partition("/") for name in names):
            keys.find(owner, date.fromisoformat(day))
        found = keys_of(settings)
    except PicturesUnavailable as error:
        return to_do("keys", str(error), "see that it answers, and look again: nothing is lost by that")
    except UrbanReidError as error:
        return to_do("keys", str(error), "bring the file back: without it these pictures cannot be read")
    said = f"{len(names)} days of a district have a key, which {found.file} wraps"
    stores = CropStore(settings), context_store(settings)
    earlier = sum(1 for pictures in stores for _ in earlier_pictures(pictures))
    if earlier:
        return to_do("keys", f"{said}; {earlier} pictures are not encrypted", "run `urban-reid pictures encrypt`")
    return ok("keys", said + (", and lies in the data directory itself" if found.within_home else ""))


def _models(store: Store) -> Check:
    found = models(store)
    faults = []
    for model in found:
        directory = model.directory(store.settings)
        try:
            if model_digest(read_card(directory)) != model.digest:
                faults.append(f"{directory} holds another model than {model.name}")
        except UrbanReidError as error:
            faults.append(str(error))
    if faults:
        return to_do(
            "models",
            f"{faults[0]}" + (f"; and {len(faults) - 1} more" if len(faults) > 1 else ""),
            "bring the folder back from a backup, or from where the model came",
        )
    if not found:
        return ok("models", "none is registered yet")
    in_use = [model.name for model in found if model.in_use]
    if not in_use:
        return to_do("models", f"{len(found)} models, none in use", "`urban-reid models use NAME` puts one in use")
    return ok("models", f"{len(found)} with all their files; {in_use[0]} is in use")


def _arithmetic(store: Store) -> Check:
    """What the model in use is computed with, and what this machine was found to do fastest."""
    used = next((model for model in models(store) if model.in_use), None)
    if used is None:
        return ok("arithmetic", "no model is in use")
    said = f"{used.name} is computed as the settings say"
    if used.card.arithmetic is not None:
        said = f"{used.name} is computed with {used.card.arithmetic}: {used.card.arithmetic.why}"
    found = read(store.settings)
    if found is None:
        return ok("arithmetic", f"{said}; nothing was measured here yet")
    trials = [
        f"{what}: {', '.join(f'{name} {speed:g}' for name, speed in speeds.items())}"
        for what, speeds in found.speeds.items()
    ]
    here = "" if found.machine == this_machine() else ", another machine than this one"
    return ok("arithmetic", f"{said}; on {found.machine.processor}{here}, times as fast: {'; '.join(trials)}")


def _clock(store: Store) -> Check:
    city = find_city(store)
    zone = ZoneInfo(city.timezone) if city else UTC
    with store.begin() as connection:
        now, crop, said = connection.execute(
            text(
                "SELECT clock_timestamp(), "
                "(SELECT max(captured_at) FROM crop WHERE timed AND withdrawn_at IS NULL), (SELECT max(at) FROM audit)"
            )
        ).one()
    ours = datetime.now(UTC)
    if abs(now - ours) > _SLACK:
        return to_do("clock", f"the database's clock and this machine's are {abs(now - ours)} apart", "set both by NTP")
    for what, moment in (("a crop was taken", crop), ("an entry of the audit was written", said)):
        if moment is not None and moment > ours + _SLACK:
            return to_do(
                "clock",
                f"{what} at {moment.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}, which lies in the future",
                "set this machine's clock, and look at the cameras' clocks",
            )
    return ok("clock", f"{ours.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}; no crop and no entry is later")


def _growth(store: Store) -> Check:
    home = store.settings.home
    taken = sum(path.stat().st_size for path in store.settings.crops_dir.rglob("*") if path.is_file())
    with store.begin() as connection:
        database, crops, lately = connection.execute(
            text(
                "SELECT pg_database_size(current_database()), count(*), "
                f"count(*) FILTER (WHERE ingested_at > now() - interval '{_DAYS} days') FROM crop"
            )
        ).one()
    prefect = home / "prefect" / "prefect.db"
    crops_here = {"crops": taken} if store.settings.pictures_url is None else {}
    parts = crops_here | {"database": database, "Prefect": _bytes(prefect)}
    said = ", ".join(f"{name} {byte_size(count)}" for name, count in parts.items())
    if not lately or not home.is_dir():
        return ok("growth", f"{said}; no crop came in the last {_DAYS} days")
    a_day = (taken + (database if store.settings.database_url is None else 0)) / crops * lately / _DAYS
    days = shutil.disk_usage(home).free / max(a_day, 1)
    room = f"{days:.0f} days" if days < _YEARS else "years"
    said += f"; {byte_size(a_day)} a day in the last {_DAYS} days, room for {room}"
    if days < _ENOUGH_DAYS:
        return to_do("growth", said, "make room, or keep the data for a shorter time")
    return ok("growth", said)


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
