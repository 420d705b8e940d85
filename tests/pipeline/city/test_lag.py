"""How soon a district decides on the people whom its cameras have seen."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from pipeline.city import watermarks
from pipeline.city.lag import Lag, resolve_lag
from pipeline.store import embedded, roles
from pipeline.store.user_supplied import supplied_url
from schemas.times import parse_time
from tests.helpers.town import Town

CROPS = 60


def lag(town: Town) -> Lag:
    with town.store.begin() as connection:
        return resolve_lag(connection)


def passages(town: Town) -> int:
    with town.store.begin() as connection:
        return int(connection.execute(text("SELECT count(*) FROM identity_now WHERE level = 'camera'")).scalar_one())


def ending(lines: Sequence[str], last: datetime) -> list[str]:
    """The lines, with times so that the last crop is taken at `last`."""
    crops = [json.loads(line) for line in lines]
    shift = last - max(parse_time(crop["time"]) for crop in crops)
    return [json.dumps(crop | {"time": (parse_time(crop["time"]) + shift).isoformat()}) for crop in crops]


def test_live_people_count_from_their_last_frame(town: Town, lines: list[str]) -> None:
    ended = datetime.now(UTC) - timedelta(seconds=400)
    town.take_in(ending(lines[:CROPS], ended))
    town.resolve()
    found = lag(town)
    assert found.people == passages(town)
    assert found.p50_s is not None and found.p50_s > 400


def test_recorded_people_count_from_when_they_came_in_and_only_once(
    server: embedded.EmbeddedServer, town: Town, lines: list[str]
) -> None:
    town.take_in(lines[:CROPS])
    assert lag(town) == Lag(0)
    town.resolve()
    found = lag(town)
    assert found.people == passages(town) > 0
    assert found.p50_s is not None and found.p95_s is not None and found.longest_s is not None
    assert 0 < found.p50_s <= found.p95_s <= found.longest_s < 300
    owner = server.connect(roles.OWNER, str(supplied_url(town.store.settings).database))
    with owner, owner.cursor() as cursor:  # all that happened long ago
        cursor.execute("UPDATE run SET finished_at = finished_at - interval '1 day'")
        cursor.execute("UPDATE crop SET ingested_at = ingested_at - interval '1 day'")
        cursor.execute("UPDATE urban_unit SET geometry = sha256('another'::bytea)")
    owner.close()
    with town.store.begin() as connection:
        watermarks.mark_everything(connection)
    assert town.resolve() > 0
    assert lag(town) == Lag(0)
