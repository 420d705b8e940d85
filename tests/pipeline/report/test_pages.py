import base64
import hashlib
import re

import pytest

from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import scorecard
from pipeline.city.status import status
from pipeline.report import write_report
from pipeline.report.pages import duration
from schemas.levels import Level
from schemas.text import one_line
from tests.helpers.report_pages import Page, read_pages
from tests.helpers.reported import HOSTILE, Reported


@pytest.fixture(scope="module")
def pages(reported: Reported) -> dict[str, Page]:
    return read_pages(reported.out)


def test_every_page_is_well_formed_and_states_its_language(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert page.unclosed == []  # and each end tag closed the innermost element
        assert page.elements[0] == ("html", {"lang": "en"})
        ids = [names["id"] for _, names in page.elements if "id" in names]
        assert len(ids) == len(set(ids))


def test_nothing_is_loaded_from_elsewhere(pages: dict[str, Page], reported: Reported) -> None:
    for page in pages.values():
        for link in page.links:
            target, _, anchor = link.partition("#")
            assert re.fullmatch(r"[A-Za-z0-9./_-]*", target), link
            assert not target or (reported.out / target).is_file(), link
            if anchor and target:
                assert any(names.get("id") == anchor for _, names in pages[target].elements), link
        assert "@import" not in page.style
        assert "url(" not in page.style


def test_the_policy_allows_only_the_pages_own_style_and_pictures(pages: dict[str, Page]) -> None:
    for page in pages.values():
        style_hash = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
        assert page.policy.split("; ") == [
            "default-src 'none'",
            f"style-src 'sha256-{style_hash}'",
            "img-src 'self' file:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
        assert not any("style" in names for _, names in page.elements)


def test_no_name_becomes_an_element_or_attribute(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert not {"script", "i", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
        assert not any(key.startswith("on") for _, names in page.elements for key in names)
        assert not any("src" in names and names["src"] == "x" for _, names in page.elements)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", "".join(page.texts))


def test_it_says_when_cameras_were_blind(pages: dict[str, Page]) -> None:
    index = pages["index.html"]
    rows = [row for row in index.rows if row[-1].startswith("no route")]
    assert [row[2] for row in rows] == ["still", "29 min"]
    assert rows[1][1] == "1 Jan 2026 09:00:00–09:29:00"
    assert rows[0][1].startswith("since ") and rows[0][1].endswith("09:05:00")
    assert rows[1][3] == one_line(f"no route {HOSTILE[0]}")
    assert [names for tag, names in index.elements if tag == "rect" and names.get("class") == "blind"]
    assert "the camera was blind" in index.text


def test_names_truths_and_operator_are_shown_as_they_were_written(pages: dict[str, Page]) -> None:
    index = pages["index.html"]
    for name in HOSTILE:
        assert one_line(name) in index.text
    assert "<b onclick=alert()>p0" in index.text
    assert "made by <i>operator</i>" in index.text


def test_exactly_the_pictures_shown_are_written(pages: dict[str, Page], reported: Reported) -> None:
    shown = set().union(*(page.pictures for page in pages.values()))
    assert len(shown) > 20
    assert shown == {f"crops/{file.name}" for file in (reported.out / "crops").iterdir()}


def test_pictures_have_alternative_texts(pages: dict[str, Page]) -> None:
    for page in pages.values():
        for tag, names in page.elements:
            if tag == "img":
                assert names["alt"]
            if tag == "image" or (tag == "svg" and "aria-hidden" not in names):
                assert names["aria-label"]


def test_counts_equal_those_of_status(pages: dict[str, Page], reported: Reported) -> None:
    found = status(reported.town.store)
    rows = [row for row in pages["index.html"].rows if len(row) == 8 and row[1] in set(Level)]
    assert len(rows) == 15  # 1 district, 2 streets, 4 buildings, 8 cameras

    def total(level: str, column: int) -> int:
        return sum(int(row[column].replace(",", "").replace("–", "0")) for row in rows if row[1] == level)

    assert {level: total(level, 4) for level in found["levels"]} == found["levels"]
    for level in found["levels"]:  # crops and tracklets are counted once on each level
        assert total(level, 2) == found["crops"]
        assert total(level, 3) == found["levels"]["camera"]
    assert sum(total(level, c) for level in found["levels"] for c in (5, 6, 7)) == found["decisions"]
    assert found["digest"] in pages["index.html"].text


def test_every_level_is_scored_against_the_ground_truth(pages: dict[str, Page], reported: Reported) -> None:
    town = reported.town
    found = scorecard(town.store, "d1", labeled_tracklets(town.store, "d1", town.model.id))
    shares = ("b_cubed_f1", "v_measure", "purity", "churn")
    counts = ("violations", "reviews", "reviews_labeled", "reviews_needed")
    for level, row in found.items():
        row_of_page = [level, *(f"{row[name]:.3f}" for name in shares), *(f"{row[name]:,}" for name in counts)]
        assert row_of_page in pages["index.html"].rows
    for word in ("B-cubed F1", "V-measure, purity", "Churn", "Impossible pairs", "Reviews, with truth, needed"):
        assert word in pages["index.html"].text


def test_the_same_store_gives_the_same_files(reported: Reported) -> None:
    before = {file.name: file.read_bytes() for file in reported.out.rglob("*") if file.is_file()}
    write_report(reported.town.store, reported.town.crops, "d1", reported.out)
    assert {file.name: file.read_bytes() for file in reported.out.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (8.24, "8.2 s"),
        (-4.5, "4.5 s"),
        (59.4, "59 s"),
        (120, "2 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (86_400, "1 d"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
