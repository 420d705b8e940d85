"""What goes on beside the pages."""

import threading
from collections.abc import Callable

import pytest

from schemas.errors import InputError, StoreUnavailable
from urban_reid.console.beside import Beside
from urban_reid.console.switching import Switching


def test_a_page_gets_the_first_result_and_waits_for_none_that_takes_long() -> None:
    go_on = threading.Event()
    slow = Beside(lambda: go_on.wait(60) and "counted")
    assert slow.now(0.0) is None
    go_on.set()
    assert slow.now(60.0) == "counted"


def test_a_result_stays_while_the_city_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("urban_reid.console.beside._YOUNG_S", 0.0)
    answers = ["counted"]

    def read() -> str:
        if not answers:
            raise StoreUnavailable("the database does not answer")
        return answers.pop()

    kept = Beside(read)
    assert kept.now(60.0) == "counted"
    monkeypatch.setattr(kept, "_ended_at", -1e9)
    assert kept.now(60.0) == "counted"
    assert "the database does not answer" in caplog.text


def test_one_model_at_a_time_comes_into_use() -> None:
    go_on, switching = threading.Event(), Switching()

    def work(tell: Callable[[int, int], None]) -> str:
        tell(3, 10)
        go_on.wait(60)
        return "better is in use"

    thread = switching.begin("better is getting ready", work)
    with pytest.raises(InputError, match="wait for the one that goes on: better"):
        switching.begin("another is getting ready", work)
    go_on.set()
    thread.join()
    assert (switching.words, switching.working, switching.of) == ("better is in use", False, 10)

    def fail(_: Callable[[int, int], None]) -> str:
        raise InputError("it is worse")

    switching.begin("another", fail).join()
    assert (switching.words, switching.working) == ("it is worse", False)
