"""Pages of a unit's people show who is there now, whatever was decided again, merged or withdrawn before."""

from itertools import pairwise
from pathlib import Path

from sqlalchemy import Connection, text

from pipeline.browsing.city_now import read_city_now, read_totals
from pipeline.browsing.joins import Join, Side, read_joins
from pipeline.browsing.people import Place, read_people
from pipeline.browsing.runs import read_runs
from pipeline.report.unit_counts import read_unit_counts
from tests.helpers.town import Town

# Whatever a view says: of each name the version of the last window that counts.
_NEWEST = text(
    "SELECT persistent_id::text FROM (SELECT DISTINCT ON (i.persistent_id) i.* FROM identity i "
    "JOIN run r ON r.id = i.run_id WHERE i.unit = :unit AND r.superseded_at IS NULL "
    "ORDER BY i.persistent_id, i.window_start DESC) AS newest WHERE NOT retired ORDER BY last_seen DESC, id DESC"
)


def shown(connection: Connection, unit: str) -> list[str]:
    """The persistent ids on all pages of a unit, three a page."""
    found: list[str] = []
    place: Place | None = None
    while True:
        page = read_people(connection, unit, place, 3)
        found += [str(one.persistent_id) for one in page.people]
        if (place := page.next) is None:
            return found


def test_after_late_pictures_a_page_shows_the_newest_version_of_each(town: Town, city_files: Path) -> None:
    lines = (city_files / "manifest.jsonl").read_text().splitlines()[:120]
    town.take_in(lines[::2])
    town.resolve()
    town.take_in(lines[1::2])
    town.resolve()
    with town.store.owning() as connection:
        assert connection.scalar(text("SELECT count(*) FROM run WHERE superseded_at IS NOT NULL"))
        units = connection.scalars(text("SELECT code FROM urban_unit")).all()
        for unit in units:
            assert shown(connection, unit) == connection.scalars(_NEWEST, {"unit": unit}).all(), unit
        now = connection.scalar(text("SELECT max(last_seen) FROM identity"))
        totals = read_totals(connection, units, now)
        counts = read_city_now(connection, totals, now)
        assert counts.people == len(shown(connection, "d1")) and 0 < counts.present <= counts.people
        for unit in totals.units:
            assert unit.identities == len(shown(connection, unit.code)), unit
            last = connection.scalar(
                text("SELECT max(last_seen) FROM identity_now WHERE unit = :unit"), {"unit": unit.code}
            )
            assert counts.sight(unit.code).last_seen == last, unit
        people = connection.execute(text("SELECT persistent_id, tracklets FROM identity_now WHERE unit = 'd1'")).all()
        buildings = [
            connection.scalars(
                text(
                    "SELECT u.parent FROM identity i JOIN urban_unit u ON u.code = i.unit WHERE i.id = ANY(:ids) "
                    "ORDER BY i.first_seen, i.id"
                ),
                {"ids": row.tracklets},
            ).all()
            for row in people
        ]
        steps = sum(a != b for its in buildings for a, b in pairwise(its))
        assert sum(totals.ways.values()) == steps, "each step from a building to another counts once"
        joins = {row.persistent_id: read_joins(connection, "d1", row.persistent_id) for row in people}
        of_one = [its for row in people if len(row.tracklets) == 1 and (its := joins[row.persistent_id])]
        assert not of_one, "nobody with one passage was joined"
        longest = max(people, key=lambda row: len(row.tracklets))
        found = joins[longest.persistent_id]
        assert found and [one.probability for one in found] == sorted(one.probability for one in found)
        for one in found:
            first, second = (side.seen for side in one.sides)
            assert first is None or second is None or first <= second
        runs = read_runs(connection, most=1000)
        assert runs.next is None and any(run.superseded for run in runs.runs) and not runs.waiting


def test_counts_are_those_of_now(town: Town, city_files: Path) -> None:
    """Without pictures that were withdrawn, and names that no version holds any more."""
    town.take_in((city_files / "manifest.jsonl").read_text().splitlines()[:120])
    town.resolve()
    with town.store.owning() as connection:
        names = connection.scalars(text("SELECT DISTINCT persistent_id FROM identity WHERE unit = 'd1'")).all()
        before = read_unit_counts(connection, "d1")[0]
        assert (before.crops, before.identities) == (120, len(names)) and len(names) > 1
        connection.execute(text("UPDATE crop SET withdrawn_at = now() WHERE id IN (SELECT id FROM crop LIMIT 7)"))
        connection.execute(
            text("UPDATE identity SET retired = true WHERE unit = 'd1' AND persistent_id = :name"), {"name": names[0]}
        )
        after = read_unit_counts(connection, "d1")[0]
        assert (after.crops, after.identities) == (113, len(names) - 1)
        connection.execute(text("UPDATE run SET superseded_at = now() WHERE unit = 'd1'"))
        assert read_unit_counts(connection, "d1")[0].identities == 0


def test_words_follow_the_figures() -> None:
    side = Side("d1/s1", None, None)
    figures = {"unit": "d1", "sides": (side, side), "distance": 0.4, "probability": 0.9, "operating_point": 0.8}
    sure = Join(look=0.995, transit_log_odds=2.0, gap_s=60.0, runner_up_distance=0.9, **figures)  # type: ignore[arg-type]
    odd = Join(look=0.4, transit_log_odds=-3.0, gap_s=60.0, runner_up_distance=0.45, **figures)  # type: ignore[arg-type]
    untimed = Join(look=0.7, transit_log_odds=0.0, gap_s=None, runner_up_distance=None, **figures)  # type: ignore[arg-type]
    assert "hardly any two people" in sure.looks and "just what people need" in sure.time and "Nobody" in sure.rival
    assert "would not have been joined" in odd.looks and "speaks against" in odd.time and "Somebody" in odd.rival
    assert "not known" in untimed.time and "nobody else to compare" in untimed.rival
