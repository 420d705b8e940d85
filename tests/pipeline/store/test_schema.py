"""Migrations, on each kind of server."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

import migrations
from pipeline.city.status import status
from pipeline.city.watermarks import mark_everything
from pipeline.store import Store, embedded, roles, schema, upgrade, user_supplied
from pipeline.store.user_supplied import supplied_url
from schemas.errors import StoreError
from schemas.settings import Settings
from tests.helpers.catalog import Connect, catalog, rows
from tests.helpers.homes import become_live, new_home, program_url, remove_home, superuser_of, use_postgresql_16
from tests.helpers.orphans import count_orphans
from tests.helpers.rows import fill
from tests.helpers.town import Town


def as_owner(server: embedded.EmbeddedServer, settings: Settings) -> Connect:
    database = supplied_url(settings).database
    assert database is not None
    return lambda: server.connect(roles.OWNER, database)


#: Columns and tables that migrations added after 0005. A downgrade loses what they say of batches and searches.
_BATCHES = ["batch_id", "withdrawn_at", "ingest_batch", "crop_claim"]
_SEARCH = ["purpose", "compared", "not_here", "log_ratio", "log_look", "search_evidence"]
_EXAMPLES = ["places", "day_from", "day_to", "search_example", "search_recall", "prototype_removal"]
_STANDING = [
    "standing_id",
    "standing_run",
    "standing_search",
    "standing_picture",
    "standing_passage",
    "standing_message",
]
_CAMERAS = ["camera_feed", "camera_health", "camera_outage", "camera_file", "context_frame"]
_HOSTS = ["camera_host", "camera_lease"]
_LEARNING = ["learning", "learning_id"]
_AUDIT = ["salt", "commitment", "audit_chain"]
_ATTRIBUTES = ["crop_attributes", "attributes_progress"]
_SPACES = ["base_id", "has_features", "base_has_features"]
_ACCOUNTS = [
    "kind",
    "synthetic",
    "account",
    "account_role",
    "account_change",
    "session",
    "session_hash",
    "authorization_id",
    "answer_key",
]
_CASES = [
    "case_file",
    "case_authorization",
    "authorization_limits",
    "purpose",
    "impact_assessment",
    "lead",
    "lead_answer",
    "account_id",
]
_ERASURE = [
    "erased_at",
    "retention",
    "erasure",
    "erasure_name",
    "erased",
    "erasure_salt",
    "erased_group",
    "written_file",
]
_REVIEW = ["review_answer", "review_pair", "review_undo", "answered"]
_ADDED = [
    "row_hash",
    "day",
    *_SPACES,
    *_ATTRIBUTES,
    *_LEARNING,
    *_AUDIT,
    "decide_again",
    "review_open",
    "training_request",
    "geometry",
    *_BATCHES,
    *_SEARCH,
    *_EXAMPLES,
    *_STANDING,
    *_CAMERAS,
    *_HOSTS,
    *_ACCOUNTS,
    *_CASES,
    *_ERASURE,
    *_REVIEW,
]


@pytest.fixture
def server_16(monkeypatch: pytest.MonkeyPatch) -> Iterator[embedded.EmbeddedServer]:
    """A server of PostgreSQL 16, which names no NOT NULL constraints."""
    use_postgresql_16(monkeypatch)
    home = new_home()
    with embedded.hold(home) as held:
        with schema.session(lambda: held.connect(roles.OWNER)) as connection:
            assert connection.scalar(text("SHOW server_version")).startswith("16.")
        yield held
    remove_home(home)


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("user-supplied", marks=pytest.mark.system),
        pytest.param("PostgreSQL 16", marks=pytest.mark.system),
    ]
)
def empty(request: pytest.FixtureRequest) -> tuple[Settings, Connect]:
    """Settings of an empty database, and how to connect to it for migrations."""
    if request.param == "embedded":
        settings: Settings = request.getfixturevalue("settings")
        connect = as_owner(request.getfixturevalue("server"), settings)
    elif request.param == "user-supplied":
        settings = request.getfixturevalue("granted")
        upgrade(settings)
        connect = lambda: user_supplied.connect(supplied_url(settings))  # noqa: E731
    else:
        server_16: embedded.EmbeddedServer = request.getfixturevalue("server_16")
        settings = Settings(database_url=program_url(server_16))
        connect = as_owner(server_16, settings)
    schema.migrate(connect, command.downgrade, "base")
    return settings, connect


def test_every_migration_goes_up_and_down_with_data(empty: tuple[Settings, Connect]) -> None:
    settings, connect = empty
    revisions = schema.revisions()
    catalogs = {}
    for target in revisions:
        schema.migrate(connect, target=target)
        catalogs[target] = catalog(connect)
    with Store.open(settings) as store:
        fill(store)
    filled = rows(connect, without=_ADDED)
    for target in reversed(revisions[:-1]):
        schema.migrate(connect, command.downgrade, target)
        assert {line for line in catalog(connect) if not re.search(r"_m\d", line)} == catalogs[target], target
        if target == "0005":  # the migrations before it drop columns
            assert rows(connect, without=_ADDED) == filled
    assert schema.migrate(connect, command.downgrade, "base") == ("0001", None)
    assert not [line for line in catalog(connect) if "alembic_version" not in line]
    with pytest.raises(StoreError, match=r"has revision none .* `urban-reid db upgrade`"):
        Store.open(settings)
    assert schema.migrate(connect) == (None, schema.head())
    assert schema.migrate(connect) == (schema.head(), schema.head())
    assert catalog(connect) == catalogs[schema.head()]
    with Store.open(settings) as store:
        fill(store)
        with store.begin() as connection:
            assert set(count_orphans(connection).values()) == {0}


def test_transit_is_no_name_of_a_table_or_of_what_belongs_to_one(server: embedded.EmbeddedServer, store: Store) -> None:
    named = [line for line in catalog(as_owner(server, store.settings)) if "transit" in line]
    assert all("transit_log_odds" in line for line in named)


def test_a_resolved_city_of_the_revision_before_stays_resolved(
    server: embedded.EmbeddedServer, town: Town, lines: list[str]
) -> None:
    """A home of the version before, upgraded, resolves 0 rows and keeps its digest, and all its rows."""
    town.take_in(lines[:60])
    become_live(superuser_of(server, town.store.settings))
    assert town.resolve() > 0
    before = status(town.store)
    connect = as_owner(server, town.store.settings)
    with town.store.begin() as connection:
        connection.execute(text("INSERT INTO audit (actor, action) VALUES ('anna', 'city load')"))
    with schema.session(connect) as connection, connection.begin():
        connection.execute(text("DELETE FROM calibration WHERE purpose = 'search'"))  # revisions before know none
    drawn = [*_BATCHES, *_AUDIT, "erasure_salt"]  # salts are drawn anew
    everything = rows(connect, without=drawn)
    schema.migrate(connect, command.downgrade, "0005")
    with schema.session(connect) as connection, connection.begin():
        assert connection.scalar(text("SELECT count(*) FROM transit")) > 0
    of_old = rows(connect, without=_ADDED)
    assert schema.migrate(connect) == ("0005", schema.head())
    assert rows(connect, without=_ADDED) == of_old
    assert rows(connect, without=drawn) == everything  # what a migration computes is what the program wrote
    with town.store.begin() as connection:
        mark_everything(connection)  # so that each window is looked at, and its run's key computed, again
    assert town.resolve() == 0
    assert status(town.store) == before


def test_a_database_that_says_nothing_of_older_programs_is_refused_by_them(
    server: embedded.EmbeddedServer, store: Store
) -> None:
    owner = as_owner(server, store.settings)()
    with owner, owner.cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = '9999'")
        cursor.execute("DROP FUNCTION oldest_program()")
    owner.close()
    with pytest.raises(StoreError, match="revision 9999, which this program does not know"):
        Store.open(store.settings)
    with pytest.raises(StoreError, match="9999"):
        schema.migrate(as_owner(server, store.settings))


def test_migrations_are_read_from_the_package_wherever_we_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = nowhere\n")
    (tmp_path / "migrations").mkdir()
    monkeypatch.chdir(tmp_path)
    schema.head.cache_clear()
    assert schema.head() == max(path.name[:4] for path in Path(migrations.__file__).parent.glob("versions/0*.py"))
