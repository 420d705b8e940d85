import asyncio
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text

from flows.failures import call
from flows.resolve import FLOWS, district
from flows.work import Work, working
from pipeline.city.decision_digest import decision_digest
from pipeline.city.status import status
from pipeline.city.units import read_city, store_city
from pipeline.resolve import embed_camera
from schemas.errors import CityError, CoreUnavailable, PictureError, UsageError, VectorError
from schemas.levels import Level
from schemas.parameters import ResolveParameters
from tests.helpers.prefect_api import Ask
from tests.helpers.town import Town

pytestmark = pytest.mark.usefixtures("prefect_url")


def test_a_district_resolves_all_below_it_once(town: Town, lines: list[str], api: Ask) -> None:
    town.take_in(lines[:200])
    city, name = read_city(town.store), "<script>alert(1)</script> [red]*x*"
    named = [unit.model_copy(update={"name": name}) if unit.code == "d1" else unit for unit in city.units]
    store_city(town.store, city.model_copy(update={"units": tuple(named)}))
    told: list[int] = []
    with working(town.store.settings) as work:
        work.on_step = lambda _, done, __: told.append(done)
        first = asyncio.run(district(ResolveParameters(unit="d1")))
        again = asyncio.run(district(ResolveParameters(unit="d1")))
    with town.store.begin() as connection:
        assert first.digest == decision_digest(connection, "d1")
    assert first.written > 0
    assert (again.written, again.digest) == (0, first.digest)
    units = [result.unit for result in first.results]
    assert units[-1] == "d1" and len(units) == len(set(units))
    assert all(unit.rpartition("/")[0] in units[number:] for number, unit in enumerate(units[:-1]))
    assert len(told) > 2 * len(units) and told[-1] == max(told) == 100  # percent; of both runs

    runs = api("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1, "flows": {"name": {"any_": ["district"]}}})
    assert runs[0]["parameters"] == {"parameters": {"unit": "d1", "from_time": None, "to_time": None}}
    table, summary = (
        api("/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})[0]
        for key in ("resolve-d1", "resolve-summary-d1")
    )
    assert '"unit": "d1/s1/b1"' in table["data"]
    for shown in (table["data"], summary["data"]):
        assert "<script>" not in shown and "&lt;script" in shown
    assert r"\*x\*" in summary["data"] and first.digest in summary["data"]
    assert f"{first.written} rows written" in summary["data"]  # the second run, which found nothing, left it


@pytest.mark.parametrize(
    ("level", "unit", "units"),
    [(Level.CAMERA, "d1/s1/b1/c1", 1), (Level.BUILDING, "d1/s1/b1", 3), (Level.STREET, "d1/s1", 7)],
)
def test_a_flow_for_each_level(town: Town, lines: list[str], level: Level, unit: str, units: int) -> None:
    town.take_in(lines[:60])
    with working(town.store.settings):
        resolved = asyncio.run(FLOWS[level](ResolveParameters(unit=unit)))
    assert len(resolved.results) == units


def test_units_that_do_not_fit_are_refused(town: Town) -> None:
    with working(town.store.settings):
        with pytest.raises(UsageError, match="d1/s1 is a street; run the street flow"):
            call(district, ResolveParameters(unit="d1/s1"), print)
        with pytest.raises(CityError, match="no unit 'd9'"):
            call(district, ResolveParameters(unit="d9"), print)


class Failing:
    """A core that fails a number of times and then works."""

    def __init__(self, work: Work, error: Exception, times: int) -> None:
        self._core = work.core(work.with_model_in_use(lambda model: model))
        self.card, self.space, self.seconds = self._core.card, self._core.space, 0.0
        self._error, self._times = error, times

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._times:
            self._times -= 1
            raise self._error
        return self._core.embed(pictures)

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._core.distances(left, right)


def resolve_with(town: Town, error: Exception) -> Any:
    with working(town.store.settings) as work, pytest.MonkeyPatch.context() as patch:
        failing = Failing(work, error, times=1)
        patch.setattr(work, "core", lambda _: failing)
        return call(FLOWS[Level.CAMERA], ResolveParameters(unit="d1/s1/b1/c1"), print)


def test_only_failures_that_may_pass_are_tried_again(town: Town, lines: list[str]) -> None:
    town.take_in([line for line in lines if '"d1/s1/b1/c1"' in line][:5])
    with pytest.raises(VectorError, match="holds NaN"):
        resolve_with(town, VectorError("vector 3 holds NaN"))
    with pytest.raises(VectorError, match=re.escape("vector of caf\udce9 holds NaN")):  # a name that is not UTF-8
        resolve_with(town, VectorError("vector of caf\udce9 holds NaN"))
    resolved = resolve_with(town, CoreUnavailable("the core process went away"))
    assert resolved.written > 0


def test_a_failing_camera_stops_the_units_above_it_and_no_others(
    town: Town, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    town.take_in(lines[:100])
    broken = next(iter(sorted({line.split('"camera":"')[1].split('"')[0] for line in lines[:100]})))

    def embed(*arguments: Any) -> int:
        if broken in arguments:
            raise PictureError("a picture cannot be read")
        return embed_camera(*arguments)

    monkeypatch.setattr("flows.resolve.embed_camera", embed)
    with working(town.store.settings), pytest.raises(PictureError, match="cannot be read"):
        call(district, ResolveParameters(unit="d1"), print)
    with town.store.begin() as connection:
        done = set(connection.scalars(text("SELECT DISTINCT unit FROM run")))
    assert done and not {broken, broken.rpartition("/")[0], "d1"} & done


def test_a_picture_that_is_back_is_embedded_although_nothing_else_is_pending(
    town: Town, lines: list[str], tmp_path: Path
) -> None:
    town.take_in(lines[:20])
    picture = town.pictures()[0]
    picture.rename(tmp_path / "away")
    with working(town.store.settings):
        assert asyncio.run(district(ResolveParameters(unit="d1"))).written > 0
        assert asyncio.run(district(ResolveParameters(unit="d1"))).written == 0
        assert status(town.store)["gone"] == 1
        (tmp_path / "away").rename(picture)
        assert asyncio.run(district(ResolveParameters(unit="d1"))).written > 0
    assert status(town.store)["gone"] == 0
