"""Lay words for what the audit records and for the fields of forms."""

from typing import Any
from uuid import uuid4

import pytest

from pipeline.governance.audit import Action
from schemas.errors import InputError
from schemas.parameters import SearchParameters
from tests.helpers.console import As
from urban_reid.console.forms import checked
from urban_reid.console.words import ACTIONS


def test_each_action_of_the_audit_has_words() -> None:
    assert set(ACTIONS) == {action.value for action in Action}


def test_the_audit_says_them(as_: As) -> None:
    as_("anna").get("/people/d1")
    shown = as_("otto").get("/audit", params={"actor": "anna"}).text
    assert "was refused something<br><code>access.refuse</code>" in shown


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"unlike": [f"{n:064x}" for n in range(6)]}, "Not these: more than 5 were chosen"),
        ({"more": [f"{n:064x}" for n in range(21)]}, "The person: more than 20 were chosen"),
        ({"pictures": [uuid4() for _ in range(6)]}, "Picture: more than 5 were chosen"),
        ({"attributes": "a crown"}, "What the person wears and carries: "),
    ],
)
def test_a_field_is_called_as_on_its_page(wrong: dict[str, Any], said: str) -> None:
    usual = {"unit": "d1", "reason": "case 17", "operator": "anna", "crop_key": "a" * 64}
    with pytest.raises(InputError, match=f"^{said}"):
        checked(SearchParameters, **usual | wrong)
