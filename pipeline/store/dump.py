"""Dumps of the database, written and restored with PostgreSQL's own programs from the embedded server's package.

A dump is a file in pg_dump's custom format. It holds what urban_reid_owner owns: tables, functions, rows and grants. It
holds no roles, no passwords and no extension, which the target has before a restore.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Any

from sqlalchemy import URL

from pipeline.store import roles
from pipeline.store.embedded_process import DATABASE, PORT, connect, socket_folder
from pipeline.store.embedded_programs import client
from pipeline.store.embedded_secrets import read_password
from schemas.disk import replacing
from schemas.errors import StoreError

#: Lines at the head of a dump's script that are changed. Functions of revisions before 0008 name types of `public`
#: without saying so; servers before PostgreSQL 17 do not know the other setting.
_HEAD = {
    b"SELECT pg_catalog.set_config('search_path', '', false);\n": b"SET search_path = public;\n",
    b"SET transaction_timeout = 0;\n": b"",
}
_HEAD_LINES = 40
#: What a dump's table of contents says of the schema itself, which belongs to the target.
_OF_THE_SCHEMA = (" SCHEMA - public ", " - SCHEMA public ")


@dataclass(frozen=True)
class Database:
    """A database as the programs reach it: its address with the user's password, and the variables they run with."""

    url: URL
    variables: dict[str, str]
    connect: Callable[[], Any]  # a psycopg2 connection as the address's user
    is_owner: bool  # whether that user is urban_reid_owner or may become it; else he neither dumps nor restores

    @property
    def address(self) -> str:
        """The address without a password, for a command line that others may see."""
        query = {name: value for name, value in self.url.query.items() if name != "password"}
        return URL.create(
            "postgresql", self.url.username, None, self.url.host, self.url.port, self.url.database, query
        ).render_as_string(hide_password=False)

    @property
    def environment(self) -> dict[str, str]:
        password = self.url.password or self.url.query.get("password")
        return self.variables | ({"PGPASSWORD": str(password)} if password else {})


def of_home(home: Path) -> Database:
    """The embedded database of a home, whose server runs."""
    where = {"host": str(socket_folder(home)), "port": str(PORT)}
    url = URL.create("postgresql", roles.OWNER, read_password(home, roles.OWNER), database=DATABASE, query=where)
    return Database(url, {"PATH": os.defpath, "LC_ALL": "C"}, lambda: connect(home, roles.OWNER, DATABASE), True)


def write_dump(
    of: Database,
    path: Path,
    snapshot: str | None = None,
    copy: Callable[[IO[bytes], IO[bytes]], object] = shutil.copyfileobj,
) -> None:
    """Writes a dump, whole or not at all, readable by this user only. `snapshot`: that of pg_export_snapshot().

    copy: from the dump as it comes to the file. Raises StoreError, OSError.
    """
    if not of.is_owner:
        raise StoreError(
            f"{path} cannot be written: the user {of.url.username} may not act as {roles.OWNER}, and row-level "
            f"security hides rows from all others; let a superuser run once: GRANT {roles.OWNER} TO {of.url.username}"
        )
    with replacing(path, mode=0o600) as partial:
        how = ["--format=custom", "--compress=gzip:1", "--exclude-extension=*", f"--role={roles.OWNER}"]
        how += [f"--snapshot={snapshot}"] if snapshot else []
        what = f"{path} cannot be written"
        with (
            partial.open("wb") as file,
            tempfile.TemporaryFile() as complaints,
            _full_disk(what),
            _started(
                "pg_dump", *how, f"--dbname={of.address}", stdout=PIPE, stderr=complaints, env=of.environment
            ) as writing,
        ):
            assert writing.stdout is not None
            copy(writing.stdout, file)
            file.flush()
            if writing.wait():
                complaints.seek(0)
                raise StoreError(f"{what}: {_complaint(complaints.read().decode(errors='replace'))}")


def contents(path: Path) -> str:
    """The table of contents of a dump, a line an object. Raises StoreError if it is not a dump that can be read."""
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    return _run(f"{path} cannot be read", "pg_restore", "--list", str(path), environment=environment)


def revision(path: Path) -> str:
    """The revision of the city's tables in a dump. Raises StoreError if it is no dump of a city, or cannot be read."""
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    rows = ["--data-only", "--table=alembic_version", "--file=-"]
    said = _run(f"{path} cannot be read", "pg_restore", *rows, str(path), environment=environment)
    found = re.search(r"^COPY public\.alembic_version .*\n(\w+)$", said, re.MULTILINE)
    if found is None:
        raise StoreError(f"{path} is no dump of a city: it names no revision of its tables")
    return found[1]


def read_dump(path: Path, to: Database) -> None:
    """Restores a dump into a database without tables, in one transaction: it is there whole or not at all.

    Raises StoreError. The extension `vector` and the roles must be there, and the latter own everything afterwards.
    """
    wanted = [line for line in contents(path).splitlines() if not any(part in line for part in _OF_THE_SCHEMA)]
    with tempfile.TemporaryFile() as entries, tempfile.TemporaryFile() as complaints:
        entries.write("\n".join(wanted).encode())
        entries.seek(0)
        options = ["--use-list=/dev/stdin", "--no-owner", f"--role={roles.OWNER}", "--exit-on-error", "--file=-"]
        target = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={to.address}", "--file=-"]
        with (
            _started("pg_restore", *options, str(path), stdin=entries, stdout=PIPE, stderr=complaints) as reading,
            _started("psql", *target, stdin=PIPE, stdout=DEVNULL, stderr=complaints, env=to.environment) as writing,
        ):
            try:
                assert reading.stdout is not None and writing.stdin is not None
                _copy_script(reading.stdout, writing.stdin)
                # Only a script that has come to its end is committed; a server whose client ends before rolls back.
                if reading.wait() == 0:
                    to_use = f"GRANT USAGE ON SCHEMA public TO {', '.join(roles.PROGRAM)}"
                    writing.stdin.write(f"{to_use};\nCOMMIT;\n".encode())
                writing.stdin.close()
            except BrokenPipeError:  # psql has ended, and says why below
                reading.kill()
            failed = next((p for p, one in (("psql", writing), ("pg_restore", reading)) if one.wait()), None)
        if failed is not None:
            complaints.seek(0)
            raise StoreError(f"{path} cannot be restored: {_complaint(complaints.read().decode(errors='replace'))}")


def database_bytes(of: Database) -> int:
    """Size of the database on its disk, in bytes: about what a dump of it and a restored copy need, each."""
    with closing(of.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


def _copy_script(script: IO[bytes], to: IO[bytes]) -> None:
    to.write(b"BEGIN;\n")
    for _ in range(_HEAD_LINES):
        line = script.readline()
        to.write(_HEAD.get(line, line))
    shutil.copyfileobj(script, to, 1 << 20)


@contextmanager
def _full_disk(what: str) -> Iterator[None]:
    """Turns what the disk of a dump says into StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}") from None


@contextmanager
def _started(program: str, *arguments: str, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([client(program), *arguments], **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def _run(what: str, program: str, *arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [client(program), *arguments],
        stdin=DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
    )
    if done.returncode:
        raise StoreError(f"{what}: {_complaint(done.stderr)}")
    return done.stdout


def _complaint(said: str) -> str:
    """The line of a program's output that names the error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line or "ERROR:" in line), lines[-1] if lines else "silently")
