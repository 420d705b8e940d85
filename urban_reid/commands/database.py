"""urban-reid db: the city's database."""

import time
from pathlib import Path
from typing import Annotated

import typer

from schemas.settings import settings
from schemas.text import byte_size
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, say, shown
from urban_reid.progress import stages

app = typer.Typer(help="The city's database: its state, migrations, backups, address.", no_args_is_help=True)

Backup = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the backup.")]
#: Faults that are printed one by one; --json prints all.
_SHOWN_FAULTS = 20


@app.command(epilog="Example: urban-reid db upgrade")
def upgrade(as_json: AsJson = False) -> None:
    """Bring the database to this program's revision; the embedded one is created and started if needed.

    The embedded database is dumped into the data directory before. A user-supplied server's backups are its operator's:
    `urban-reid db backup` makes one.
    """
    from pipeline.store import upgrade as bring_up

    before, after = bring_up(settings())
    if as_json:
        print_json({"before": before, "after": after})
    elif before == after:
        out().print(f"the database is at revision {shown(after)} already")
    else:
        out().print(f"the database went from revision {shown(before or 'none')} to {shown(after)}")


@app.command(epilog="Example: urban-reid db status --json")
def status(as_json: AsJson = False) -> None:
    """Show where the database is, whether it runs, and its revision. Starts nothing."""
    from pipeline.store import embedded, revision
    from pipeline.store.schema import head, whereabouts

    ours = settings()
    running = ours.database_url is not None or embedded.running(ours.home)
    found = revision(ours)[0] if running else None
    where, _ = whereabouts(ours)
    if as_json:
        print_json({"where": where, "running": running, "revision": found, "newest": head()})
        return
    out().print(shown(where))
    if not running:
        out().print("it is not running; the next command that needs it starts it")
    else:
        out().print(f"it is running, at revision {shown(found or 'none')}; this program needs {shown(head())}")


@app.command(epilog="Example: urban-reid db stop")
def stop(as_json: AsJson = False) -> None:
    """Stop the embedded database, unless it is in use. It stops by itself when the last command ends."""
    from pipeline.store import stop as end

    stopped = end(settings())
    if as_json:
        print_json({"stopped": stopped})
    else:
        out().print("the database is stopped" if stopped else "the database was not running")


@app.command(epilog="Example: urban-reid db reset-passwords")
def reset_passwords(as_json: AsJson = False) -> None:
    """Give the embedded database new passwords, if one of the files that hold them is lost or damaged."""
    from pipeline.store import reset_passwords as reset

    reset(settings())
    if as_json:
        print_json({"reset": True})
    else:
        out().print("the database has new passwords")


@app.command(epilog="Example: urban-reid db url   (while `urban-reid up` keeps it running)")
def url(
    owner: Annotated[
        bool, typer.Option("--owner", help="Of the tables' owner, who sees every row: for pg_dump.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the database's address for other programs, with its password.

    It is that of urban_reid_app, to which row-level security shows what a session was granted.
    """
    from pipeline.store import roles
    from pipeline.store import url as address

    found = address(settings(), roles.OWNER if owner else roles.APP)
    if as_json:
        print_json({"url": found})
    else:
        out().print(shown(found), soft_wrap=True)


@app.command(epilog="Example: urban-reid db backup /mnt/backup/city")
def backup(folder: Backup, as_json: AsJson = False) -> None:
    """Back up database, crops and models into a folder, also while `urban-reid up` runs.

    A further backup into the same folder takes the place of the one before, and copies only the files that are new.
    """
    from pipeline.backup import backup as write

    began = time.perf_counter()
    with stages() as tell:
        done = write(settings(), folder, tell)
    manifest, seconds = done.manifest, time.perf_counter() - began
    if as_json:
        print_json(
            {
                "seconds": round(seconds, 1),
                "copied": {"files": done.copied_files, "bytes": done.copied_bytes},
                "manifest": manifest.model_dump(mode="json"),
            }
        )
        return
    if manifest.missing_pictures:
        say(
            f"{manifest.missing_pictures} pictures that the city names are not in its data directory, nor in the backup"
        )
    for name in manifest.missing_models:
        say(f"the files of model {shown(name)} are missing or damaged, and it is not whole in the backup")
    out().print(
        f"backed up in {seconds:.1f} s: database {byte_size(manifest.database.bytes)}, {manifest.count} files "
        f"{byte_size(manifest.file_bytes)}, of which {done.copied_files} were copied; "
        f"decision digest {manifest.decision_digest}",
        soft_wrap=True,
    )


@app.command(epilog="Example: urban-reid db verify /mnt/backup/city")
def verify(folder: Backup, as_json: AsJson = False) -> None:
    """Check a backup: each file against its hash, and that the dump can be read. Needs no data directory."""
    from pipeline.backup import verify as check

    began = time.perf_counter()
    with stages() as tell:
        found = check(folder, tell)
    manifest, seconds = found.manifest, time.perf_counter() - began
    if as_json:
        print_json({"seconds": round(seconds, 1), "faults": found.faults, "manifest": manifest.model_dump(mode="json")})
    elif found.faults:
        for fault in found.faults[:_SHOWN_FAULTS]:
            out().print(shown(fault), soft_wrap=True)
        out().print(f"the backup has {len(found.faults)} faults; make another one")
    else:
        out().print(
            f"whole, checked in {seconds:.1f} s: taken {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC, database "
            f"{byte_size(manifest.database.bytes)}, {manifest.count} files {byte_size(manifest.file_bytes)}; "
            f"decision digest {manifest.decision_digest}",
            soft_wrap=True,
        )
    if found.faults:
        raise typer.Exit(1)


@app.command(epilog="Example: urban-reid db restore /mnt/backup/city   (into the empty data directory URBAN_REID_HOME)")
def restore(
    source: Annotated[Path, typer.Argument(metavar="DIR|DUMP", help="Folder of a backup, or a file of HOME/backups.")],
    erasures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The city's list of erasures; that of the data directory unless given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty data directory, and an empty database if URBAN_REID_DATABASE_URL names one.

    People who were erased after the backup are erased again, by the list of erasures (erasures.jsonl of the city's data
    directory), before anything else opens the city. A restore that was interrupted goes on when it is run again. A dump
    that preceded a migration holds the database alone, and is restored into a data directory whose database was moved
    away.
    """
    from pipeline.backup import restore as bring_back
    from pipeline.backup import restore_dump

    began = time.perf_counter()
    if source.is_file():
        with stages() as tell:
            digest, erased = restore_dump(settings(), source, tell, erasures=erasures)
        found: dict[str, object] = {"digest": digest, "other_settings": {}, "manifest": None}
        what = f"database {byte_size(source.stat().st_size)}"
    else:
        with stages() as tell:
            done = bring_back(settings(), source, tell, erasures=erasures)
        manifest, digest, erased = done.manifest, done.digest, done.erased
        found = {"digest": digest, "other_settings": done.other_settings, "manifest": manifest.model_dump(mode="json")}
        if not done.has_list:
            say("no list of erasures was found: whoever was erased after this backup is there again; see --erasures")
        what = (
            f"as of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC: database {byte_size(manifest.database.bytes)}, "
            f"{manifest.count} files {byte_size(manifest.file_bytes)}"
        )
        for variable, value in done.other_settings.items():
            say(f"the city was resolved with {variable}={shown(value)}; set that, or windows are resolved another way")
    seconds = time.perf_counter() - began
    if as_json:
        again = None if erased is None else {"erasure": str(erased.id), "counts": dict(erased.counts)}
        print_json({"seconds": round(seconds, 1), "erased": again} | found)
    else:
        if erased is not None:
            say(
                f"erased again, because it was erased after the backup: {erased.counts['people']} identities, "
                f"{erased.counts['crops']} crops, {erased.counts['probes']} uploaded pictures; as erasure {erased.id}"
            )
        state = f"decision digest {digest}" if digest else "of an earlier revision, which the next command migrates"
        out().print(f"restored in {seconds:.1f} s, {what}; {state}", soft_wrap=True)
