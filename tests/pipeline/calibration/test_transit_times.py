"""Transit times learned from a city's own decisions."""

import pytest
from sqlalchemy import text

from pipeline.calibration.transit_times import learn_transit_times
from pipeline.resolve.calibrations import current_calibration
from schemas.errors import InputError
from schemas.levels import Level
from tests.helpers.town import Town


def test_times_are_learned_from_the_current_joins(
    town: Town, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.calibration.transit_times.MIN_JOINS", 3)
    with pytest.raises(InputError, match="3 joins with times"):
        learn_transit_times(town.store, town.model, "anna", "nothing is resolved yet")
    town.take_in(lines)
    town.resolve()
    with town.store.begin() as connection:
        before = current_calibration(connection, town.model.id, Level.BUILDING)
        joins = connection.execute(
            text(
                "SELECT count(*) FROM match_decision d JOIN run r ON r.id = d.run_id WHERE r.level = 'building' "
                "AND d.verdict = 'join' AND d.gap_s IS NOT NULL AND r.superseded_at IS NULL"
            )
        ).scalar_one()
    found = learn_transit_times(town.store, town.model, "anna", "a day of joins")
    with town.store.signed_in() as connection:
        after = current_calibration(connection, town.model.id, Level.BUILDING)
        audited = connection.execute(text("SELECT reason FROM audit WHERE action = 'transit.learn'")).scalars().all()
    assert before is not None and after is not None and after.id != before.id
    assert after.value.transit == found[Level.BUILDING] and after.value.terms == before.value.terms
    assert 0 < found[Level.BUILDING].joins <= joins
    assert audited == ["a day of joins"]
    assert town.resolve() > 0  # other transit times: decided again
    assert town.resolve() == 0
