"""The people that a model is trained on: data sets by name, and people of the city, confirmed or reviewed."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, text

from pipeline.crops.crop_store import CropStore, Place, place_of_crop
from pipeline.crops.quality import decode
from pipeline.review.labels import Label, labels
from pipeline.store import Store
from reid_core.datasets import Dataset, Sample, open_dataset, split_queries
from reid_core.datasets.joined import join
from schemas.cards import ModelCard
from schemas.errors import InputError
from schemas.settings import Settings

#: The data sets' names of the confirmed identities, and of the passages that reviewers answered about.
CONFIRMED, REVIEWED = "confirmed", "reviewed"
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

# The passages by the keys of their first crops, each with all its crops and the district's identity that holds it now.
_REVIEWED_CROPS = text(
    "WITH passage AS (SELECT DISTINCT f.key AS name, i.id FROM crop f JOIN identity_member m ON m.crop_id = f.id "
    "  JOIN identity i ON i.id = m.identity_id AND i.level = 'camera' JOIN run r ON r.id = i.run_id "
    "  AND r.superseded_at IS NULL WHERE f.key = ANY(:names)), "
    "person AS (SELECT n.persistent_id, t.id FROM identity_now n CROSS JOIN unnest(n.tracklets) AS t (id) "
    "  WHERE n.level = 'district') "
    "SELECT p.name, w.persistent_id, c.id, encode(c.key, 'hex') AS key, c.camera, c.picture, c.captured_at "
    "FROM passage p LEFT JOIN person w ON w.id = p.id JOIN identity_member m ON m.identity_id = p.id "
    "JOIN crop c ON c.id = m.crop_id "
    "WHERE c.picture_gone_at IS NULL AND c.withdrawn_at IS NULL AND c.quality >= :quality ORDER BY c.captured_at, key"
)
_ANSWERS = text(
    "SELECT count(DISTINCT reviewer) AS reviewers, max(at) AS until FROM review_answer WHERE id = ANY(:ids)"
)
_THERE = text("SELECT count(*) FROM review_answer WHERE id = ANY(CAST(:ids AS uuid[]))")


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
            f'{{"market": "market1501:/data/Market-1501"}}; {CONFIRMED}, {REVIEWED} and rendered:SEED[:PEOPLE] always '
            "exist"
        )
    return settings.datasets[name]


def _open(store: Store, crops: CropStore, name: str) -> Dataset:
    if name in (CONFIRMED, REVIEWED):
        return (confirmed_people if name == CONFIRMED else reviewed_people)(store, crops)
    return open_dataset(source_of(store.settings, name))


def confirmed_people(store: Store, crops: CropStore) -> Dataset:
    """The crops of confirmed identities as a data set. About a quarter of the people are query and gallery.

    A hash of the person's id decides, so that held-out people stay held out when more are confirmed. At least one of
    them was seen by two cameras: without one nothing can be measured. Two identities that share a crop, because they
    were merged between two confirmations, are one person. Raises InputError if fewer than two people are confirmed, or
    none of them was seen by two cameras.
    """
    with store.begin() as connection:
        rows = connection.execute(_CONFIRMED_CROPS, {"quality": store.settings.association.min_quality}).all()
    return _dataset(CONFIRMED, crops, _people(rows), "`urban-reid identities confirm ID` confirms more")


def reviewed_people(store: Store, crops: CropStore) -> Dataset:
    """The crops of passages that reviewers answered about as a data set, divided as that of the confirmed people.

    Who is the same by their answers is one person. Answers about which reviewers differ teach nothing: a wrong label
    costs more than a missing one. Of two people whom the city has as one, and of whom nobody said so, the one with
    fewer passages is left out: as two they might teach that a person is somebody else. Raises InputError as that.
    """
    with store.begin() as connection:
        agreed = [label for label in labels(connection) if not label.against]
        names = sorted({name for label in agreed for name in label.crops})
        asked = {"names": names, "quality": store.settings.association.min_quality}
        rows = connection.execute(_REVIEWED_CROPS, asked).all() if names else []
    person = _of_labels(agreed)
    passages: defaultdict[bytes, set[bytes]] = defaultdict(set)
    city_has: dict[bytes, set[Any]] = defaultdict(set)
    by_person: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        if (one := person.get(bytes(row.name))) is not None:
            passages[one].add(bytes(row.name))
            city_has[one].add(row.persistent_id)
    taken: set[Any] = set()
    for one in sorted(passages, key=lambda one: (-len(passages[one]), one)):
        if not taken & city_has[one]:
            taken |= city_has[one] - {None}
            by_person[one.hex()] = [row for row in rows if person.get(bytes(row.name)) == one]
    return _dataset(REVIEWED, crops, by_person, "`urban-reid review list` shows pairs that wait for an answer")


@dataclass(frozen=True)
class Learned:
    """Which answers of reviewers a model learns from; kept in its card, and so after the answers are gone."""

    answers: tuple[str, ...]  # ids
    reviewers: int
    until: datetime  # the newest of them was given then

    @property
    def as_details(self) -> dict[str, Any]:
        return {"answers": list(self.answers), "reviewers": self.reviewers, "until": self.until.isoformat()}


def learned_from(store: Store, names: str) -> Learned | None:
    """The answers behind the data sets of `TrainParameters.dataset` as they are now; None where reviewed is not one."""
    if REVIEWED not in (name.strip() for name in names.split(" + ")):
        return None
    with store.begin() as connection:
        agreed = {answer for label in labels(connection) if not label.against for answer in label.answers}
        found = connection.execute(_ANSWERS, {"ids": sorted(agreed)}).one()
    return Learned(tuple(sorted(map(str, agreed))), found.reviewers, found.until) if agreed else None


@dataclass(frozen=True)
class Taught:
    """How many answers of reviewers a model learned from, and how many of them are gone with whom they were about.

    What it learned from those stays in it.
    """

    answers: int
    gone: int


def taught(connection: Connection, card: ModelCard) -> Taught | None:
    """What a registered model's card says that it learned from reviewers, as it is now; None for any other model."""
    learned = card.details.get("reviewed")
    if learned is None:
        return None
    there = connection.execute(_THERE, {"ids": list(learned["answers"])}).scalar_one()
    return Taught(len(learned["answers"]), len(learned["answers"]) - int(there))


def _of_labels(agreed: Sequence[Label]) -> dict[bytes, bytes]:
    """The person of each passage, named after their lowest one; without people who are said to be two as well."""
    people: dict[bytes, frozenset[bytes]] = {}
    for label in agreed:
        sides = [people.get(name, frozenset({name})) for name in label.crops]
        if label.is_same:
            together = sides[0] | sides[1]
            people |= dict.fromkeys(together, together)
        else:
            people |= dict(zip(label.crops, sides, strict=True))
    wrong = {people[a] for label in agreed if not label.is_same for a, b in [label.crops] if people[a] == people[b]}
    return {name: min(its) for name, its in people.items() if its not in wrong}


def _dataset(name: str, crops: CropStore, people: Mapping[str, Sequence[Row[Any]]], more: str) -> Dataset:
    """The people's crops, divided by a hash of each one's id. more: how there come to be more. Raises InputError."""
    cameras = {camera: n for n, camera in enumerate(sorted({row.camera for its in people.values() for row in its}))}
    at_two_cameras = {person for person, theirs in people.items() if len({row.camera for row in theirs}) > 1}
    if len(people) < 2 or not at_two_cameras:
        raise InputError(
            f"{len(people)} people are {name}, {len(at_two_cameras)} of them seen by two cameras: too few to train "
            "on some and evaluate with another",
            do=more,
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
    return Dataset(name, tuple(train), *split_queries(test))


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
