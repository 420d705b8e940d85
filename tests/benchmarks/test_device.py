"""The script for a card, by its small run on a processor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.capacity.__main__ import opened


@pytest.mark.system
def test_each_part_gives_its_figures_and_the_cost_model_reads_the_card(tmp_path: Path) -> None:
    out = tmp_path / "device.json"
    command = [sys.executable, "-m", "benchmarks.device", "--device", "cpu", "--tiny", "--out", str(out)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["failed"] == {}
    for transform, most in (("sub", 1e-2), ("sub_abs", 1e-2)):
        one = found["pairs"][transform]
        assert one["pairs"] == 64 * 256 and one["largest_error"] < most
        assert one["pairs_per_s"] == pytest.approx(one["pairs"] / one["seconds"])
        assert set(one["share_of_matrix_rate"]) == set(found["pairs"]["matrix_products_gflops"])
    assert set(found["embedding"]) == {"eager float32", "eager", "took_s"}  # compiled on a card only
    assert found["training"]["pictures_per_s"] > 0 and found["training"]["busy_by"] == "processor time"
    assert found["cameras"] > 0 and not found["card"]["measured"]
    assert opened(device=out).load.gpu.crops_per_s == found["embedding"]["eager"]["crops_per_s"]
