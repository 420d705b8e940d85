from pathlib import Path

import pytest

from schemas.disk import replace_link


def test_a_link_replaces_an_earlier_link_or_file_but_no_folder(tmp_path: Path) -> None:
    first, second, link = tmp_path / "first", tmp_path / "second", tmp_path / "link"
    for folder in (first, second):
        folder.mkdir()
    (tmp_path / "link.partial").symlink_to(first)  # left by a killed process
    for target in (first, second):
        replace_link(link, target)
        assert link.is_symlink() and link.resolve() == target
    with pytest.raises(IsADirectoryError):
        replace_link(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "link", "second"]
