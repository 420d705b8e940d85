"""Migrations, and an own server."""

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import numpy as np
import pytest
from alembic import command
from sqlalchemy import make_url, text

from pipeline.store import Store, embedded, revision, roles, schema, stop, upgrade, url
from pipeline.store.copy import copy_in
from pipeline.store.partitions import ensure_partitions
from pipeline.store.user_supplied import connect as connect_supplied
from pipeline.store.user_supplied import supplied_url
from schemas.errors import StoreError, StoreUnavailable
from schemas.settings import Settings
from tests.helpers.orphans import count_orphans
from tests.helpers.rows import insert_city, insert_crop, insert_identity, insert_model, insert_run

DAY = date(2026, 1, 1)


def fill(store: Store) -> None:
    with store.begin() as connection:
        insert_city(connection)
        model = insert_model(connection)
        crop = insert_crop(connection)
        run = insert_run(connection, model)
        identity = insert_identity(connection, run)
        event = text("INSERT INTO identity_event (run_id, kind, persistent_id, other_id) VALUES (:run, :kind, :a, :b)")
        for kind, other in (("create", None), ("split", uuid4()), ("move", uuid4()), ("retire", None)):
            connection.execute(event, {"run": run, "kind": kind, "a": uuid4(), "b": other})
        ensure_partitions(connection, "crop_embedding", model, [DAY])
        ensure_partitions(connection, "prototype", model, [DAY])
        vector = {"model_id": ("int4", [model]), "day": ("date", [DAY]), "v": ("halfvec", np.ones((1, 4)))}
        copy_in(connection, "crop_embedding", vector | {"crop_id": ("int8", [crop])})
        mean = {"ordinal": ("int2", [0]), "kind": ("enum", ["mean"]), "weight": ("float4", [1.0])}
        copy_in(connection, "prototype", vector | mean | {"identity_id": ("int8", [identity])})


def test_down_and_up_on_a_database_with_data(server: embedded.EmbeddedServer, store: Store) -> None:
    fill(store)
    database = supplied_url(store.settings).database

    def as_owner() -> object:
        return server.connect(roles.OWNER, database)

    assert revision(store.settings) == (schema.head(), schema.head())
    assert schema.migrate(as_owner, command.downgrade, "base") == (schema.head(), None)
    with store.begin() as connection:
        left = text(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = ANY('{r,p,v,S}')"
        )
        assert connection.scalars(left).all() == ["alembic_version"]
        types = "SELECT count(*) FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')"
        assert connection.scalar(text(types)) == 0
    with pytest.raises(StoreError, match=r"has revision none .* `urban-reid db upgrade`"):
        Store.open(store.settings)
    assert schema.migrate(as_owner) == (None, schema.head())
    assert schema.migrate(as_owner) == (schema.head(), schema.head())
    with Store.open(store.settings) as again:
        fill(again)
        with again.begin() as connection:
            assert set(count_orphans(connection).values()) == {0}


def test_a_database_of_a_newer_program_is_refused(server: embedded.EmbeddedServer, store: Store) -> None:
    database = supplied_url(store.settings).database
    owner = server.connect(roles.OWNER, database)
    with owner, owner.cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = '9999'")
    owner.close()
    with pytest.raises(StoreError, match="revision 9999, which this program does not know"):
        Store.open(store.settings)
    with pytest.raises(StoreError, match="9999"):
        schema.migrate(lambda: server.connect(roles.OWNER, database))


def test_migrations_are_read_from_the_package_wherever_we_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = nowhere\n")
    (tmp_path / "migrations").mkdir()
    monkeypatch.chdir(tmp_path)
    schema.head.cache_clear()
    assert schema.head() == "0006"


@pytest.fixture
def own(server: embedded.EmbeddedServer) -> Iterator[Settings]:
    """An own server as an administrator leaves it: a login that owns an empty database with `vector`, no more."""
    superuser = server.connect("postgres", "postgres")
    superuser.autocommit = True
    cursor = superuser.cursor()
    cursor.execute("CREATE ROLE operator LOGIN CREATEROLE PASSWORD 'p@ss:word/%'")
    cursor.execute("CREATE DATABASE own_server OWNER operator")
    inside = server.connect("postgres", "own_server")
    with inside, inside.cursor() as inner:
        inner.execute("CREATE EXTENSION vector")
    inside.close()
    host = supplied_url(Settings(database_url=server.url())).query["host"]
    address = f"postgresql://operator:{quote('p@ss:word/%', safe='')}@/own_server?host={host}"
    yield Settings(home=Path("/proc/not-used"), database_url=address)
    cursor.execute("DROP DATABASE own_server WITH (FORCE)")
    for role in ("other_owner", "other_app", "operator"):
        cursor.execute(f"DROP ROLE IF EXISTS {role}")
    superuser.close()


def test_an_own_server_is_migrated_by_upgrade_alone(server: embedded.EmbeddedServer, own: Settings) -> None:
    with pytest.raises(StoreError, match=r"has revision none .*run `urban-reid db upgrade`"):
        Store.open(own)
    with pytest.raises(StoreError, match="refused: permission denied to grant role"):
        upgrade(own)  # the roles belong to somebody else
    superuser = server.connect("postgres", "postgres")
    with superuser, superuser.cursor() as cursor:
        cursor.execute("GRANT urban_reid_owner, urban_reid_app TO operator")
    superuser.close()
    assert revision(own) == (None, schema.head())
    assert upgrade(own) == (None, schema.head())
    with Store.open(own) as store:
        fill(store)
        with store.begin() as connection:
            assert connection.execute(text("SELECT session_user, current_user")).one() == ("operator", roles.APP)
            owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
            assert connection.scalars(text(owners)).all() == [roles.OWNER]
    assert own.database_url is not None
    assert make_url(url(own)) == make_url(own.database_url)
    with pytest.raises(StoreError, match="does not stop"):
        stop(own)


def test_preparing_an_own_server_makes_the_roles(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "OWNER", "other_owner")
    monkeypatch.setattr(roles, "APP", "other_app")
    for _ in range(2):
        with schema.session(lambda: connect_supplied(supplied_url(own))) as connection, connection.begin():
            schema.prepare_supplied(connection)
            for role in ("other_owner", "other_app"):
                connection.execute(text(f"SET LOCAL ROLE {role}"))
            connection.execute(text("RESET ROLE"))
    with schema.session(lambda: connect_supplied(supplied_url(own))) as connection, connection.begin():
        connection.execute(text("DROP OWNED BY other_owner"))


def test_an_own_server_without_vector(server: embedded.EmbeddedServer, own: Settings) -> None:
    superuser = server.connect("postgres", "own_server")
    with superuser, superuser.cursor() as cursor:
        cursor.execute("DROP EXTENSION vector")
    superuser.close()
    with pytest.raises(StoreError, match="no extension `vector`"):
        Store.open(own)
    with pytest.raises(StoreError, match='permission denied to create extension "vector"'):
        upgrade(own)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_the_address_is_taken_in_every_usual_form(scheme: str) -> None:
    address = supplied_url(Settings(database_url=f"{scheme}://me:secret@db.example:5433/city?sslmode=require"))
    assert address == make_url("postgresql+psycopg2://me:secret@db.example:5433/city?sslmode=require")


@pytest.mark.parametrize(
    "address", ["mysql://me:secret@host/city", "me:secret@host", "postgresql://me:secret@host:x/c"]
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(StoreError, match="URBAN_REID_DATABASE_URL") as refusal:
        Store.open(Settings(database_url=address))
    assert "secret" not in str(refusal.value)


def test_an_own_server_that_does_not_answer() -> None:
    settings = Settings(database_url="postgresql://me:secret@127.0.0.1:1/city")
    for attempt in (Store.open, upgrade, revision):
        with pytest.raises(
            StoreUnavailable, match=r"postgresql\+psycopg2://me:\*\*\*@127\.0\.0\.1:1/city.*refused"
        ) as refusal:
            attempt(settings)
        assert "secret" not in str(refusal.value)
        assert os.linesep not in str(refusal.value)
