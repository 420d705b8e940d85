"""What trials found is kept, for one processor and its versions."""

from pathlib import Path

import pytest

from reid_core.speed import kept
from reid_core.speed.kept import FILE, Forms, Machine, is_measured, measured, read, this_machine
from schemas.settings import Settings


def unused() -> Forms:
    raise AssertionError("a trial was made again")


def some() -> Forms:
    return {"only": lambda: None}


def test_a_trial_is_made_once_for_each_thing_and_kept_in_the_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert measured(settings, "pairs", some) == {"only": 1}
    assert measured(settings, "pairs", unused) == {"only": 1}
    assert measured(settings, "training", some) == {"only": 1}
    found = read(settings)
    assert found is not None and found.machine == this_machine() and set(found.speeds) == {"pairs", "training"}
    assert found.machine.processor and (tmp_path / FILE).stat().st_mode & 0o77 == 0


def test_another_processor_or_version_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    other = Machine(processor="another", torch="1.0", openvino=None)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "this_machine", lambda: other)
        measured(settings, "pairs", some)
    with pytest.raises(AssertionError, match="made again"):
        measured(settings, "pairs", unused)
    assert measured(settings, "training", some) == {"only": 1}
    found = read(settings)
    assert found is not None and found.machine == this_machine() and set(found.speeds) == {"training"}


@pytest.mark.parametrize("content", ["", "{", '{"machine": 1}', '{"speeds": {}, "more": 1}'])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    settings = Settings(home=tmp_path)
    assert read(settings) is None and measured(settings, "pairs", some) == {"only": 1}
    assert read(settings) is not None


def test_without_a_home_it_lies_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = Settings(home=tmp_path / "none")
    measured(settings, "pairs", some)
    assert (tmp_path / "cache/urban-reid" / FILE).is_file() and not settings.home.exists()
    assert measured(settings, "pairs", unused) == {"only": 1}


def test_where_nothing_can_be_written_the_trial_counts_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    settings = Settings(home=tmp_path / "none")
    assert measured(settings, "pairs", some) == {"only": 1} and read(settings) is None


def test_what_settings_force_is_not_measured(tmp_path: Path) -> None:
    assert is_measured(Settings(home=tmp_path, engine="auto"))
    assert not is_measured(Settings(home=tmp_path, engine="torch"))
    assert not is_measured(Settings(home=tmp_path, engine="auto", precision="float32"))


def test_no_test_measures_unless_it_asks_for_it(tmp_path: Path) -> None:
    assert not is_measured(Settings(home=tmp_path))
