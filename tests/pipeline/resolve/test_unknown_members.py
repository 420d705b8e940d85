"""Members without a prototype of the model in use stay in their identity, whatever happens to the other members."""

import itertools
from dataclasses import replace
from uuid import UUID, uuid4

import numpy as np

from pipeline.association.geometry import unit_geometry
from pipeline.association.prototypes import Prototypes
from pipeline.association.transit import prior_times, unit_transit
from pipeline.resolve.level import WindowResult, resolve_level
from pipeline.resolve.rows import Identity, in_time_order
from pipeline.resolve.window_nodes import Inputs, LevelRun
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.arrays import Ints
from schemas.city_file import City
from schemas.settings import AssociationSettings
from tests.helpers.town import PACKAGED

SETTINGS = AssociationSettings()
CITY = City.model_validate(
    {
        "units": [
            {"code": code} for code in ("d1", "d1/s1", "d1/s1/b1", "d1/s1/b1/c1", "d1/s2", "d1/s2/b1", "d1/s2/b1/c1")
        ]
    }
)
#: Camera, start and end; the second and the third are at two places at once.
TRACKLETS = {
    1: (0, 0, 10**6),
    2: (0, 100 * 10**6, 110 * 10**6),
    3: (1, 100 * 10**6, 110 * 10**6),
}


def member(number: int, *, known: bool, tracklets: tuple[int, ...]) -> Identity:
    """An identity of a street."""
    vector = np.random.default_rng(number).normal(size=256)
    prototypes = Prototypes(1.0, vector, np.empty((0, 256))) if known else None
    key = bytes([number]) * 32
    spans = spans_of(tracklets)
    return Identity(number, key, UUID(int=number), "d1/s1", 0, 10**6, True, 1, False, tracklets, spans, prototypes)


def spans_of(tracklets: tuple[int, ...]) -> Ints:
    return in_time_order(np.array([TRACKLETS[t] for t in tracklets], dtype=np.int64).reshape(-1, 3).T)


def resolve(store: Store, before: list[Identity], children: list[Identity], gone: list[Identity]) -> WindowResult:
    """Resolves a window of a district whose only identity has the members `before`."""
    tracklets = tuple(t for one in before for t in one.tracklets)
    vectors = Prototypes(1.0, np.ones(256), np.empty((0, 256)))
    spans, persistent_id = spans_of(tracklets), UUID(int=99)
    holder = Identity(99, b"x" * 32, persistent_id, "d1", 0, 10**6, True, len(before), False, tracklets, spans, vectors)
    inputs = Inputs(
        children=children,
        gone={one.persistent_id: one.key for one in gone},
        context=[holder],
        touched={holder.persistent_id: before},
    )
    district = unit_geometry(CITY, "d1", SETTINGS)
    run = LevelRun(
        unit="d1",
        geometry=district,
        core=open_core(store.settings, PACKAGED),
        calibration=None,
        transit=unit_transit(prior_times(3600), district.children),
        settings=SETTINGS,
        new_id=itertools.count(1000).__next__,
        members=lambda _: {},
        free_ids=lambda _: {},
    )
    return resolve_level(run, inputs)


def test_an_identity_left_with_unknown_members_goes_on_without_a_prototype(store: Store) -> None:
    unknown, known = member(1, known=False, tracklets=(1,)), member(2, known=True, tracklets=(2,))
    result = resolve(store, [unknown, known], [], [known])
    (version,) = result.identities
    assert (version.persistent_id, [child.id for child in version.children], version.tracklets) == (
        UUID(int=99),
        [1],
        (1,),
    )
    assert version.prototypes is None and not version.retired
    assert result.decisions == [] and result.events == []


def test_a_split_identity_keeps_its_unknown_members_in_one_part(store: Store) -> None:
    unknown, second, third = (member(n, known=n > 1, tracklets=(n,)) for n in (1, 2, 3))
    newer = member(4, known=True, tracklets=(3,))
    newer = replace(newer, persistent_id=third.persistent_id)
    result = resolve(store, [unknown, second, third], [newer], [])
    parts = sorted(sorted(child.id for child in version.children) for version in result.identities)
    assert parts == [[1, 2], [4]]
    assert all(version.prototypes is not None for version in result.identities)


def test_new_members_join_beside_unknown_ones(store: Store) -> None:
    unknown, known = member(1, known=False, tracklets=(1,)), member(2, known=True, tracklets=(2,))
    newer = replace(known, id=5, key=uuid4().bytes * 2)
    (version,) = resolve(store, [unknown, known], [newer], []).identities
    assert sorted(child.id for child in version.children) == [1, 5] and version.prototypes is not None
    assert known.prototypes is not None and np.array_equal(version.prototypes.mean, known.prototypes.mean)
