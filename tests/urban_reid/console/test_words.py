"""Lay words for what the audit records."""

from pipeline.governance.audit import Action
from tests.helpers.console import As
from urban_reid.console.words import ACTIONS


def test_each_action_of_the_audit_has_words() -> None:
    assert set(ACTIONS) == {action.value for action in Action}


def test_the_audit_says_them(as_: As) -> None:
    as_("anna").get("/people/d1")
    shown = as_("otto").get("/audit", params={"actor": "anna"}).text
    assert "was refused something<br><code>access.refuse</code>" in shown
