"""urban-reid erase, retention and subject on the command line."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.governance.audit import Action, audit
from pipeline.store import Store, embedded
from schemas.settings import settings as read_settings
from tests.helpers.command_line import Run, error_of
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of, unbound
from tests.helpers.rows import insert_city, insert_crop


@pytest.mark.system
def test_a_rule_is_set_shown_and_run_and_what_is_not_there_is_not_erased(run: Run, tmp_path: Path) -> None:
    (tmp_path / "city.yaml").write_text("timezone: UTC\nunits: [{code: d1}, {code: d1/s1}]\n")
    assert run("city", "load", "city.yaml").returncode == 0
    assert "no end" in run("retention", "show").stdout
    why = ("--reason", "order 3")
    assert run("retention", "set", "--hours", "24", "--unit", "d1", "--level", "district", *why).returncode == 0
    assert "order 3" in run("retention", "show").stdout
    assert "removed 0 crops" in run("retention", "run").stdout
    assert "no whole number" in error_of(run("retention", "set", "--hours", "day", *why), 2)
    assert "no identity" in error_of(run("erase", "--identity", "3f2a81c0", *why), 2)
    assert "name what to erase" in error_of(run("erase", *why), 2)
    assert "one kind" in error_of(run("erase", "--identity", "3f2a", "--crop", "f" * 64, *why), 2)
    assert "--reason" in error_of(run("erase", "--identity", "3f2a81c0"), 2)
    assert "give --probe" in error_of(run("subject", *why), 2)
    assert "user" in error_of(run("erase", "--scrub"), 1)


@pytest.mark.parametrize("live", [False, True])
def test_an_erasure_ends_well_names_itself_and_the_backups_of_before(
    run_here: Run,
    store: Store,
    server: embedded.EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    live: bool,
) -> None:
    with store.begin() as connection:
        connection.execute(text("INSERT INTO city (timezone, digest) VALUES ('UTC', sha256('city'))"))
        insert_city(connection)
        insert_crop(connection)
        audit(connection, "tester", Action.BACKUP_WRITE, details={"folder": str(tmp_path / "backup")})
    with unbound(server, store.settings) as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no rule: rows alone
        connection.execute(text("INSERT INTO case_file (name, opened_by) VALUES ('17/2026', 1)"))
        connection.execute(
            text(
                "INSERT INTO probe (picture, uploaded_by, case_id) VALUES (sha256('of none'), 'anna', NULL), "
                "(sha256('of the case'), 'anna', (SELECT id FROM case_file))"
            )
        )
    names = "SELECT encode(key, 'hex') FROM crop", "SELECT id::text FROM probe WHERE case_id IS NULL"
    with store.owning() as connection:
        crop, probe = (str(connection.scalar(text(sql))) for sql in names)
    if live:
        governed = Governed(store, superuser_of(server, store.settings))
        governed.as_("ada")
        assert store.settings.token is not None
        monkeypatch.setenv("URBAN_REID_TOKEN", store.settings.token.get_secret_value())
        read_settings.cache_clear()
    erasures = []
    for kind, name in (("--crop", crop), ("--probe", probe), ("--case", "17/2026")):
        done = run_here("erase", kind, name, "--reason", "request 12", *(["--json"] if kind == "--probe" else []))
        assert (done.returncode, done.stderr) == (0, ""), kind
        assert str(tmp_path / "backup") in done.stdout and "back up into it again" in done.stdout
        with store.owning() as connection:
            erasures.append(
                connection.execute(text("SELECT id::text, kind FROM erasure ORDER BY asked_at DESC LIMIT 1")).one()
            )
        assert erasures[-1].kind == kind.removeprefix("--")
        if kind == "--probe":
            assert json.loads(done.stdout)["erasure"] == erasures[-1].id
        else:
            assert f"as erasure {erasures[-1].id}" in done.stdout
    with store.owning() as connection:
        assert connection.scalar(text("SELECT (SELECT count(*) FROM crop) + (SELECT count(*) FROM probe)")) == 0
        assert connection.scalar(text("SELECT count(*) FROM erasure WHERE ended_at IS NOT NULL")) == 3
        actors = connection.scalars(text("SELECT DISTINCT actor FROM audit WHERE action = 'erase.start'")).all()
    assert actors == ["ada" if live else "tester"]
    for erasure in erasures:
        assert run_here("erase", "--verify", erasure.id).returncode == 0
