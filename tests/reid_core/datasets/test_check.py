import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from reid_core.datasets import CheckReport, Finding, SplitCounts, check_dataset, open_dataset
from tests.helpers.data_sets import pixels, write, write_market1501

TRAIN = ("0000_c1_1.png", "0000_c2_1.png", "0001_c1_1.png", "0001_c3_1.png", "-1_c9_1.png")
QUERY = ("0005_c1_1.png", "0006_c2_1.png")
GALLERY = ("0005_c2_1.png", "0006_c1_1.png", "0000_c3_1.png", "0000_c4_1.png", "-1_c8_1.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_market1501(tmp_path / "set", train=TRAIN, query=QUERY, gallery=GALLERY)


def check(folder: Path) -> CheckReport:
    return check_dataset(open_dataset(f"market1501:{folder}", strict=False))


def only(report: CheckReport) -> Finding:
    (finding,) = report.findings
    return finding


def test_a_sound_set(folder: Path) -> None:
    heard: list[tuple[int, int]] = []
    report = check_dataset(open_dataset(f"market1501:{folder}"), lambda done, total: heard.append((done, total)))
    assert report.sound and report.findings == ()
    assert report.counts == {
        "train": SplitCounts(pictures=4, people=2, cameras=3, junk=1, distractors=0),
        "query": SplitCounts(pictures=2, people=2, cameras=2, junk=0, distractors=0),
        "gallery": SplitCounts(pictures=4, people=2, cameras=4, junk=1, distractors=2),
    }
    assert heard == [(done, 12) for done in range(1, 13)]


def copy(of: str, to: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(folder / of, folder / to)


def again(of: str, to: str) -> Callable[[Path], object]:
    """The same pixels in another file: compressed harder, without loss."""

    def write_again(folder: Path) -> None:
        picture = cv2.imread(str(folder / of))
        assert picture is not None
        cv2.imwrite(str(folder / to), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        assert (folder / of).read_bytes() != (folder / to).read_bytes()

    return write_again


def keep(name: str, share: float) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: int(share * (folder / name).stat().st_size)]
    )


def jpeg_cut_off(folder: Path) -> None:
    coded = cv2.imencode(".jpg", pixels(77))[1].tobytes()
    (folder / "query" / "0005_c1_2.jpg").write_bytes(coded[: len(coded) * 9 // 10])


def add(name: str, height: int = 40, width: int = 20, number: int = 99) -> Callable[[Path], object]:
    picture = np.resize(pixels(number), (height, width, 3))
    return lambda folder: write(folder / name, picture)


TEST, TRAINING = "bounding_box_test", "bounding_box_train"


@pytest.mark.parametrize(
    ("spoil", "kind", "count", "text", "example"),
    [
        (keep(f"{TEST}/0005_c2_1.png", 0.5), "unreadable", 1, "1 picture that cannot be read", "damaged"),
        (keep(f"{TEST}/0005_c2_1.png", 0), "unreadable", 1, "1 picture that", "0005_c2_1.png: the file is empty"),
        (jpeg_cut_off, "unreadable", 1, "1 picture that", "query/0005_c1_2.jpg: the picture is damaged"),
        (
            add("query/5.png"),
            "name",
            1,
            "1 picture with a name or list entry that cannot be used",
            "query/5.png: the name is not of the form",
        ),
        (
            add("query/0007_c1_1.png"),
            "absent",
            1,
            "1 query with no match, because the gallery does not show",
            "0007_c1",
        ),
        (add("query/-1_c1_1.png"), "junk query", 1, "because the query is junk", "query/-1_c1_1.png"),
        (add(f"{TEST}/0001_c1_1.png"), "leak", 1, "1 identity is both to train on and to test", "1"),
        (
            copy(f"{TRAINING}/0001_c1_1.png", f"{TEST}/0006_c3_1.png"),
            "duplicate across splits",
            1,
            "1 picture is both to train on and to test",
            f"{TRAINING}/0001_c1_1.png and {TEST}/0006_c3_1.png (same file)",
        ),
        (
            again(f"{TRAINING}/0001_c1_1.png", "query/0006_c2_2.png"),
            "duplicate across splits",
            1,
            "1 picture is both to train on and to test",
            f"{TRAINING}/0001_c1_1.png and query/0006_c2_2.png (same pixels)",
        ),
        (
            copy("query/0006_c2_1.png", f"{TEST}/0005_c5_1.png"),
            "duplicate of two people",
            1,
            "1 picture with two identities",
            f"query/0006_c2_1.png and {TEST}/0005_c5_1.png (same file)",
        ),
        (
            copy("query/0006_c2_1.png", f"{TEST}/0006_c3_1.png"),
            "duplicate under two cameras",
            1,
            "1 picture is both query and gallery, under different cameras",
            "(same file)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_what_is_wrong(
    folder: Path, spoil: Callable[[Path], object], kind: str, count: int, text: str, example: str
) -> None:
    spoil(folder)
    report = check(folder)
    finding = only(report)
    assert not report.sound and finding.wrong
    assert (finding.kind, finding.count) == (kind, count)
    assert text in finding.text and example in finding.examples[0]


def test_a_query_under_its_own_camera_only(folder: Path) -> None:
    (folder / TEST / "0005_c2_1.png").rename(folder / TEST / "0005_c1_2.png")
    finding = only(check(folder))
    assert finding.wrong and finding.examples == ("query/0005_c1_1.png",)
    assert "the gallery shows the person under the query's own camera only" in finding.text


@pytest.mark.parametrize(
    ("spoil", "kind", "example"),
    [
        (copy(f"{TEST}/0006_c1_1.png", f"{TEST}/0006_c1_2.png"), "duplicate", "(same file)"),
        (add(f"{TEST}/0006_c1_2.png", 30, 20), "tiny", f"{TEST}/0006_c1_2.png (30 x 20)"),
        (add(f"{TEST}/0006_c1_2.png", 40, 50), "odd shape", f"{TEST}/0006_c1_2.png (40 x 50)"),
        (lambda folder: write(folder / TEST / "0006_c1_2.png", pixels(0) * 0), "plain", "0006_c1_2.png"),
    ],
)
def test_what_a_user_should_know(folder: Path, spoil: Callable[[Path], object], kind: str, example: str) -> None:
    spoil(folder)
    report = check(folder)
    assert report.sound and only(report).kind == kind and example in only(report).examples[0]


def test_training_people_who_teach_little(folder: Path) -> None:
    add(f"{TRAINING}/0003_c1_1.png", number=50)(folder)
    add(f"{TRAINING}/0004_c1_1.png", number=51)(folder)
    add(f"{TRAINING}/0004_c1_2.png", number=52)(folder)
    report = check(folder)
    assert report.sound
    assert {finding.kind: finding.examples for finding in report.findings} == {
        "one camera": ("3", "4"),
        "one picture": ("3",),
    }


def test_counts_of_a_known_set(folder: Path) -> None:
    known = folder.rename(folder.parent / "Market-1501")
    report = check(known)
    assert [finding.kind for finding in report.findings] == ["counts"] * 3 and not report.sound
    said = "training: 4 pictures of 2 people, but Market-1501 has 12,936 of 751"
    assert report.findings[0].text == said


def test_empty_splits(folder: Path) -> None:
    dataset = open_dataset(f"market1501:{folder}")
    assert check_dataset(replace(dataset, train=())).sound
    report = check_dataset(replace(dataset, gallery=()))
    assert not report.sound and "the gallery split is empty" in {finding.text for finding in report.findings}
    assert report.findings[-1].kind == "absent" and report.findings[-1].count == 2


def test_pictures_without_files() -> None:
    report = check_dataset(open_dataset("rendered:3:4"))
    assert report.sound and report.counts["train"].pictures == 32
