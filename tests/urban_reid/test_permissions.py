"""Everything that the program writes is closed to other users, whatever umask it is started with."""

import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from pipeline.doctor.permissions import open_to_others
from schemas.settings import Settings
from tests.helpers.command_line import environment_of, program
from tests.helpers.homes import remove_home, stay_open_in
from tests.helpers.town import PACKAGED


def open_files(folder: Path) -> list[str]:
    """What below `folder` has a right for anybody but its owner; Prefect's pages, which it copies, are public."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_symlink() and "prefect/ui/" not in f"{path}" and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """Of commands in a home that does not exist yet, and whose parent does not either."""
    variables = environment_of(Settings(home=home / "above" / "home", database_url=None))
    variables.pop("URBAN_REID_DATABASE_URL", None)
    return variables


@pytest.mark.system
def test_no_file_or_folder_of_a_home_is_open_to_others(
    home: Path, environment: dict[str, str], city_files: Path
) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            program(*arguments),
            env=environment,
            cwd=home,
            umask=0,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    ours = home / "above" / "home"
    lines = (city_files / "manifest.jsonl").read_text().splitlines()[:20]
    shutil.copytree(city_files / "pictures", home / "pictures")
    (home / "manifest.jsonl").write_text("\n".join(lines))
    up = subprocess.Popen(
        program("up", "--json"),
        env=environment,
        cwd=home,
        umask=0,
        stdout=-1,
        stderr=-1,
        text=True,
    )
    try:
        assert up.stdout is not None and up.stdout.readline(), up.communicate()
        run("city", "load", str(city_files / "city.yaml"))
        stay_open_in(ours)  # a report of a live home needs an authorization
        run("ingest", "manifest", str(home / "manifest.jsonl"))
        run("models", "register", "demo", str(PACKAGED))
        run("models", "use", "demo")
        run("resolve", "--unit", "d1")
        run("report", "--unit", "d1", "--out", str(home / "report"))
        run("models", "export", "demo", "--format", "safetensors", "--out", str(home / "exported"))
        assert "warning" not in run("status")
        assert open_files(ours) == []
        assert open_to_others(ours) == []
        for out in ("report", "exported"):
            assert open_files(home / out) == [] and (home / out).stat().st_mode & 0o777 == 0o700
        (ours / "crops").chmod(0o755)
        ours.chmod(0o711)
        for command in (("status",), ("ingest", "manifest", str(home / "manifest.jsonl"))):
            assert "warning: other users of this machine can open crops" in run(*command)
        up.send_signal(signal.SIGTERM)
        assert up.wait(240) == 0
    finally:
        up.kill()
        up.communicate()
        remove_home(ours)
