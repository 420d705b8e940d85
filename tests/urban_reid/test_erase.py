"""urban-reid erase, retention and subject on the command line."""

from pathlib import Path

import pytest

from tests.helpers.command_line import Run, error_of


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
