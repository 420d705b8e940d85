"""The nodes of one window of a building, street or district: the identities and children that are compared.

Also how a new version of an identity is made of members, and the version that ends one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

import numpy as np

from pipeline.association.associate import Shortlist
from pipeline.association.geometry import Geometry, contradicts_itself
from pipeline.association.nodes import Nodes, Spans
from pipeline.association.prototypes import Prototypes, prototypes_of_members
from pipeline.association.transit import UnitTransit
from pipeline.resolve.constraints import Bound
from pipeline.resolve.rows import Identity, NewIdentity, in_time_order
from reid_core.serving.core import ReIDCore
from schemas.calibration import LevelCalibration
from schemas.keys import identity_key
from schemas.levels import level_of
from schemas.settings import AssociationSettings


@dataclass(frozen=True)
class Inputs:
    """What a window's run reads. With model, calibration, transit times, settings and city it decides the result."""

    children: Sequence[Identity]  # versions that the child units' runs of this window wrote, by key
    gone: Mapping[UUID, bytes]  # children that were retired in this window: persistent id -> last key
    context: Sequence[Identity]  # the unit's own identities before the window, by key
    #: Members of the identities of the context that hold an earlier version of one of `children`, or one of `gone`.
    touched: Mapping[UUID, Sequence[Identity]]
    bound: Bound = field(default_factory=Bound)  # what people said of passages of both


class Node(NamedTuple):
    """One node: an identity of the unit, or a child that is in no identity yet."""

    key: bytes
    identity: Identity | NewIdentity  # whose vectors and times are compared
    children: Sequence[Identity] | None  # None: an identity that the window's children do not touch
    origin: UUID | None  # the unit's identity that the node is or was part of
    fresh: bool  # compared with all others; nodes that are not fresh are only compared against

    @property
    def prototypes(self) -> Prototypes:
        assert self.identity.prototypes is not None, "a node needs a prototype to be compared"
        return self.identity.prototypes


#: Called for each window with its nodes and the pairs that were compared.
Observer = Callable[[Sequence[Node], Shortlist], None]


@dataclass(frozen=True)
class LevelRun:
    """What is the same for all windows of a unit, and the look-ups that they need."""

    unit: str
    geometry: Geometry
    core: ReIDCore
    calibration: LevelCalibration | None
    transit: UnitTransit
    settings: AssociationSettings
    new_id: Callable[[], int]  # an unused id for a row of identity
    members: Callable[[Iterable[UUID]], Mapping[UUID, Sequence[Identity]]]  # of identities of the context
    #: For children: ids of the unit's identities that held them and that no identity has now, the oldest first.
    free_ids: Callable[[Iterable[UUID]], Mapping[UUID, Sequence[UUID]]]
    observe: Observer | None = None


@dataclass(frozen=True)
class WindowNodes:
    nodes: list[Node]  # by key
    emptied: list[UUID]  # identities that lost all members
    unknown: list[NewIdentity]  # new versions without a prototype of the model: written, but not compared


def window_nodes(run: LevelRun, inputs: Inputs) -> WindowNodes:
    """The nodes of a window.

    A new version of a child replaces its earlier version in the identity that holds it. If the identity's tracklets
    then contradict each other (two places at once), it is split into its children, which are compared again. Members
    without a prototype of the model stay in their identity; when it is split, they stay with its first child that has
    one.
    """
    newest = {child.persistent_id: child for child in inputs.children}
    placed: set[UUID] = set()
    nodes: list[Node] = []
    emptied: list[UUID] = []
    unknown: list[NewIdentity] = []
    touched: list[Node] = []
    for identity in inputs.context:
        before = inputs.touched.get(identity.persistent_id)
        if before is None:
            nodes.append(Node(identity.key, identity, None, identity.persistent_id, fresh=False))
            continue
        children = [newest.get(m.persistent_id, m) for m in before if m.persistent_id not in inputs.gone]
        children = [child for child in children if child.persistent_id not in placed]
        placed |= {child.persistent_id for child in children}
        if not children:
            emptied.append(identity.persistent_id)
            continue
        version = new_version(run, identity.persistent_id, children)
        if version.prototypes is None:
            unknown.append(version)
        else:
            touched.append(Node(version.key, version, children, identity.persistent_id, fresh=True))
    touched.sort(key=lambda node: node.key)
    contradicting = contradicts_itself(as_columns(touched), run.geometry)
    for node, contradicts in zip(touched, contradicting.tolist(), strict=True):
        nodes += members_as_nodes(run, node) if contradicts else [node]
    nodes += [
        Node(child.key, child, [child], None, fresh=True)
        for child in inputs.children
        if child.persistent_id not in placed
    ]
    return WindowNodes(sorted(nodes, key=lambda node: node.key), emptied, unknown)


def members_as_nodes(run: LevelRun, node: Node) -> list[Node]:
    """One node for each child with a prototype; the first one's also holds the children without."""
    if node.origin is None:
        return [node]
    children = run.members([node.origin])[node.origin] if node.children is None else node.children
    first, *others = [child for child in children if child.prototypes is not None]
    unknown = [child for child in children if child.prototypes is None]
    together = new_version(run, node.origin, [first, *unknown])
    return [
        Node(first.key, together, [first, *unknown], node.origin, fresh=True),
        *(Node(child.key, child, [child], node.origin, fresh=True) for child in others),
    ]


def as_columns(nodes: Sequence[Node]) -> Nodes:
    """Nodes, sorted by key, as the arrays that the association works on."""
    identities = [node.identity for node in nodes]
    prototypes = [node.prototypes for node in nodes]
    spans = np.concatenate([one.spans for one in identities], axis=1) if identities else np.empty((3, 0), np.int64)
    counts = [one.spans.shape[1] for one in identities]
    return Nodes(
        keys=[node.key for node in nodes],
        mean=np.array([one.mean for one in prototypes], np.float64) if nodes else np.empty((0, 1)),
        weight=np.array([one.weight for one in prototypes]),
        spans=Spans(spans[0], spans[1], spans[2], np.cumsum([0, *counts])),
        timed=np.array([one.timed for one in identities], dtype=bool),
        fresh=np.array([node.fresh for node in nodes], dtype=bool),
    )


def new_version(run: LevelRun, persistent_id: UUID, children: Sequence[Identity]) -> NewIdentity:
    """A version of an identity with these members; its prototypes are made of theirs."""
    children = sorted(children, key=lambda child: child.key)
    known = [child.prototypes for child in children if child.prototypes is not None]
    return NewIdentity(
        id=run.new_id(),
        key=identity_key(level_of(run.unit), run.unit, (child.key for child in children)),
        persistent_id=persistent_id,
        first_seen_us=min(child.first_seen_us for child in children),
        last_seen_us=max(child.last_seen_us for child in children),
        timed=all(child.timed for child in children),
        crops=sum(child.crops for child in children),
        prototypes=prototypes_of_members(known, run.settings.medoids) if known else None,
        tracklets=tuple(sorted(t for child in children for t in child.tracklets)),
        spans=in_time_order(np.concatenate([child.spans for child in children], axis=1)),
        children=children,
    )


def retired_version(run: LevelRun, identity: Identity) -> NewIdentity:
    """The version that ends an identity. It has no members and keeps the last version's key and times."""
    return NewIdentity(
        id=run.new_id(),
        key=identity.key,
        persistent_id=identity.persistent_id,
        first_seen_us=identity.first_seen_us,
        last_seen_us=identity.last_seen_us,
        timed=identity.timed,
        crops=0,
        prototypes=None,
        tracklets=(),
        spans=np.empty((3, 0), np.int64),
        retired=True,
    )
