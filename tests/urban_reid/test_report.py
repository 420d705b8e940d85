"""`urban-reid report` into folders of all kinds: the report is written, or one line says why not."""

import json
from pathlib import Path

import pytest

from schemas.settings import Settings
from tests.helpers.command_line import Run, error_of
from tests.helpers.town import Town

pytestmark = pytest.mark.usefixtures("resolved_town")


@pytest.fixture
def resolved_town(town: Town, lines: list[str]) -> Town:
    town.take_in(lines[:30])
    town.resolve()
    return town


def written(run_here: Run, out: Path | str) -> Path:
    """The first page of the report that the command wrote."""
    done = run_here("report", "--unit", "d1", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    index = Path(json.loads(done.stdout)["report"])
    assert index.name == "index.html" and index.stat().st_size > 10_000
    return index


def test_a_link_to_a_folder_is_followed(run_here: Run, settings: Settings, tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    assert written(run_here, link).parent == link
    assert (folder / "index.html").exists()
    assert settings.report_link("d1").resolve() == folder


def test_the_homes_link_to_the_newest_report_can_be_named(run_here: Run, settings: Settings, tmp_path: Path) -> None:
    link = settings.report_link("d1")
    written(run_here, tmp_path / "report")
    for _ in range(2):  # a link to itself would fail the second time
        assert written(run_here, link).samefile(tmp_path / "report" / "index.html")
    written(run_here, tmp_path / "other")
    assert link.resolve() == tmp_path / "other"


def test_a_report_at_the_place_of_the_homes_link_is_kept(run_here: Run, settings: Settings, tmp_path: Path) -> None:
    link = settings.report_link("d1")
    for _ in range(2):
        assert written(run_here, link).parent == link
    assert link.is_dir() and not link.is_symlink()
    said = error_of(run_here("report", "--unit", "d1", "--out", str(tmp_path / "other")), 1)
    assert said == f"{link} is a folder, where a link to the newest report belongs; move it away"
    assert not (tmp_path / "other").exists()


def test_folders_that_cannot_hold_a_report_are_one_line(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out, said in (
        ("/", "/ holds other files; a report needs a folder of its own"),
        ("/proc/report", "/proc/report: the report cannot be written there: "),
        ("dangling", "dangling is a link to a place that does not exist"),
        ("loop", "loop is a link to a place that does not exist"),
        ("x" * 300, "the report cannot be written there: File name too long"),
        ("/dev/null", "/dev/null is a file"),
    ):
        assert said in error_of(run_here("report", "--unit", "d1", "--out", out), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "loop"]


def test_a_full_disk_is_one_line(run_here: Run, small_disk: Path) -> None:
    said = error_of(run_here("report", "--unit", "d1", "--out", str(small_disk / "report")), 2)
    assert f"{small_disk / 'report'}: the report cannot be written there: " in said
    assert not list(small_disk.rglob("*.partial"))
