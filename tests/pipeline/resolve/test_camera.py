"""Persistent ids of a camera's tracklets when late crops regroup them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.city.watermarks import mark_everything
from pipeline.resolve.camera import read_stretch
from pipeline.store import Store, roles
from pipeline.store.embedded import EmbeddedServer
from pipeline.store.user_supplied import supplied_url
from schemas.parameters import Period
from schemas.settings import AssociationSettings
from schemas.times import from_us
from tests.helpers.homes import fresh_settings
from tests.helpers.thin_town import ThinTown, crowd, looks

CAMERA = "d1/s1/b1/c1"
#: Crops without a track in the order of their arrival, (second, look in degrees): each late one changes the groups.
ARRIVALS = [
    [(15, 15.2), (24, 33.3), (6, 10.4)],
    [(4, 69.3)],
    [(19, 8.0)],
    [(18, 38.8), (27, 54.8)],
    [(22, 5.2)],
    [(14, 58.9)],
]


def test_an_id_is_not_given_twice_while_its_tracklet_is_current(server: EmbeddedServer) -> None:
    """The last crop regroups earlier tracklets; the one at 27 s is unchanged and keeps an id that they had too."""
    crops = [crop for arrival in ARRIVALS for crop in arrival]
    crowd = looks(*(("c1", at, look) for at, look in crops))
    current = text(
        "SELECT i.persistent_id FROM identity i JOIN run r ON r.id = i.run_id "
        "WHERE i.unit = :camera AND r.superseded_at IS NULL"
    )
    with fresh_settings(server) as plain:
        settings = plain.model_copy(update={"association": AssociationSettings(window_s=5)})
        owner = server.connect(roles.OWNER, supplied_url(settings).database or "")
        with Store.open(settings, "pytest") as store:
            town = ThinTown(store, crowd, slope=20, intercept=8.66, transit=0)
            for arrival in ARRIVALS:
                town.take_in(np.array([crops.index(crop) for crop in arrival]))
                with owner, owner.cursor() as cursor:
                    cursor.execute("UPDATE crop SET track = NULL")
                town.resolve([CAMERA])
                with store.begin() as connection:
                    ids = connection.execute(current, {"camera": CAMERA}).scalars().all()
                assert len(set(ids)) == len(ids) > 0
        owner.close()


@pytest.fixture
def make(server: EmbeddedServer) -> Iterator[Callable[[], ThinTown]]:
    with ExitStack() as ends:

        def made() -> ThinTown:
            settings = ends.enter_context(fresh_settings(server))
            return ThinTown(ends.enter_context(Store.open(settings, "pytest")), crowd(people=40, days=0.25))

        yield made


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has few crops be a stretch; how many crops were read at a time."""
    found, read = list[int](), read_stretch

    def noted(*given: Any) -> Any:
        crops, after = read(*given)
        found.append(len(crops.ids))
        return crops, after

    monkeypatch.setattr("pipeline.resolve.camera_windows.read_stretch", noted)
    return found


def digest(town: ThinTown) -> str:
    with town.store.begin() as connection:
        return decision_digest(connection)


def pending(town: ThinTown) -> int:
    with town.store.begin() as connection:
        query = "SELECT count(*) FROM watermark WHERE dirty_from IS NOT NULL"
        return int(connection.execute(text(query)).scalar_one())


def test_many_crops_are_read_in_stretches_with_the_same_decisions(
    make: Callable[[], ThinTown], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make()
    whole.take_in()
    whole.resolve()
    expected, cameras, most = digest(whole), len(sizes), max(sizes)
    assert len(set(sizes)) > 1 and most > 60
    monkeypatch.setattr("pipeline.resolve.camera.STRETCH", 5)
    sizes.clear()
    town = make()
    town.take_in()
    town.resolve()
    assert digest(town) == expected and pending(town) == 0
    assert len(sizes) > 3 * cameras and max(sizes) < most / 2
    with town.store.begin() as connection:
        mark_everything(connection)
    assert sum(result.written for result in town.resolve()) == 0 and digest(town) == expected and pending(town) == 0
    # A period at a time, of late crops too, whose windows were resolved without them.
    late = make()
    every = np.arange(len(late.crowd.crops))
    times_us = np.sort(late.crowd.crops.time_us)
    middle, last = (from_us(int(times_us[at])) for at in (len(times_us) // 2, -1))
    late.take_in(every[every % 3 != 0])
    late.resolve(period=Period(to_time=middle))
    assert pending(late) > 0
    late.take_in(every[every % 3 == 0])
    late.resolve(period=Period(to_time=middle))
    late.resolve(period=Period(from_time=middle, to_time=last + timedelta(days=1)))
    late.resolve()
    assert digest(late) == expected and pending(late) == 0
