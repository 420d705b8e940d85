import getpass
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from urban_reid.service_manager import tell_manager


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@urban-reid-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name[1:]}" if abstract else name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        tell_manager("READY=1\nSTATUS=served")
        assert manager.recv(100) == b"READY=1\nSTATUS=served"


def test_without_a_manager_or_with_one_that_is_gone_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    tell_manager("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    tell_manager("READY=1")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_of_the_guide_is_one_that_systemd_takes(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "service.md").read_text()
    found = re.search(r"```ini\n(.*?)```", guide, re.DOTALL)
    assert found is not None
    program = tmp_path / "urban-reid"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    here = {"/opt/urban-reid/bin/urban-reid": str(program), "User=urban-reid": f"User={getpass.getuser()}"}
    unit = found[1]
    for of_guide, of_test in here.items():
        assert of_guide in unit
        unit = unit.replace(of_guide, of_test)
    file = tmp_path / "urban-reid.service"
    file.write_text(unit)
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
