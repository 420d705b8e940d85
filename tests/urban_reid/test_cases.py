"""Cases and purposes from the command line: what is misspelled is said before anything is asked for."""

from tests.helpers.command_line import Run, error_of

_ASK = ("cases", "ask", "case 17", "--purpose", "missing-person", "--legal-basis", "law 1", "--sought", "a child")
_PERIOD = ("--unit", "d1", "--from", "2026-01-01T08:00:00Z", "--to", "2026-01-01T20:00:00Z")


def test_an_authorization_that_ends_in_the_past_is_not_asked_for(run_here: Run) -> None:
    done = run_here(*_ASK, *_PERIOD, "--expires", "2026-01-08T00:00:00Z")
    assert error_of(done, 2) == "--expires: lies before now"
