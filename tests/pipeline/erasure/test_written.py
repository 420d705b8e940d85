"""Files that left the city: what an erasure removes of them, and what it leaves alone."""

from pathlib import Path

from pipeline.erasure.files import remove_from
from pipeline.report.folder import MARKER

KEY = "ab" * 32


def test_a_report_is_removed_and_no_folder_that_a_link_in_it_leads_to(tmp_path: Path) -> None:
    report, other = tmp_path / "report", tmp_path / "other"
    for folder in (report, other, tmp_path / "own" / "crops"):
        folder.mkdir(parents=True)
    (other / "mine.jpg").write_bytes(b"x")
    (report / MARKER).touch()
    (report / "index.html").write_text(KEY)
    (report / "crops").symlink_to(other)
    assert remove_from(report, {KEY}) == (1, [])
    assert (other / "mine.jpg").exists() and KEY not in (report / "index.html").read_text()
    own = tmp_path / "own"
    (own / MARKER).touch()
    (own / "crops" / "1.jpg").write_bytes(b"x")
    (own / "people.jsonl").write_text(f"{KEY}\n")
    assert remove_from(own, {KEY}) == (2, [])
    assert not (own / "crops" / "1.jpg").exists()
