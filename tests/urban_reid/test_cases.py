"""Cases and purposes from the command line: what is misspelled is said before anything is asked for."""

import pytest

from tests.helpers.command_line import Run, error_of

_ASK = ("cases", "ask", "case 17", "--purpose", "missing-person", "--legal-basis", "law 1", "--sought", "a child")
_PERIOD = ("--unit", "d1", "--from", "2026-01-01T08:00:00Z", "--to", "2026-01-01T20:00:00Z")


def test_an_authorization_that_ends_in_the_past_is_not_asked_for(run_here: Run) -> None:
    done = run_here(*_ASK, *_PERIOD, "--expires", "2026-01-08T00:00:00Z")
    assert error_of(done, 2) == "--expires: lies before now"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("cases", "open", " "), "NAME: may not be blank: it is written to the audit"),
        (("cases", "open", "case 17\ncase 18"), "NAME: holds the control character U+000A"),
        (("cases", "open", "x" * 3000), "NAME: String should have at most 200 characters"),
        (("purposes", "add", "", "text"), "NAME: write a-z, 0-9 and dashes, 64 at most, such as missing-person"),
        (("purposes", "add", "x y", "text"), "NAME: write a-z, 0-9 and dashes, 64 at most, such as missing-person"),
        (("purposes", "add", "x\n", "text"), "NAME: write a-z, 0-9 and dashes, 64 at most, such as missing-person"),
        (("purposes", "add", "p2", ""), "TEXT: may not be blank: it is written to the audit"),
        (("purposes", "assessment", " "), "TEXT: may not be blank: it is written to the audit"),
    ],
)
def test_a_blank_or_misspelled_name_is_one_line(run_here: Run, typed: tuple[str, ...], said: str) -> None:
    assert error_of(run_here(*typed, "--reason", "x"), 2) == said
