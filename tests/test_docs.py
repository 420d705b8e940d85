"""The docs say what is so: files and options that they name exist, and the site builds without a warning."""

import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer
import yaml

from docs import build
from schemas.settings import AssociationSettings, Settings
from urban_reid.cli import app

ROOT = Path(__file__).parents[1]
TEXTS = {".py", ".md", ".jinja", ".css", ".js", ".toml", ".json"}
#: The changelog and the plan tell of earlier versions too.
PAGES = [
    path
    for path in (*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md")))
    if path.name not in ("CHANGELOG.md", "plan.md")
]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
FILE = re.compile(
    r"(?<![\w/.:-])((?:docs|reid_core|pipeline|flows|urban_reid|schemas|synthetic|migrations|tests|benchmarks|scripts|"
    r"examples)/[\w/.-]*)"
)


def command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words begin with, and the words behind it."""
    found: Any = typer.main.get_command(app)
    while words and words[0] in getattr(found, "commands", {}):
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {name.rstrip(".") for name in FILE.findall(text)}
    if page.name == "architecture.md":  # its tree and its tables tell of earlier places too
        named = {name for name in named if name.endswith((".py", ".md", ".svg"))}
    made = ("docs/site", "examples/x.py")
    assert not [name for name in sorted(named) if not (ROOT / name).exists() and not name.startswith(made)]


def shown_commands(text: str) -> Iterator[str]:
    """What a page shows of `urban-reid`: in backticks, in code blocks and in indented lines."""
    fenced = False
    for line in text.replace("\\\n", " ").splitlines():
        fenced ^= line.lstrip().startswith("```")
        parts = [line.strip()] if fenced or line.startswith("    ") else re.findall(r"`([^`]+)`", line)
        yield from (part for part in parts if re.match(r"(?:[A-Z_]+=\S+ )*urban-reid [a-z]", part))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_and_options_that_a_page_shows_are_there(page: Path) -> None:
    for line in shown_commands(page.read_text(encoding="utf-8")):
        found, rest = command(shlex.split(line.split("#")[0].partition("urban-reid ")[2]))
        assert rest == [] or not getattr(found, "commands", {}), f"{line}: no such command"
        options = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        named = {word.strip("[]") for word in rest if re.match(r"\[*--[a-z]", word)}
        assert named <= options | {"--help"}, f"{line}: {named - options}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_settings_that_a_page_names_are_there(page: Path) -> None:
    named = set(re.findall(r"URBAN_REID_([A-Z_]+)", page.read_text(encoding="utf-8")))
    known = {name.upper() for name in Settings.model_fields} | {"TEST_ASSETS", "REAL_SET"}  # these are of the tests
    known |= {f"ASSOCIATION__{name.upper()}" for name in AssociationSettings.model_fields}
    assert named <= known


def test_the_newcomers_questions_are_answered_by_file() -> None:
    text = (ROOT / "docs" / "where-to-change.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", text, re.M))
    assert len(rows) > 15
    for question, file in {
        "is the operating point chosen?": "pipeline/calibration/fit.py",
        "is a crop decoded?": "reid_core/decoding.py",
        "is it decided that two people are one?": "pipeline/association/associate.py",
        "is a search audited?": "pipeline/search/request.py",
        "would a new level's rule go?": "pipeline/resolve/level.py",
    }.items():
        assert f"`{file}`" in rows[question]


def test_the_command_line_page_has_every_command_and_option() -> None:
    page = build.command_line_page()
    commands = list(build._commands(typer.main.get_command(app), ()))
    assert len(commands) > 20
    for path, found in commands:
        assert f"### urban-reid {' '.join(path)}\n" in page
        for parameter in found.params:
            if not getattr(parameter, "hidden", False) and parameter.opts[0].startswith("--"):
                assert parameter.opts[0] in page


def test_the_settings_page_has_every_setting_with_its_default() -> None:
    page = build.settings_page()
    for name in Settings.model_fields:
        if name != "association":
            assert f"`URBAN_REID_{name.upper()}`\n" in page
    for name, field in AssociationSettings.model_fields.items():
        assert (
            f"default `{field.default}`" in page.split(f"`URBAN_REID_ASSOCIATION__{name.upper()}`\n")[1].split("\n")[0]
        )


def test_hooks_and_lint_are_the_same_commands() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = {f"$({name})": value for name, value in re.findall(r"^(BIN|CODE) := (.+)$", makefile, re.M)}
    recipe = makefile.split("\nlint: $(STAMP)\n")[1].split("\n\n")[0]
    for name, value in variables.items():
        recipe = recipe.replace(name, value)
    assert [hook["entry"] for hook in hooks] == [line.strip() for line in recipe.splitlines()] and len(hooks) == 6


def test_no_file_keeps_what_a_merge_left() -> None:
    """In a template or a page of the docs no other test sees it."""
    files = [
        file
        for package in ("pipeline", "urban_reid", "flows", "docs", "examples")
        for file in ROOT.glob(f"{package}/**/*")
    ]
    texts = {file: file.read_text(encoding="utf-8") for file in files if file.suffix in TEXTS}
    assert len(texts) > 400
    assert [file for file, said in texts.items() if re.search(r"^(<{7}|>{7}) ", said, re.M)] == []


def test_the_changelog_has_the_projects_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert version and f"\n## [{version[1]}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


class Links(HTMLParser):
    """What a page links to, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def broken_links(site: Path) -> Iterator[str]:
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    for page, found in pages.items():
        for link in found.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data") or link in ("#", "."):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            missing = not target.exists()
            if missing or (parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors):
                yield f"{page.relative_to(site)}: {link}"


@pytest.mark.system
def test_the_site_builds_without_a_warning_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    site = build.build(tmp_path / "docs")
    assert list(broken_links(site)) == []
    text = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    assert "urban-reid models promote" in text
    assert "Euclidean" in (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert (site / "search.json").stat().st_size > 100_000
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', (site / "index.html").read_text())
    assert loaded == []  # nothing is fetched from another server


@pytest.mark.system
def test_a_broken_page_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.md"
    broken.write_text("# Broken\n\n[nowhere](nowhere.md)\n", encoding="utf-8")
    monkeypatch.setitem(build.ROOT_PAGES, str(broken), "broken.md")
    with pytest.raises(SystemExit, match="page does not exist"):
        build.build(tmp_path / "docs")


def test_the_tests_of_lawful_use_are_there() -> None:
    """Each rule names a test, and nobody renames it away."""
    rows = [line for line in (ROOT / "docs/lawful-use.md").read_text().splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    there = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for row in rows:
        named = re.findall(r"`(?:[\w/]*/)?(test_\w+(?:\.py)?)`|`(tests/[\w/]+)`", row.split("|")[4])
        assert named or "results.md" in row, row
        for test, folder in named:
            assert not test or test in files or f"def {test}(" in there, test
            assert not folder or list((ROOT / folder).glob("test_*.py")), folder
