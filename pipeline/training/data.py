"""The people that a model is trained on: data sets by name, and identities of the city that operators confirmed."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, text

from pipeline.crops.crop_store import CropStore, Place, place_of_crop
from pipeline.crops.quality import decode
from pipeline.store import Store
from reid_core.datasets import Dataset, Sample, open_dataset, split_queries
from reid_core.datasets.joined import join
from schemas.errors import InputError
from schemas.settings import Settings

#: The data set's name of the confirmed identities.
CONFIRMED = "confirmed"
#: About one in this many confirmed people is held out for evaluation.
_HELD_OUT = 4

# The newest statement about each version counts. A person confirmed in several versions has the crops of all.
_CONFIRMED_CROPS = text(
    "WITH said AS (SELECT DISTINCT ON (identity_id) identity_id, is_one_person FROM confirmation "
    "  ORDER BY identity_id, id DESC) "
    "SELECT DISTINCT i.persistent_id, c.id, encode(c.key, 'hex') AS key, c.camera, c.picture, c.captured_at "
    "FROM said JOIN identity i ON i.id = said.identity_id CROSS JOIN unnest(i.tracklets) AS t(id) "
    "JOIN identity_member m ON m.identity_id = t.id JOIN crop c ON c.id = m.crop_id "
    "WHERE said.is_one_person AND c.picture_gone_at IS NULL AND c.withdrawn_at IS NULL AND c.quality >= :quality "
    "ORDER BY i.persistent_id, c.captured_at, key"
)


def open_training_data(store: Store, crops: CropStore, names: str) -> Dataset:
    """The data set of `TrainParameters.dataset`; its query and gallery show other people than its training pictures.

    Raises InputError if there is no data set of that name, or too few people are confirmed.
    """
    opened = [_open(store, crops, name.strip()) for name in names.split(" + ")]
    return opened[0] if len(opened) == 1 else join(opened, names)


def source_of(settings: Settings, name: str) -> str:
    """The source for `open_dataset` of a data set's name. Raises InputError with the names that exist."""
    if name.startswith("rendered:"):
        return name
    if name not in settings.datasets:
        known = ", ".join(sorted(settings.datasets)) or "none yet"
        raise InputError(
            f"no data set is called {name[:80]!r}; there are: {known}. URBAN_REID_DATASETS names them, as in "
            f'{{"market": "market1501:/data/Market-1501"}}; {CONFIRMED} and rendered:SEED[:PEOPLE] always exist'
        )
    return settings.datasets[name]


def _open(store: Store, crops: CropStore, name: str) -> Dataset:
    return confirmed_people(store, crops) if name == CONFIRMED else open_dataset(source_of(store.settings, name))


def confirmed_people(store: Store, crops: CropStore) -> Dataset:
    """The crops of confirmed identities as a data set. About a quarter of the people are query and gallery.

    A hash of the person's id decides, so that held-out people stay held out when more are confirmed. At least one of
    them was seen by two cameras: without one nothing can be measured. Two identities that share a crop, because they
    were merged between two confirmations, are one person. Raises InputError if fewer than two people are confirmed, or
    none of them was seen by two cameras.
    """
    with store.begin() as connection:
        rows = connection.execute(_CONFIRMED_CROPS, {"quality": store.settings.association.min_quality}).all()
    people = _people(rows)
    cameras = {camera: number for number, camera in enumerate(sorted({row.camera for row in rows}))}
    at_two_cameras = {person for person, theirs in people.items() if len({row.camera for row in theirs}) > 1}
    if len(people) < 2 or not at_two_cameras:
        raise InputError(
            f"{len(people)} people are confirmed, {len(at_two_cameras)} of them seen by two cameras: too few to train "
            "on some and evaluate with another",
            do="`urban-reid identities confirm ID` confirms more",
        )
    digest = {person: hashlib.sha256(person.encode()).digest() for person in people}
    held_out = {person for person in people if digest[person][0] % _HELD_OUT == 0}
    if not held_out & at_two_cameras or len(held_out) == len(people):
        held_out = {min(at_two_cameras, key=lambda person: digest[person])}
    train: list[Sample] = []
    test: list[Sample] = []
    for number, (person, theirs) in enumerate(sorted(people.items())):
        for row in theirs:
            read = partial(_read, crops, place_of_crop(row.camera, row.captured_at), bytes(row.picture))
            (test if person in held_out else train).append(Sample(row.key, number, cameras[row.camera], read))
    return Dataset(CONFIRMED, tuple(train), *split_queries(test))


def _people(rows: Sequence[Row[Any]]) -> dict[str, list[Row[Any]]]:
    """Rows by person, each crop once. Identities that share a crop are one person (union-find)."""
    parent: dict[str, str] = {}

    def root(person: str) -> str:
        while (above := parent.setdefault(person, person)) != person:
            person = above
        return person

    holder: dict[int, str] = {}
    for row in rows:
        person = root(str(row.persistent_id))
        other = root(holder.setdefault(row.id, person))
        parent[max(person, other)] = min(person, other)
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    seen: set[int] = set()
    for row in rows:
        if row.id not in seen:
            seen.add(row.id)
            found[root(str(row.persistent_id))].append(row)
    return found


def _read(crops: CropStore, place: Place, picture: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode(crops.get(place, picture)))
