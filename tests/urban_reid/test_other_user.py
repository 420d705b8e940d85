"""A user who is not root: the embedded database, a backup and a restore. Root becomes that user for it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.server import PrefectServer
from schemas.settings import Settings
from tests.helpers.town import PACKAGED

NOBODY = 65_534
Call = Callable[..., dict[str, Any]]


def closed_folder(path: Path) -> Path | None:
    """The first folder above `path` that others may not pass through."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)


@pytest.fixture
def as_nobody(home: Path) -> Iterator[Call]:
    """Runs a command as another user, with --json. Where the interpreter lies in a closed folder, that user sees it."""
    interpreter = Path(os.path.realpath(sys.executable))
    opened = ""
    if (closed := closed_folder(interpreter)) is not None:
        seen, prefix = home / "seen", Path(sys.base_prefix)
        there = seen / prefix.relative_to(closed)
        there.mkdir(parents=True)
        opened = f"mount --bind '{prefix}' '{there}' && mount --rbind '{seen}' '{closed}' && "
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    variables = {
        "HOME": str(home / "theirs"),
        "TMPDIR": str(home / "theirs"),
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }

    def call(city: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        shell = ["unshare", "--mount", "sh", "-c", f'{opened}exec "$@"', "sh", *user]
        return subprocess.run(
            [*shell, sys.executable, *arguments],
            env=variables | {"URBAN_REID_HOME": str(home / "theirs" / city)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )

    if os.geteuid() != 0 or call("none", "-c", "import urban_reid").returncode != 0:
        pytest.skip("needs root, who can become another user that can read the interpreter and this checkout")

    def run(city: str, *arguments: str) -> dict[str, Any]:
        done = call(city, "-m", "urban_reid.cli", *arguments, "--json")
        assert done.returncode == 0, (arguments, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    yield run
    for city in ("city", "restored"):
        PrefectServer(Settings(home=home / "theirs" / city)).stop()


@pytest.mark.system
def test_another_user_backs_up_and_restores(home: Path, as_nobody: Call, city_files: Path) -> None:
    theirs = home / "theirs"
    shutil.copytree(city_files / "pictures", theirs / "pictures")
    shutil.copytree(PACKAGED, theirs / "demo")
    shutil.copy(city_files / "city.yaml", theirs)
    (theirs / "manifest.jsonl").write_text("\n".join((city_files / "manifest.jsonl").read_text().splitlines()[:60]))
    for path in (theirs, *theirs.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    theirs.chmod(0o700)
    home.chmod(0o711)
    as_nobody("city", "city", "load", str(theirs / "city.yaml"))
    as_nobody("city", "ingest", "manifest", str(theirs / "manifest.jsonl"))
    as_nobody("city", "models", "register", "demo", str(theirs / "demo"))
    as_nobody("city", "models", "use", "demo")
    digest = as_nobody("city", "resolve", "--unit", "d1")["digest"]
    as_nobody("city", "db", "backup", str(theirs / "backup"))
    as_nobody("city", "db", "verify", str(theirs / "backup"))
    as_nobody("restored", "db", "restore", str(theirs / "backup"))
    again = as_nobody("restored", "resolve", "--unit", "d1")
    assert (again["written"], again["digest"]) == (0, digest)
    assert as_nobody("restored", "doctor")["ok"]
    assert {path.stat().st_uid for path in (theirs / "restored").rglob("*")} == {NOBODY}
