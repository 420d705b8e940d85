"""The table that `urban-reid search` prints."""

from datetime import UTC, datetime
from io import StringIO
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from schemas.feeds import Outage
from schemas.parameters import Covered, CropEvidence, SearchHit
from urban_reid.commands.search import blind_lines, hits_table, period_of

CROP = CropEvidence(key="ab" * 32, camera="d1/s1/b1/c1", time=None, distance=0.1, lineage=(UUID(int=1),))


def hit(first: datetime | None, last: datetime | None, model: str = "demo", rank: int = 1) -> SearchHit:
    return SearchHit(
        rank=rank,
        identity=UUID(int=rank),
        unit="d1",
        model=model,
        distance=0.25,
        probability=0.5,
        first_seen=first,
        last_seen=last,
        crops=(CROP,),
    )


def printed(*hits: SearchHit, width: int = 200) -> list[str]:
    with StringIO() as file:
        Console(file=file, width=width).print(hits_table(hits, ZoneInfo("Europe/Berlin")))
        return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_a_last_sighting_on_another_day_is_printed_with_its_day_in_the_citys_zone() -> None:
    lines = printed(hit(datetime(2026, 1, 1, 22, 59, 50, tzinfo=UTC), datetime(2026, 1, 2, 7, 0, 10, tzinfo=UTC)))
    assert "seen (Europe/Berlin)" in lines[1]
    assert any("1 Jan 2026 23:59:50 - 2 Jan 2026 08:00:10" in line for line in lines)


def test_times_that_are_not_known_are_left_out() -> None:
    assert "0.250 0.50 00000000 d1/s1/b1/c1 abababab" in " ".join(printed(hit(None, None)))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_whole_table_is_printed_at_any_width(width: int) -> None:
    first, last = (datetime(2026, 1, day, 12, tzinfo=UTC) for day in (1, 2))
    lines = printed(hit(first, last), hit(first, last, model="older", rank=2), width=width)
    words = " ".join(lines).split()
    for word in ("13:00:00", "2026", "00000000", "by", "older", "abababab"):
        assert word in words, (word, lines)
    assert not any("…" in line for line in lines)


def test_leads_are_named_where_there_are_any() -> None:
    found = hit(None, None)
    assert "lead" not in " ".join(printed(found))
    lines = " ".join(printed(found.model_copy(update={"lead": UUID("8c1d22aa" + "0" * 24)})))
    assert "# lead distance" in lines and "1 8c1d22aa 0.250" in lines


def test_a_few_outages_are_told_and_the_others_counted() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    outages = [
        Outage(camera=f"d1/s1/b1/c{number}", down_at=noon, up_at=None if number == 0 else noon, reason="stalled")
        for number in range(7)
    ]
    lines = blind_lines(outages, ZoneInfo("Europe/Berlin"))
    assert lines[0] == "camera d1/s1/b1/c0 blind since 1 Jan 2026 13:00:00: stalled"
    assert len(lines) == 6 and lines[-1] == "and 2 more such times; --json lists them"
    assert len(blind_lines(outages[:5], ZoneInfo("UTC"))) == 5 and blind_lines([], ZoneInfo("UTC")) == []


def test_what_was_not_compared_in_full_is_said_with_its_recall() -> None:
    covered = Covered(unit="d1", from_time=None, to_time=None, cameras=8)
    assert period_of(covered, ZoneInfo("UTC")) == "d1, 8 cameras, all times"
    large = covered.model_copy(update={"exact": False})
    assert period_of(large, ZoneInfo("UTC")).endswith("recall of the ten nearest: not measured yet")
    measured = period_of(large.model_copy(update={"recall": 0.998}), ZoneInfo("UTC"))
    assert measured.endswith("by a shortlist, recall of the ten nearest: 0.998")
