import json
from pathlib import Path

import pytest

from tests.helpers.data_sets import pixels, write, write_market1501
from urban_reid.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_market1501(
        tmp_path / "[red]set",
        train=["0001_c1_1.png", "0001_c2_1.png"],
        query=["0005_c1_1.png"],
        gallery=["0005_c2_1.png"],
    )


def check(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["dataset", "check", *arguments])
    return int(ended.value.code or 0)


def test_a_sound_set_by_folder_and_by_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for source in (str(folder), f"market1501:{folder}"):
        assert check(source) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "[red]set" in shown[0] and shown[0].endswith("sound: nothing here would change figures\n")
    assert [line.split()[1:8:2] for line in shown[0].splitlines() if line.startswith("│")] == [
        ["train", "2", "1", "2"],
        ["query", "1", "1", "1"],
        ["gallery", "1", "1", "1"],
    ]


def test_findings_are_listed_and_the_exit_code_is_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for person in range(10, 15):
        write(folder / "query" / f"00{person}_c1_1.png", pixels(person))
    write(folder / "bounding_box_train" / "0007_c1_1.png", pixels(77))
    write(folder / "bounding_box_train" / "0007_c1_2.png", pixels(78))
    assert check(str(folder)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == (
        "wrong: 5 queries with no match, because the gallery does not show the person "
        "(query/0010_c1_1.png, query/0011_c1_1.png, query/0012_c1_1.png, ...)"
    )
    assert lines[-2].startswith("note: 1 identity to train on under one camera only") and lines[-1] == "1 wrong"
    assert check(str(folder), "--json") == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["sound"], printed.err) == (False, "")
    assert found["counts"]["query"] == {"pictures": 6, "people": 6, "cameras": 1, "junk": 0, "distractors": 0}
    assert [(finding["kind"], finding["wrong"], finding["count"]) for finding in found["findings"]] == [
        ("absent", True, 5),
        ("one camera", False, 1),
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "'nowhere': no such folder or layout; a data set is a folder, market1501:DIR"),
        (".", "is in no known layout"),
        ("msmt17:.", "it is empty"),
    ],
)
def test_wrong_use_is_one_line(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(source) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and said in printed.err
