"""The console's languages."""

import re
from calendar import month_abbr
from collections import Counter
from collections.abc import Iterator, Sequence
from gettext import NullTranslations
from html import unescape
from importlib.resources import files

import pytest
from babel.messages.pofile import read_po
from fastapi.testclient import TestClient
from jinja2 import Environment

from pipeline.city.units import read_city
from pipeline.governance.audit import Action
from schemas.parameters import Covered, SearchResult
from scripts.texts import CONSOLE, TEMPLATE, collected, merged, untranslated, written
from tests.helpers.console import As
from tests.helpers.town import Town
from urban_reid.console import texts
from urban_reid.console.app import make_app
from urban_reid.console.visitors import new_link

COVERED = Covered(unit="d1", from_time=None, to_time=None, cameras=8)


def _language(client: TestClient, accepted: str) -> str:
    return str(client.get("/words", headers={"accept-language": accepted}).text.partition('lang="')[2][:2])


def test_a_page_is_in_the_first_language_that_the_browser_names_and_the_console_speaks(as_: As) -> None:
    client = as_("anna")
    for accepted, code in (("de-AT,de;q=0.9", "de"), ("xx, de;q=0.5, en;q=0.8", "en"), ("fr", "en"), ("", "en")):
        assert _language(client, accepted) == code
    assert _language(client, "de;q=much") == "en"
    assert texts.language().code == "en"


def test_numbers_and_days_are_those_of_the_language() -> None:
    assert (texts.figure(12_345), texts.fixed(0.5), texts.percent(0.987)) == ("12,345", "0.50", "98.7%")
    with texts.reading("de"):
        assert (texts.figure(12_345), texts.fixed(0.5), texts.percent(0.987)) == (
            "12.345",
            "0,50",
            "98,7\N{NO-BREAK SPACE}%",
        )
        assert texts.duration(8.44) == "8,4 s"


def test_how_likely_something_is_is_a_percent_in_each_language_and_never_certain() -> None:
    likely = (0.0, 0.03, 0.996)
    assert [texts.chance(one) for one in likely] == ["under 1%", "3%", "over 99%"]
    lines = [SearchResult(covered=COVERED, hits=(), compared=2, not_here=one).lines[-1] for one in likely]
    assert "it is over 99% likely that none" in lines[-1]
    with texts.reading("de"):
        said = [f"{word}\N{NO-BREAK SPACE}%" for word in ("unter 1", "3", "über 99")]  # codespell:ignore unter
        assert [texts.chance(one) for one in likely] == said
        for line, one in zip(lines, said, strict=True):
            assert f"zu {one} wahrscheinlich" in texts.told(line)


def test_templates_look_up_only_what_they_say_themselves() -> None:
    """What `_` gives is not escaped: text that comes from elsewhere goes through `told`."""
    folder = files("urban_reid.console") / "templates"
    for template in folder.iterdir():
        assert not re.search(r"\b_\((?![\"'])", template.read_text(encoding="utf-8")), template.name


@pytest.mark.parametrize("code", texts.languages())
def test_nothing_is_nothing_in_each_language(code: str) -> None:
    """A catalog keeps its header under the empty text."""
    assert texts.languages()[code].told("") == ""
    with texts.reading(code):
        assert texts._("") == ""


def test_a_constant_of_a_template_is_written_in_the_language_of_each_reader() -> None:
    environment = Environment(autoescape=True)
    texts.install(environment, lambda value: value)
    template = environment.from_string("{{ 0.01 | percent(0) }}")
    assert template.render() == "1%"
    with texts.reading("de"):
        assert template.render() == "1\N{NO-BREAK SPACE}%"


def test_the_catalogs_are_those_that_make_texts_writes() -> None:
    texts_now = collected()
    assert written(texts_now) == TEMPLATE.read_bytes(), "run `make texts`"
    for path in CONSOLE.glob("locale/*/LC_MESSAGES/console.po"):
        assert untranslated(merged(path, texts_now)) == [], f"{path.parents[1].name} lacks them: `make texts`"


def _forms(said: str | tuple[str, ...] | list[str] | None) -> list[str]:
    return list(said) if isinstance(said, tuple | list) else [said or ""]


@pytest.mark.parametrize("code", [code for code in texts.languages() if code != "en"])
def test_a_translation_has_the_values_and_tags_of_its_text(code: str) -> None:
    with (CONSOLE / "locale" / code / "LC_MESSAGES" / "console.po").open("rb") as file:
        catalog = read_po(file, locale=code)
    for message in catalog:
        if not message.id:
            continue
        for text, said in zip(_forms(message.id), _forms(message.string), strict=True):
            for pattern in (r"%\(\w+\)s", r"<[^>]+>", r"`[^`]*`"):
                assert set(re.findall(pattern, said)) == set(re.findall(pattern, text)), said
            assert '"' not in re.sub(r"<[^>]+>|\{[^}]+\}", "", said)  # texts stand in attributes too, all but JSON


class _Marked(NullTranslations):
    """A language that puts each text of the catalogs in brackets."""

    def __init__(self) -> None:
        super().__init__()
        ids = [form for message in collected() for form in _forms(message.id) if form]
        self._catalog = {text: f"⟦{text}⟧" for text in ids}

    def gettext(self, message: str) -> str:
        return self._catalog.get(message, message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self._catalog[msgid1 if n == 1 else msgid2]


@pytest.fixture(scope="module")
def _marked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        found = texts.languages() | {"de": texts.Language("de", texts.ENGLISH.locale, _Marked())}
        patch.setattr(texts, "languages", lambda: found)
        yield


#: Words on pages that are no text: months, names of the program, measures, accounts and models, actions of the audit.
_NAMES = set(month_abbr) | {"Urban", "ReID", "UTC", "min", "mAP", "Rank", "mINP", "test", "rtsp", "stream"}
_NAMES |= {"anna", "ben", "ada", "otto", "emil"}
_NAMES |= {word for action in Action for word in re.findall("[a-z]+", action)}


def _unmarked(page: str) -> set[str]:
    """The words of a page that no catalog has."""
    while (shorter := re.sub(r"⟦[^⟦⟧]*⟧", "", page)) != page:
        page = shorter
    assert "⟦" not in page and "⟧" not in page
    page = re.sub(r'<(\w+)[^>]* lang="(?:en)?"[^>]*>.*?</\1>', "", page.partition("<body>")[2] or page, flags=re.DOTALL)
    said = re.findall(r'(?:title|alt|aria-label|placeholder|data-hint|data-lost)="([^"]*)"', page)
    said.append(re.sub(r"<[^>]*>", " ", re.sub(r"<code>[^<]*</code>", "", page)))
    return set(re.findall(r"[^\W\d_]{2,}", unescape(" ".join(said))))


def _crawl(client: TestClient, starts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pages that links lead to, at most two of each kind."""
    waiting, kinds = list(starts), Counter[str]()
    while waiting:
        path = waiting.pop(0)
        kind = re.sub(r"[0-9a-f]{8}-[0-9a-f-]+|d1[\w/-]*|=[^&]*", "*", path)
        kinds[kind] += 1
        if kinds[kind] > 2:
            continue
        page = client.get(path, headers={"accept-language": "de"})
        if page.headers["content-type"].startswith("text/html"):
            yield path, page.text
            waiting += [unescape(way) for way in re.findall(r' href="(/[^"#]*)"', page.text) if "static" not in way]


@pytest.mark.usefixtures("_marked")
def test_no_text_of_a_page_stands_outside_of_the_catalogs(as_: As, resolved: Town) -> None:
    city = read_city(resolved.store)
    data = " ".join(f"{unit.name} {unit.code}" for unit in city.units) + " " + " ".join(_NAMES)
    known = set(re.findall(r"[^\W\d_]{2,}", data))
    found: dict[str, set[str]] = {}
    for name, starts in (("ada", ["/", "/nothing"]), ("otto", ["/audit"]), ("emil", ["/", "/cameras", "/models"])):
        for path, page in _crawl(as_(name), starts):
            if left := _unmarked(page) - known:
                found[path] = left
    assert found == {}
    with TestClient(make_app(resolved.store, ["testserver"]), follow_redirects=True) as client:
        client.get(new_link("", client.app.state.console.visitors.key))  # type: ignore[attr-defined]
        for path, page in _crawl(client, ["/", "/nothing", "/people/d1"]):
            if left := _unmarked(page) - known:
                found[path] = left
    assert found == {}
