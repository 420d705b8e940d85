"""A PostgreSQL server supplied by the user."""

import os
import re
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url, text

from pipeline.store import Store, embedded, reset_passwords, revision, roles, schema, stop, upgrade, url, user_supplied
from pipeline.store.user_supplied import supplied_url
from schemas.errors import StoreError, StoreUnavailable
from schemas.settings import Settings
from tests.helpers.rows import fill
from tests.helpers.tls_proxy import OTHER_MACHINE, tls_proxy, write_certificate


def test_a_user_supplied_server_is_migrated_by_upgrade_alone(
    server: embedded.EmbeddedServer, supplied: Settings
) -> None:
    with pytest.raises(StoreError, match=r"may not act as urban_reid_app; run `urban-reid db upgrade`"):
        Store.open(supplied)
    with pytest.raises(StoreError, match=r"let a superuser run once: GRANT urban_reid_owner TO operator;") as refusal:
        upgrade(supplied)  # the roles belong to somebody else
    run_by_superuser(server, refusal)
    with pytest.raises(StoreError, match=r"has revision none .*run `urban-reid db upgrade`"):
        Store.open(supplied)
    assert revision(supplied) == (None, schema.head())
    assert upgrade(supplied) == (None, schema.head())
    with Store.open(supplied) as store:
        fill(store)
        with store.begin() as connection:
            assert connection.execute(text("SELECT session_user, current_user")).one() == ("operator", roles.WORKER)
            owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
            assert connection.scalars(text(owners)).all() == [roles.OWNER]
    assert supplied.database_url is not None
    assert make_url(url(supplied)) == make_url(supplied.database_url)
    for attempt, message in ((stop, "does not stop"), (reset_passwords, "not ours to change")):
        with pytest.raises(StoreError, match=message):
            attempt(supplied)


def run_by_superuser(server: embedded.EmbeddedServer, refusal: pytest.ExceptionInfo[StoreError]) -> None:
    """Runs the statements that the refusal asks for, as an administrator would who copies them."""
    found = re.search("run once: (.*); then run the command again", str(refusal.value))
    assert found is not None
    superuser = server.connect("postgres", "postgres")
    with superuser, superuser.cursor() as cursor:
        cursor.execute(found[1])
    superuser.close()


def test_preparing_a_user_supplied_server_creates_the_roles(
    server: embedded.EmbeddedServer, supplied: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user may create roles; that two of them see past row-level security is a superuser's to give."""
    monkeypatch.setattr(roles, "OWNER", "other_owner")
    monkeypatch.setattr(roles, "PROGRAM", ("other_worker", "other_app"))
    monkeypatch.setattr(roles, "SEE_ALL", ("other_owner", "other_worker"))

    def prepare() -> None:
        with schema.session(lambda: user_supplied.connect(supplied_url(supplied))) as connection:
            schema.prepare_supplied(connection)
            for role in ("other_owner", "other_worker", "other_app"):
                connection.execute(text(f"SET ROLE {role}"))

    with pytest.raises(StoreError, match="run once: CREATE ROLE other_owner BYPASSRLS; GRANT") as refusal:
        prepare()
    assert "other_app" not in str(refusal.value)
    run_by_superuser(server, refusal)
    for _ in range(2):
        prepare()
    superuser = server.connect("postgres", "postgres")
    with superuser, superuser.cursor() as cursor:
        cursor.execute("ALTER ROLE other_worker NOBYPASSRLS")
    superuser.close()
    with pytest.raises(StoreError, match="run once: ALTER ROLE other_worker BYPASSRLS; then run the command again"):
        prepare()
    with schema.session(lambda: user_supplied.connect(supplied_url(supplied))) as connection, connection.begin():
        connection.execute(text("DROP OWNED BY other_owner"))


def test_a_user_supplied_server_without_vector(server: embedded.EmbeddedServer, granted: Settings) -> None:
    superuser = server.connect("postgres", "supplied")
    with superuser, superuser.cursor() as cursor:
        cursor.execute("DROP EXTENSION vector")
    superuser.close()
    with pytest.raises(StoreError, match="no extension `vector`"):
        Store.open(granted)
    with pytest.raises(StoreError, match='permission denied to create extension "vector"'):
        upgrade(granted)


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


# ---- who answers, and who is let in


def over_tls(settings: Settings, port: int, **query: str) -> Settings:
    """The same server as one on another machine, at `port`."""
    address = supplied_url(settings)
    moved = address.set(host=OTHER_MACHINE, port=port, query=query)
    return Settings(home=settings.home, database_url=moved.render_as_string(hide_password=False))


def test_a_server_on_another_machine_shows_a_certificate_that_is_verified(
    granted: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where libpq looks for an authority's certificate
    unix_socket = f"{supplied_url(granted).query['host']}/.s.PGSQL.5432"
    authority = write_certificate(tmp_path, OTHER_MACHINE)
    with tls_proxy(unix_socket, tmp_path) as port:
        with pytest.raises(
            StoreError, match=r"root certificate file .* does not exist; .*\?sslrootcert=FILE"
        ) as refusal:
            revision(over_tls(granted, port))
        assert not isinstance(refusal.value, StoreUnavailable) and "p@ss" not in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert revision(over_tls(granted, port, sslrootcert=str(authority))) == (None, schema.head())
        assert revision(over_tls(granted, port, sslmode="require")) == (None, schema.head())
        monkeypatch.setenv("PGSSLMODE", "require")
        assert revision(over_tls(granted, port)) == (None, schema.head())
        monkeypatch.delenv("PGSSLMODE")
        write_certificate(tmp_path, "192.0.2.1")
        (tmp_path / "cert.pem").rename(tmp_path / "other.pem")
        with pytest.raises(StoreError, match="certificate verify failed"):
            revision(over_tls(granted, port, sslrootcert=str(tmp_path / "other.pem")))


def test_a_certificate_of_another_machine_and_a_server_without_tls_are_refused(
    granted: Settings, tmp_path: Path
) -> None:
    unix_socket = f"{supplied_url(granted).query['host']}/.s.PGSQL.5432"
    authority = str(write_certificate(tmp_path, "192.0.2.1"))
    with (
        tls_proxy(unix_socket, tmp_path) as port,
        pytest.raises(StoreError, match=r"certificate for \"?192\.0\.2\.1\"? .*does not match host name"),
    ):
        revision(over_tls(granted, port, sslrootcert=authority))
    with tls_proxy(unix_socket, None) as port:
        refused = over_tls(granted, port, sslrootcert=authority)
        assert revision(over_tls(granted, port, sslmode="prefer")) == (None, schema.head())
        assert revision(over_tls(granted, port, hostaddr="127.0.0.1")) == (None, schema.head())
        with pytest.raises(StoreError, match="does not support SSL"):
            revision(refused)


@pytest.mark.parametrize(
    ("address", "environment", "verified"),
    [
        ("postgresql:///city", {}, False),
        ("postgresql://me@localhost/city", {}, False),
        ("postgresql://me@127.8.0.1/city", {}, False),
        ("postgresql://me@[::1]/city", {}, False),
        ("postgresql:///city?host=/run/postgresql", {}, False),
        ("postgresql://me@db.example/city", {}, True),
        ("postgresql://me@10.0.0.1/city", {}, True),
        ("postgresql:///city?host=localhost,db.example", {}, True),
        ("postgresql://me@localhost/city?hostaddr=10.0.0.1", {}, True),
        ("postgresql://me@db.example/city?hostaddr=127.0.0.1", {}, False),
        ("postgresql:///city", {"PGHOST": "db.example"}, True),
        ("postgresql:///city", {"PGHOSTADDR": "10.0.0.1"}, True),
        ("postgresql:///city?service=far", {}, True),
        ("postgresql:///city", {"PGSERVICE": "far"}, True),
        ("postgresql://me@db.example/city", {"PGSSLMODE": "disable"}, False),
        ("postgresql://me@db.example/city?sslmode=require", {}, False),
    ],
)
def test_which_addresses_are_verified(
    monkeypatch: pytest.MonkeyPatch, address: str, environment: dict[str, str], verified: bool
) -> None:
    given: dict[str, object] = {}

    def note(_: str, **options: object) -> None:
        given.update(options)
        raise psycopg2.OperationalError("not here")

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(psycopg2, "connect", note)
    with pytest.raises(psycopg2.OperationalError):
        user_supplied.connect(supplied_url(Settings(database_url=address)))
    assert given.get("sslmode") == ("verify-full" if verified else None)


def test_a_replica_before_its_promotion_is_waited_for(store: Store) -> None:
    with (
        pytest.raises(StoreUnavailable, match=r"takes no writes now: cannot execute INSERT in a read-only transaction"),
        store.begin() as connection,
    ):
        connection.execute(text("SET TRANSACTION READ ONLY"))
        connection.execute(text("INSERT INTO urban_unit (code) VALUES ('d1')"))


@pytest.mark.parametrize("given", [{}, {"connect_timeout": "3", "keepalives_idle": "60", "tcp_user_timeout": "9000"}])
def test_how_long_a_silent_server_is_waited_for_is_the_addresss_to_say(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    asked: dict[str, object] = {}

    def note(_: str, **options: object) -> None:
        asked.update(options)
        raise psycopg2.OperationalError("not here")

    monkeypatch.setattr(psycopg2, "connect", note)
    address = "postgresql://me@10.0.0.1/city?" + "&".join(f"{name}={value}" for name, value in given.items())
    with pytest.raises(psycopg2.OperationalError):
        user_supplied.connect(supplied_url(Settings(database_url=address)))
    ours = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    ours["tcp_user_timeout"] = 25_000
    assert {name: asked.get(name) for name in ours} == {
        name: None if name in given else at for name, at in ours.items()
    }


def test_a_wrong_password_is_a_refusal_and_no_silence(supplied: Settings) -> None:
    address = supplied_url(supplied)
    for wrong, said in (
        (address.set(password="another"), "password authentication failed"),
        (address.set(database="nowhere"), 'database "nowhere" does not exist'),
    ):
        settings = supplied.model_copy(update={"database_url": wrong.render_as_string(hide_password=False)})
        for attempt in (Store.open, upgrade, revision):
            with pytest.raises(StoreError, match=f"refused the connection: {said}") as refusal:
                attempt(settings)
            assert type(refusal.value) is StoreError
            assert "another" not in str(refusal.value) and "\n" not in str(refusal.value)
