"""A PostgreSQL server supplied by the user."""

import os
import re

import pytest
from sqlalchemy import make_url, text

from pipeline.store import Store, embedded, reset_passwords, revision, roles, schema, stop, upgrade, url, user_supplied
from pipeline.store.user_supplied import supplied_url
from schemas.errors import StoreError, StoreUnavailable
from schemas.settings import Settings
from tests.helpers.rows import fill


def test_a_user_supplied_server_is_migrated_by_upgrade_alone(
    supplied: Settings, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(StoreError, match=r"has revision none .*run `urban-reid db upgrade`"):
        Store.open(supplied)
    with pytest.raises(StoreError, match="refused: permission denied to grant role"):
        upgrade(supplied)  # the roles belong to somebody else
    request.getfixturevalue("granted")
    assert revision(supplied) == (None, schema.head())
    assert upgrade(supplied) == (None, schema.head())
    with Store.open(supplied) as store:
        fill(store)
        with store.begin() as connection:
            assert connection.execute(text("SELECT session_user, current_user")).one() == ("operator", roles.APP)
            owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
            assert connection.scalars(text(owners)).all() == [roles.OWNER]
    assert supplied.database_url is not None
    assert make_url(url(supplied)) == make_url(supplied.database_url)
    for attempt, message in ((stop, "does not stop"), (reset_passwords, "not ours to change")):
        with pytest.raises(StoreError, match=message):
            attempt(supplied)


def test_preparing_a_user_supplied_server_creates_the_roles(
    supplied: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "OWNER", "other_owner")
    monkeypatch.setattr(roles, "APP", "other_app")
    for _ in range(2):
        with schema.session(lambda: user_supplied.connect(supplied_url(supplied))) as connection, connection.begin():
            schema.prepare_supplied(connection)
            for role in ("other_owner", "other_app"):
                connection.execute(text(f"SET LOCAL ROLE {role}"))
            connection.execute(text("RESET ROLE"))
    with schema.session(lambda: user_supplied.connect(supplied_url(supplied))) as connection, connection.begin():
        connection.execute(text("DROP OWNED BY other_owner"))


def test_a_user_supplied_server_without_vector(server: embedded.EmbeddedServer, supplied: Settings) -> None:
    superuser = server.connect("postgres", "supplied")
    with superuser, superuser.cursor() as cursor:
        cursor.execute("DROP EXTENSION vector")
    superuser.close()
    with pytest.raises(StoreError, match="no extension `vector`"):
        Store.open(supplied)
    with pytest.raises(StoreError, match='permission denied to create extension "vector"'):
        upgrade(supplied)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_the_address_is_taken_in_every_usual_form(scheme: str) -> None:
    address = supplied_url(Settings(database_url=f"{scheme}://me:secret@db.example:5433/city?sslmode=require"))
    assert address == make_url("postgresql+psycopg2://me:secret@db.example:5433/city?sslmode=require")


@pytest.mark.parametrize(
    "address", ["mysql://me:secret@host/city", "me:secret@host", "postgresql://me:secret@host:x/c"]
)
def test_what_is_not_an_address_is_refused(address: str) -> None:
    with pytest.raises(StoreError, match="URBAN_REID_DATABASE_URL") as refusal:
        Store.open(Settings(database_url=address))
    assert "secret" not in str(refusal.value)


def test_a_user_supplied_server_that_does_not_answer() -> None:
    settings = Settings(database_url="postgresql://me:secret@127.0.0.1:1/city")
    for attempt in (Store.open, upgrade, revision):
        with pytest.raises(
            StoreUnavailable, match=r"postgresql\+psycopg2://me:\*\*\*@127\.0\.0\.1:1/city.*refused"
        ) as refusal:
            attempt(settings)
        assert "secret" not in str(refusal.value)
        assert os.linesep not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"), [("PGTZ", "Asia/Tokyo"), ("PGDATESTYLE", "SQL, DMY"), ("PGCLIENTENCODING", "LATIN1")]
)
def test_a_session_reads_times_and_text_alike_whatever_the_environment_and_the_server_say(
    server: embedded.EmbeddedServer, granted: Settings, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    superuser = server.connect("postgres", "postgres")
    with superuser, superuser.cursor() as cursor:
        cursor.execute("ALTER ROLE operator SET timezone = 'America/New_York'")
    superuser.close()
    upgrade(granted)
    monkeypatch.setenv(name, value)
    with Store.open(granted) as store, store.begin() as connection:
        assert connection.scalar(text("SHOW timezone")) == "UTC"
        assert connection.scalar(text("SHOW client_encoding")) == "UTF8"
        moment = connection.scalar(text("SELECT '2026-07-01T08:00:00Z'::timestamptz"))
        assert moment.isoformat() == "2026-07-01T08:00:00+00:00"
        assert connection.scalar(text("SELECT 'Straße 人'")) == "Straße 人"


def test_what_the_address_leaves_out_comes_from_libpqs_variables(
    granted: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert granted.database_url is not None
    without = re.sub(r":[^:@]+@", "@", granted.database_url)
    monkeypatch.setenv("PGPASSWORD", str(supplied_url(granted).password))
    monkeypatch.setenv("PGDATABASE", "not this one")
    assert revision(granted.model_copy(update={"database_url": without})) == (None, schema.head())
