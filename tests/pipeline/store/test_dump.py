"""A database is dumped with pg_dump and restored with psql, without an error; what it decided is still decided."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from pipeline.city.status import status
from pipeline.city.watermarks import mark_everything
from pipeline.store import Store, embedded, embedded_programs, roles, schema
from pipeline.store.user_supplied import supplied_url
from schemas.settings import Settings
from tests.helpers.homes import program_url
from tests.helpers.orphans import count_orphans
from tests.helpers.rows import insert_model
from tests.helpers.town import Town

_OURS = "pronamespace = 'public'::regnamespace AND pg_get_userbyid(proowner) = :owner"


@pytest.fixture
def empty_database(server: embedded.EmbeddedServer) -> Iterator[str]:
    superuser = server.connect("postgres", "postgres")
    superuser.autocommit = True
    with superuser.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE restored OWNER {roles.OWNER}")
        cursor.execute("CREATE ROLE dumper SUPERUSER LOGIN PASSWORD 'dumper'")
        yield "restored"
        cursor.execute("DROP DATABASE restored WITH (FORCE)")
        cursor.execute("DROP ROLE dumper")
    superuser.close()


def program(server: embedded.EmbeddedServer, name: str, database: str, *arguments: str) -> str:
    """Runs one of the wheel's programs on a database of the server, and returns what it prints."""
    socket = supplied_url(Settings(database_url=server.url())).query["host"]
    home = Path(str(socket)).parent
    folder = embedded_programs._folder(home, embedded_programs.account_of(home))
    address = f"host={socket} port=5432 user=dumper dbname={database}"
    done = subprocess.run(
        [folder / name, "-d", address, *arguments], capture_output=True, text=True, env={"PGPASSWORD": "dumper"}
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def test_a_dump_is_restored_without_an_error(
    server: embedded.EmbeddedServer, town: Town, lines: list[str], empty_database: str, tmp_path: Path
) -> None:
    town.take_in(lines[:60])
    assert town.resolve() > 0
    before = status(town.store)
    database = supplied_url(town.store.settings).database
    assert database is not None
    dump = tmp_path / "dump.sql"
    program(server, "pg_dump", database, "-f", str(dump))
    program(server, "psql", empty_database, "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", str(dump))
    restored = town.store.settings.model_copy(update={"database_url": program_url(server, empty_database)})
    with Store.open(restored) as store:
        assert status(store) == before
        with store.begin() as connection:
            assert set(count_orphans(connection).values()) == {0}
            mark_everything(connection)
        with store.engine.connect() as connection:  # rolled back
            every_function_works(connection)
        original, town.store = town.store, store
        assert town.resolve() == 0
        town.store = original


def every_function_works(connection: Connection) -> None:
    model = insert_model(connection, name="another")
    connection.execute(text("SET LOCAL search_path = ''"))
    connection.execute(text("INSERT INTO public.urban_unit (code) VALUES ('d9'), ('d9/s1')"))
    assert connection.scalar(text("SELECT parent FROM public.urban_unit WHERE code = 'd9/s1'")) == "d9"
    connection.execute(text("SELECT public.analyze_grown(0)"))
    connection.execute(text("SELECT public.ensure_partition('prototype', :model, '2031-01-01')"), {"model": model})
    connection.execute(text("SELECT public.remove_model(:model)"), {"model": model})
    assert not connection.scalar(text("SELECT count(*) FROM public.model WHERE id = :model"), {"model": model})


def test_every_function_names_what_it_needs_by_its_schema(server: embedded.EmbeddedServer) -> None:
    """SQL functions may be stored parsed; others have a path that finds nothing of ours, and run in the test above."""
    with schema.session(lambda: server.connect(roles.OWNER)) as connection:
        functions = connection.execute(
            text(
                "SELECT proname, lanname, prosqlbody IS NOT NULL AS parsed, proconfig FROM pg_proc "
                f"JOIN pg_language l ON l.oid = prolang WHERE {_OURS} ORDER BY proname"
            ),
            {"owner": roles.OWNER},
        ).all()
    assert len(functions) >= 5
    for function in functions:
        has_own_path = "search_path=pg_catalog, pg_temp" in (function.proconfig or [])
        assert has_own_path or (function.lanname == "sql" and function.parsed), function.proname
