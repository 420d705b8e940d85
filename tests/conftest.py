"""Fixtures for all tests: one embedded server for the session, a fresh database for each test, a small city."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from pipeline.store import Store, embedded, roles, schema
from pipeline.store.embedded import EmbeddedServer
from pipeline.store.embedded_process import DATABASE
from reid_core.files import read_card, write_card
from schemas.calibration import DistanceTerms, LevelCalibration, SearchCalibration, straight_line
from schemas.levels import UPWARD
from schemas.settings import Settings
from synthetic.rendered_city import simulate_city, write_city
from tests.helpers.homes import fresh_settings, new_home, remove_home, stay_open
from tests.helpers.town import PACKAGED, Town

# What is fastest here is measured only by tests that ask for it; programs that tests start inherit this.
os.environ.setdefault("URBAN_REID_ENGINE", "torch")

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

#: Fixtures that start a database, a Prefect server or a process of the command line.
SERVERS = {"server", "home", "used_home", "prefect_server", "run"}
#: Tests that train, convert or run networks, or simulate whole cities: seconds each. `make test-quick` leaves them out.
HEAVY = (
    "reid_core/backbones",
    "reid_core/core_process",
    "reid_core/evaluation/test_evaluate.py",
    "reid_core/evaluation/test_pairs.py",
    "reid_core/export",
    "reid_core/serving",
    "reid_core/test_models.py",
    "reid_core/test_public_surface.py",
    "reid_core/training",
    "scripts",
    "synthetic/test_embedding_city.py",
    "urban_reid/test_evaluate.py",
    "urban_reid/test_export.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests as `server` by their fixtures, used directly or through another, and as `heavy` by their place.

    Runs before -m selects.
    """
    tests = Path(__file__).parent
    heavy = [tests / place for place in HEAVY]
    for item in items:
        if isinstance(item, pytest.Function) and SERVERS.intersection(item.fixturenames):
            item.add_marker(pytest.mark.server)
        if any(item.path.is_relative_to(place) for place in heavy):
            item.add_marker(pytest.mark.heavy)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Programs of ours set their own, and some tests call them in this process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.EmbeddedServer]:
    """The session's server, with a migrated database `template_city` that nobody is connected to."""
    home = new_home()
    with embedded.hold(home) as held:
        superuser = held.connect("postgres", "postgres")
        superuser.autocommit = True
        with superuser.cursor() as cursor:
            # A test's data need not outlive the machine; everything else is as in use.
            for setting in ("fsync = off", "full_page_writes = off"):
                cursor.execute(f"ALTER SYSTEM SET {setting}")
            cursor.execute("SELECT pg_reload_conf()")
            schema.migrate(lambda: held.connect(roles.OWNER))
            stay_open(lambda: held.connect(roles.OWNER))
            cursor.execute(f"CREATE DATABASE template_city TEMPLATE {DATABASE} OWNER {roles.OWNER}")
        superuser.close()
        yield held
    shutil.rmtree(home)


@pytest.fixture
def settings(server: embedded.EmbeddedServer) -> Iterator[Settings]:
    with fresh_settings(server) as fresh:
        yield fresh


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings, "pytest") as opened:
        yield opened


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty data directory; whoever starts a server in it ends it."""
    folder = new_home()
    yield folder
    remove_home(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB where we may mount one, else a limit on the size of files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
        == 0
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    yield disk
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if mounted:
        subprocess.run(["umount", str(disk)], check=True)


# ---- a small rendered city, resolved with the demo's model and a calibration that joins readily


@pytest.fixture(scope="session")
def city_files() -> Iterator[Path]:
    """A folder with city.yaml, manifest.jsonl and pictures."""
    folder = Path(tempfile.mkdtemp(prefix="urban-reid-test-city-"))
    write_city(simulate_city(3, people=8, duration_s=900), folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def lines(city_files: Path) -> list[str]:
    return (city_files / "manifest.jsonl").read_text().splitlines()


@pytest.fixture(scope="session")
def model_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="urban-reid-test-model-"))
    shutil.copytree(PACKAGED, folder, dirs_exist_ok=True)
    calibrations = tuple(
        LevelCalibration(
            level=level,
            terms=straight_line(6.0, 3.5),
            join_log_odds=0.0,
            review_log_odds=-1.0,
            fitted_on="nothing",
            pairs=0,
            positives=0,
        )
        for level in UPWARD[1:]
    )
    searches = tuple(
        SearchCalibration(
            level=level,
            knots=(),
            terms=DistanceTerms(intercept=-5.0, slopes=(2.0,)),
            vectors=0.1,
            learned=(-12.0, 0.0),
            center=1.3,
            spread=0.13,
            identities=1.1,
            confusions=0.05,
            searches=0,
            fitted_on="nothing",
        )
        for level in UPWARD[1:]
    )
    update = {"calibration": calibrations, "search_calibration": searches}
    write_card(read_card(folder).model_copy(update=update), folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def town(store: Store, city_files: Path, model_folder: Path) -> Town:
    return Town(store, city_files, model_folder)


@pytest.fixture(scope="session")
def resolved_once(server: EmbeddedServer, city_files: Path, model_folder: Path) -> Iterator[Settings]:
    """A home with a part of the city, resolved, from which copies are made."""
    with fresh_settings(server) as settings:
        with Store.open(settings, "pytest") as store:
            town = Town(store, city_files, model_folder)
            town.take_in((city_files / "manifest.jsonl").read_text().splitlines()[:150])
            town.resolve()
        yield settings


@pytest.fixture(scope="module")
def resolved(server: EmbeddedServer, resolved_once: Settings, city_files: Path) -> Iterator[Town]:
    """A part of the city, resolved. Of it tests change nothing but the calibration, which is the newest that counts."""
    with fresh_settings(server, like=resolved_once) as settings, Store.open(settings, "pytest") as store:
        yield Town(store, city_files, None)


@pytest.fixture
def fresh_town(server: EmbeddedServer, city_files: Path, model_folder: Path) -> Iterator[Callable[..., Town]]:
    """Makes further towns, each with a database and a home of its own."""
    with ExitStack() as ends:

        def make(*, calibrated: bool = True) -> Town:
            store = ends.enter_context(Store.open(ends.enter_context(fresh_settings(server)), "pytest"))
            return Town(store, city_files, model_folder, calibrated=calibrated)

        yield make


@pytest.fixture
def by_time(lines: list[str]) -> Callable[[], list[str]]:
    return lambda: sorted(lines, key=lambda line: json.loads(line)["time"])
