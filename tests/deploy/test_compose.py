"""The compose files: their schema, what they let containers do, and that the program knows what they name."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import AliasChoices
from pydantic_settings import BaseSettings
from sqlalchemy import make_url

from pipeline.city.status import status
from pipeline.store import Store, embedded_programs, schema, upgrade
from schemas.settings import Settings
from tests.helpers.deployed import DEPLOY, parse, unknown_settings
from tests.helpers.town import Town

COMPOSE = DEPLOY / "compose"
FILES = sorted(COMPOSE.glob("compose*.yaml"))


def services(*names: str) -> dict[str, Any]:
    """All services of these files, by name; of those of several files, the first one's."""
    found: dict[str, Any] = {}
    for name in names:
        for service, what in yaml.safe_load((COMPOSE / name).read_text())["services"].items():
            found.setdefault(service, what)
    return found


ALL = services("compose.yaml", "compose.hosts.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_compose_file_is_of_the_published_schema(path: Path) -> None:
    published = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = jsonschema.Draft202012Validator(json.loads(published.read_text()))
    assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text()))] == []
    broken = yaml.safe_load(path.read_text()) | {"services": {"a": {"restrat": "no"}}}
    assert [*validator.iter_errors(broken)]


@pytest.mark.parametrize("name", ALL)
def test_a_container_may_do_little(name: str) -> None:
    service = ALL[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory", "pids"}
    assert "healthcheck" in service or name == "migrate"
    assert re.search(r":[^:/]*\d[^:/]*$", re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", service["image"])), "no version"
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:") or port in ("80:8080", "443:8443")


def test_the_database_is_on_no_network() -> None:
    postgres = ALL["postgres"]
    assert postgres["network_mode"] == "none" and "ports" not in postgres
    assert "listen_addresses=" in postgres["command"]


def test_whoever_needs_the_tables_waits_for_their_migration() -> None:
    needing = {name for name, service in ALL.items() if '"database_url"' in json.dumps(service.get("secrets", []))}
    assert needing - {"migrate"} == {"city", "flows", "cameras"}
    for name in needing - {"migrate"}:
        assert ALL[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_settings_that_a_compose_file_names_are_there(path: Path) -> None:
    assert unknown_settings(path.read_text()) == set()


@pytest.mark.parametrize("name", [name for name in ALL if "command" in ALL[name]])
def test_the_commands_that_a_compose_file_runs_are_there(name: str) -> None:
    command = ALL[name]["command"]
    if command[0] == "urban-reid":
        parse(command)
    else:
        assert command[0] in ("postgres", "prefect") or name == "prometheus"


def variables(model: type[BaseSettings]) -> Iterator[str]:
    """The environment variables that a model of settings reads."""
    for name, field in model.model_fields.items():
        yield f"{model.model_config.get('env_prefix', '')}{name}".upper()
        if isinstance(field.validation_alias, AliasChoices):
            yield from (choice.upper() for choice in field.validation_alias.choices if isinstance(choice, str))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
            yield from variables(field.annotation)


@pytest.mark.system
def test_prefects_server_knows_the_options_and_settings_that_it_is_given() -> None:
    from prefect.settings import Settings as OfPrefect

    prefect = ALL["prefect"]
    shown = subprocess.run(
        [sys.executable, "-m", "prefect", *prefect["command"][1:3], "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    ).stdout
    for option in prefect["command"][3::2]:
        assert option in shown
    known = {*variables(OfPrefect)}
    targets = [secret["target"] for secret in prefect["secrets"]]
    for name in (*prefect["environment"], *targets):
        assert name in ("DO_NOT_TRACK", "SECRETS_NEEDED") or name in known, name


@pytest.mark.parametrize("name", ["Caddyfile", "prometheus.yml"])
def test_a_configuration_is_taken_by_its_program(name: str) -> None:
    program, command = {
        "Caddyfile": ("caddy", ["validate", "--adapter", "caddyfile", "--config"]),
        "prometheus.yml": ("promtool", ["check", "config"]),
    }[name]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt-get install caddy prometheus")
    done = subprocess.run(
        [program, *command, str(COMPOSE / name)],
        env=os.environ | {"CONSOLE_HOST": "console.example"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_given_the_dashboard_and_its_source() -> None:
    source = yaml.safe_load((COMPOSE / "grafana/source.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((COMPOSE / "grafana/dashboards.yml").read_text())["providers"][0]
    mounts = dict(mount.split(":")[:2] for mount in ALL["grafana"]["volumes"])
    (folder,) = (source for source, target in mounts.items() if target == provider["options"]["path"])
    dashboard = json.loads((COMPOSE / folder / "urban-reid.json").read_text())
    assert dashboard["templating"]["list"][0]["query"] == source["type"]


# ---- secrets, and the databases that are made with them


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder that make-secrets fills."""
    script = shutil.copy(COMPOSE / "make-secrets", tmp_path)
    subprocess.run([script], check=True)
    return tmp_path / "secrets"


def test_every_secret_is_a_file_that_is_made_or_asked_for(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    made = {path.name for path in secrets.iterdir()}
    asked = {
        Path(one["file"]).name for path in FILES for one in yaml.safe_load(path.read_text()).get("secrets", {}).values()
    }
    assert asked == made | {"object_store"}
    words = {path.read_text() for path in secrets.iterdir()}
    assert len(words) == len(made)
    again = subprocess.run([secrets.parent / "make-secrets"], capture_output=True, check=False)
    assert again.returncode != 0 and {path.read_text() for path in secrets.iterdir()} == words


def test_secrets_become_variables_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "URBAN_REID_OPERATOR").write_text("anna b's $HOME\n")
    (tmp_path / "object_store").write_text("[default]\n")
    script = "import os; print(os.environ['URBAN_REID_OPERATOR'], 'object_store' in os.environ)"
    command = [str(DEPLOY / "docker/with-secrets"), sys.executable, "-c", script]
    said = subprocess.run(command, env={"SECRETS": str(tmp_path), "PATH": os.defpath}, capture_output=True, check=True)
    assert said.stdout == b"anna b's $HOME False\n"


@pytest.mark.parametrize("given", [None, b"", "closed"])
def test_without_a_needed_secret_nothing_runs(tmp_path: Path, given: bytes | str | None) -> None:
    """Else the program would begin an empty city in a database of its own."""
    secret = tmp_path / "URBAN_REID_DATABASE_URL"
    if given == "closed":
        secret.symlink_to(tmp_path / "URBAN_REID_DATABASE_URL.d")
        (tmp_path / "URBAN_REID_DATABASE_URL.d").mkdir()
    elif isinstance(given, bytes):
        secret.write_bytes(given)
    env = {"SECRETS": str(tmp_path), "SECRETS_NEEDED": secret.name, "PATH": os.defpath}
    said = subprocess.run([DEPLOY / "docker/with-secrets", "echo", "ran"], env=env, capture_output=True, check=False)
    assert said.returncode == 1 and said.stdout == b"" and b"URBAN_REID_DATABASE_URL is not set" in said.stderr


def test_a_secret_that_cannot_be_read_ends_the_command(tmp_path: Path) -> None:
    """`cat` fails, as it does for a file of another user's that is closed to the image's."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/cat").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin/cat").chmod(0o755)
    (tmp_path / "URBAN_REID_OPERATOR").write_text("anna")
    env = {"SECRETS": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.defpath}"}
    said = subprocess.run([DEPLOY / "docker/with-secrets", "echo", "ran"], env=env, capture_output=True, check=False)
    assert said.returncode != 0 and said.stdout == b""


def test_every_container_of_the_program_says_which_secrets_it_needs() -> None:
    for name, service in ALL.items():
        if service.get("command", [""])[0] in ("urban-reid", "prefect"):
            needed = set(service["environment"]["SECRETS_NEEDED"].split())
            given = {one["target"] for one in service["secrets"] if isinstance(one, dict)}
            assert needed == given - {"URBAN_REID_CAMERA_SECRETS"}, name


def test_hosts_with_cameras_have_one_list_of_passwords(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = services("compose.hosts.yaml")
    for name in ("city", "cameras"):
        targets = [one["target"] for one in hosts[name]["secrets"] if isinstance(one, dict)]
        assert "URBAN_REID_CAMERA_SECRETS" in targets
    monkeypatch.setenv("URBAN_REID_CAMERA_SECRETS", (secrets / "camera_secrets").read_text())
    assert Settings().camera_secrets == {}


@pytest.fixture
def cluster(home: Path, secrets: Path) -> Iterator[Path]:
    """The socket's folder of a new PostgreSQL, made and started as the image does, with its first databases."""
    account = embedded_programs.account_of(home)
    data, password = home / "cluster", home / "superuser"
    data.mkdir()
    shutil.copy(secrets / "superuser_password", password)
    for path in (home, data, password):
        os.chown(path, account.uid, account.gid)
    words = ALL["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
    who = ["--username=postgres", f"--pwfile={password}", f"--pgdata={data}"]
    embedded_programs.run(home, account, "initdb", *words, *who, cwd=data)
    sockets = f"unix_socket_directories={home}"
    options = [*ALL["postgres"]["command"][1:], "-c", sockets, "-D", str(data)]
    small = [option.replace("shared_buffers=1GB", "shared_buffers=64MB") for option in options]
    embedded_programs.start(home, account, *small, cwd=data, log=home / "cluster.log")
    programs = Path(embedded_programs.client("psql")).parent
    address = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PGHOST": str(home),
        "PGPASSWORD": password.read_text().strip(),
    }
    try:
        waiting = ["pg_isready", "--quiet", "--username=postgres"]
        for _ in range(600):
            if subprocess.run(waiting, env=os.environ | address, check=False).returncode == 0:
                break
            subprocess.run(["sleep", "0.1"], check=True)
        subprocess.run(
            [COMPOSE / "postgres/10-databases.sh"], env=os.environ | address | {"SECRETS": str(secrets)}, check=True
        )
        yield home
    finally:
        embedded_programs.run(home, account, "pg_ctl", "stop", "-D", str(data), "-m", "immediate", cwd=data)


@pytest.mark.server
@pytest.mark.system
def test_the_databases_of_the_compose_file_hold_a_city(
    cluster: Path, secrets: Path, tmp_path: Path, city_files: Path, model_folder: Path, lines: list[str]
) -> None:
    written = (secrets / "database_url").read_text().strip()
    url = make_url(written).set(query={"host": str(cluster)}).render_as_string(hide_password=False)
    settings = Settings(home=tmp_path / "home", database_url=url)
    assert upgrade(settings) == (None, schema.head())
    with Store.open(settings, "pytest") as store:
        town = Town(store, city_files, model_folder)
        town.take_in(lines[:60])
        assert town.resolve() > 0 and status(store)["decisions"] > 0
