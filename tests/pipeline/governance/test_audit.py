"""The audit trail's actions, new and old."""

import re

import pytest
from sqlalchemy import text

from pipeline.governance.audit import Action, audit
from pipeline.store import Store


@pytest.mark.parametrize(
    ("stored", "action"),
    [
        ("city load", Action.CITY_LOAD),
        ("report", Action.REPORT_WRITE),
        ("search", Action.SEARCH_START),
        ("crop.gone", Action.CROP_LOSE),
        ("model.transit", Action.TRANSIT_LEARN),
        *((action.value, action) for action in Action),
    ],
)
def test_rows_of_every_version_name_an_action(stored: str, action: Action) -> None:
    assert Action(stored) is action


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'city\.lode' is not a valid Action"):
        Action("city.lode")


@pytest.mark.parametrize("action", Action)
def test_every_action_is_spelled_noun_dot_verb(action: Action) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z]+", action)


def test_a_row_is_written_in_the_callers_transaction(store: Store) -> None:
    with store.begin() as connection:
        audit(connection, "anna", Action.SEARCH_START, unit="d1", reason="lost child", details={"request": "7"})
    with store.signed_in() as connection:
        row = connection.execute(text("SELECT actor, action, unit, reason, details FROM audit")).one()
    assert row == ("anna", "search.start", "d1", "lost child", {"request": "7"})
