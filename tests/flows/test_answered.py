"""Searches that were answered are told to Prefect; no search fails because of it."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from flows.answered import Answered, Answers


def test_an_error_that_nobody_expected_does_not_end_the_telling(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    async def report(answered: Answered, _server: object) -> None:
        told.append(answered.unit)
        if answered.unit == "d1":
            raise ValueError("a bug")

    monkeypatch.setattr("flows.answered._report", report)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    answers, now = Answers(), datetime.now(UTC)
    for unit in ("d1", "d2"):
        answers.tell(Answered(uuid4(), unit, now, now))
    answers.wait()
    assert told == ["d1", "d2"] and any("unexpected ValueError: a bug" in line for line in caplog.messages)
