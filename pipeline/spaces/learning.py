"""Learns a feature space from the crops of cameras, without labels.

A camera's mean is that of its tracklets; those that are alike share one vote, so whoever loiters counts once. Tracklets
are taken evenly over all that a camera has seen, day and night, in an order that the crops alone give: when they
arrived changes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from sqlalchemy import Connection
from threadpoolctl import threadpool_limits

from pipeline.registry import ModelRow
from pipeline.resolve.features import read_features
from pipeline.resolve.tracklets import CropColumns, group
from pipeline.store import Store
from pipeline.store.copy import copy_out
from reid_core.datasets import Dataset
from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.evaluation.spaces import basis_of
from reid_core.feature_space import Basis, FeatureSpace, learn_basis, learn_means, mutual_neighbors, shared_votes
from reid_core.serving.core import ReIDCore
from schemas.arrays import Floats
from schemas.cards import InputConvention
from schemas.errors import InputError
from schemas.settings import AssociationSettings

T = TypeVar("T")

Unlabeled = Literal["none", "tracklets"]
BasisSource = Literal["none", "tracklets", "people"]

#: Most tracklets of a camera, and crops of a tracklet, that are read; of more, evenly spaced ones.
_TRACKLETS, _CROPS_EACH = 256, 16
#: Most crops of all cameras that a basis is learned from.
_BASIS_CROPS = 20_000
#: Most people who calibrate. More would take an hour and change the fit little.
_CALIBRATING = 200
#: Training pictures that are embedded at a time.
_PICTURES = 256
#: With fewer tracklets in all, nothing is learned.
_FEWEST = 10

_CROPS = (
    "SELECT c.id, c.key, c.captured_at, c.timed, c.track, c.quality FROM crop c JOIN crop_embedding e "
    "ON e.crop_id = c.id AND e.model_id = :model AND e.day = c.day "
    "WHERE c.camera = :camera AND c.quality >= :quality AND c.withdrawn_at IS NULL ORDER BY c.captured_at, c.key"
)
_FEATURES = (
    "SELECT c.id, e.v FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY AS chosen (id, place) "
    "JOIN crop c ON c.id = chosen.id JOIN crop_embedding e ON e.crop_id = c.id AND e.model_id = :model "
    "AND e.day = c.day ORDER BY chosen.place"
)


@dataclass(frozen=True)
class LearnedSpace:
    """A feature space, and what it was learned from."""

    space: FeatureSpace
    crops: int  # whose features were read
    tracklets: dict[str, int]  # of each camera that has a mean of its own


def learn_space(
    store: Store, core: ReIDCore, base: ModelRow, cameras: Sequence[str], basis: Unlabeled | Basis = "none"
) -> LearnedSpace:
    """The space of the base's features that the cameras' embedded crops give.

    core: of `base`. basis: "tracklets" learns one from the tracklets, those at two cameras that are each other's
    nearest taken for one person's; a `Basis` is one that is there.
    Without a basis the space of a model with diff attention is recentered, so that the module still fits.
    Raises InputError for too few tracklets.
    """
    settings = store.settings.association
    means: list[Floats] = []
    seen_at: list[str] = []
    teaching: list[tuple[str, Floats]] = []  # tracklets that a basis is learned from, and their cameras
    read = 0
    with store.begin() as connection:
        for camera in sorted(cameras):
            tracklets = _tracklets(connection, core, base, camera, settings)
            means += [(crops / np.linalg.norm(crops, axis=1, keepdims=True)).mean(axis=0) for crops in tracklets]
            seen_at += [camera] * len(tracklets)
            read += sum(map(len, tracklets))
            if isinstance(basis, str) and basis == "tracklets":
                share = _BASIS_CROPS / len(cameras) / max(1, sum(map(len, tracklets)))
                most = max(1, int(share * len(tracklets)))
                teaching += [(camera, crops) for crops in _evenly(tracklets, most)]
    if len(means) < _FEWEST:
        raise InputError(
            f"{len(means)} tracklets of {base.name}'s features, where {_FEWEST} are needed: "
            "resolve more crops first, or name a larger unit"
        )
    # One thread: sums over many rows would else depend on their number in the last bits.
    with threadpool_limits(limits=1, user_api="blas"):
        space = learn_means(np.stack(means), seen_at, weights=shared_votes(np.stack(means), seen_at))
        if isinstance(basis, Basis):
            space = replace(space, basis=basis)
        elif basis == "tracklets":
            space = _with_basis(space, teaching)
        else:
            space = replace(space, recentered=base.card.diff_attention is not None)
    return LearnedSpace(space, read, {camera: seen_at.count(camera) for camera in dict.fromkeys(seen_at)})


def calibrating_people(people: Iterable[int], of_basis: bool = False) -> set[int]:
    """Those of a labeled data set's people who calibrate a model: at most 200, evenly spaced by number.

    of_basis: of a space whose basis people teach, a quarter at most. The others teach it (`teaching_people`): a basis
    fits its own people too well, so that probabilities learned from them are wrong for others.
    """
    known = sorted(set(people))
    return set(known[:: max(-(-len(known) // _CALIBRATING), 4 if of_basis else 1)])


def teaching_people(dataset: Dataset, convention: InputConvention) -> PersonPictures:
    """The training people who teach a basis: of a data set that can calibrate, those who would not."""
    people = dataset.load("train", convention)
    teach = people.identities != JUNK
    if dataset.source.startswith("market1501:"):
        teach &= ~np.isin(people.identities, list(calibrating_people(people.identities[teach].tolist(), of_basis=True)))
    return people.select(np.flatnonzero(teach))


def basis_from(core: ReIDCore, people: PersonPictures, on_step: Callable[[str], None]) -> Basis:
    """The basis that labeled people teach. core: of the base. Raises InputError where they teach none."""
    features = np.empty((len(people), core.card.raw_dims))
    for start in range(0, len(people), _PICTURES):
        part = slice(start, start + _PICTURES)
        features[part] = core.embed(people.pictures[part])
        on_step(f"training pictures: {min(start + _PICTURES, len(people))} of {len(people)}")
    with threadpool_limits(limits=1, user_api="blas"):
        return basis_of(features, people)


def _with_basis(space: FeatureSpace, tracklets: Sequence[tuple[str, Floats]]) -> FeatureSpace:
    """The space with a basis learned from the crops of tracklets, which come with their cameras, without labels."""
    cameras = [camera for camera, crops in tracklets for _ in crops]
    applied = space.apply(np.concatenate([crops for _, crops in tracklets]), cameras)
    of_tracklet = [number for number, (_, crops) in enumerate(tracklets) for _ in crops]
    people = mutual_neighbors(applied, of_tracklet, cameras)
    return replace(space, basis=learn_basis(applied, people.tolist()))


def _tracklets(
    connection: Connection, core: ReIDCore, base: ModelRow, camera: str, settings: AssociationSettings
) -> list[Floats]:
    """The features (n, D) of evenly spaced crops of evenly spaced tracklets, by time and key."""
    columns = {"id": "int8", "key": "bytea", "captured_at": "timestamptz", "timed": "bool", "track": "text"}
    at = {"camera": camera, "model": base.features_id, "quality": settings.min_quality}
    rows = copy_out(connection, _CROPS, at, columns | {"quality": "float4"})
    crops = CropColumns(
        ids=[int(i) for i in rows["id"]],
        keys=[bytes(key) for key in rows["key"]],
        time_us=[int(us) for us in rows["captured_at"]],
        timed=[bool(timed) for timed in rows["timed"]],
        tracks=list(rows["track"]),
        quality=np.asarray(rows["quality"], np.float64),
        features=np.empty((len(rows["id"]), 0)),
    )
    passages = sorted(group(crops, round(settings.passage_gap_s * 1e6), core, None))
    chosen = [_evenly(passage, _CROPS_EACH) for passage in _evenly(passages, _TRACKLETS)]
    ids = [crops.ids[row] for passage in chosen for row in passage]
    _, features = read_features(connection, core, base, _FEATURES, {"ids": ids}, {"id": "int8"}, camera)
    ends = np.cumsum([len(passage) for passage in chosen])
    return np.split(features, ends[:-1]) if chosen else []


def _evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of the items, evenly spaced, the first among them."""
    return items[:: max(1, -(-len(items) // most))]
