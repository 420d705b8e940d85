"""The command `urban-reid models export` on the packaged model: its folder, its JSON, and one line per error."""

import json
from pathlib import Path

import cv2
import pytest

import reid_core
from reid_core.files import read_card
from synthetic.training import training_set
from tests.helpers.command_line import messages_of
from urban_reid.cli import main

DEMO = reid_core.DEMO_MODEL


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        main(["models", "export", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0), *capsys.readouterr()
    return 0, *capsys.readouterr()


def test_a_model_directory_goes_to_openvino(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, str(DEMO), "--to", "openvino", "--out", str(tmp_path / "ir"), "--json")
    found = json.loads(out)
    assert code == 0 and found["name"] == "demo-openvino-f32" and found["calibrated"] and found["mAP"] is None
    assert set(found["cosines"]) == {"1", "7", "32"} and min(found["cosines"].values()) >= 0.9999
    assert read_card(tmp_path / "ir").calibration == read_card(DEMO).calibration


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row, picture in enumerate(training_set(5, 2, 4, (128, 64)).pictures):
        cv2.imwrite(str(tmp_path / f"{row}.png"), picture)
    to_int8 = (str(DEMO), "--to", "openvino", "--precision", "int8", "--out", str(tmp_path / "out"))
    for arguments, code, said in (
        ((str(DEMO), "--to", "onnx", "--precision", "int8", "--out", str(tmp_path / "out")), 2, "int8 is for openvino"),
        (to_int8, 2, "int8 needs pictures to calibrate on and labeled ones"),
        ((*to_int8, "--calibrate-on", str(tmp_path / "gone")), 2, "gone': no such folder"),
        ((*to_int8, "--calibrate-on", str(tmp_path), "--check-on", "rendered:3:2"), 2, "8 pictures to calibrate on"),
        # Unsupported combinations are reported before pictures are read.
        ((*to_int8[:2], "onnx", *to_int8[3:], "--calibrate-on", str(tmp_path / "gone")), 2, "int8 is for openvino"),
        ((str(tmp_path / "0.png"), "--to", "onnx", "--out", str(tmp_path / "out")), 2, "0.png: a file; register it"),
        ((str(tmp_path), "--to", "onnx", "--out", str(tmp_path / "out")), 1, "a model directory holds card.json"),
    ):
        found, out, err = run(capsys, *arguments)
        assert (found, out) == (code, "") and said in err and len(messages_of(err)) == 1
        assert not (tmp_path / "out").exists()
