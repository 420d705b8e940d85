"""The console's languages."""

import re
from importlib.resources import files

from fastapi.testclient import TestClient

from tests.helpers.console import As
from urban_reid.console import texts


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


def test_templates_look_up_only_what_they_say_themselves() -> None:
    """What `_` gives is not escaped: text that comes from elsewhere goes through `told`."""
    folder = files("urban_reid.console") / "templates"
    for template in folder.iterdir():
        assert not re.search(r"\b_\((?![\"'])", template.read_text(encoding="utf-8")), template.name
