"""One window of a building, street or district: associate its children with what the unit knows, and stitch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import numpy as np
from sqlalchemy import Connection

from pipeline.association.geometry import Geometry, contradicts_itself
from pipeline.association.nodes import Floats, Nodes, Spans
from pipeline.association.operator import Association, associate
from pipeline.association.prototypes import of_members
from pipeline.association.stitch import Known, stitch
from pipeline.resolve.read import Identity, Inputs, Tracklet, earlier_ids, read_members
from pipeline.resolve.write import NewDecision, NewEvent, NewIdentity
from reid_core.core import ReIDCore
from schemas.association import EventKind
from schemas.cards import LevelCalibration
from schemas.keys import identity_key
from schemas.levels import level_of
from schemas.settings import AssociationSettings


@dataclass(frozen=True)
class Node:
    """A candidate of the window: an identity of the unit, or a child that is in none yet."""

    key: bytes
    children: Sequence[Identity] | None  # None: an identity of the unit that nothing touched
    tracklets: tuple[int, ...]
    timed: bool
    mean: Floats
    origin: UUID | None  # the unit's identity that it is, or was part of
    fresh: bool


@dataclass(frozen=True)
class WindowResult:
    identities: list[NewIdentity]
    events: list[NewEvent]
    decisions: list[NewDecision]


def resolve_level(
    connection: Connection,
    unit: str,
    inputs: Inputs,
    world: Geometry,
    core: ReIDCore,
    calibration: LevelCalibration | None,
    model_id: int,
    settings: AssociationSettings,
) -> WindowResult:
    candidates, emptied, unknown = _candidates(unit, inputs, world, settings)
    nodes = columns(candidates, inputs.tracklets, world)
    if len(nodes):
        found = associate(nodes, world, core, calibration, inputs.transit, settings)
    else:
        found = Association([], [])
    context = {identity.persistent_id: identity for identity in inputs.context}
    order = {persistent_id: i for i, persistent_id in enumerate(context)}
    fates = stitch(
        found.groups,
        [None if node.origin is None else order[node.origin] for node in candidates],
        [len(node.tracklets) for node in candidates],
        [Known(identity.first_seen_us, identity.key) for identity in context.values()],
    )
    ids = list(context)
    # Members of identities that nothing touched are needed only where such an identity changes.
    changed = [
        number
        for number, group in enumerate(found.groups)
        if len(group) > 1 or candidates[group[0]].children is not None
    ]
    untouched = [candidates[i].origin for n in changed for i in found.groups[n] if candidates[i].children is None]
    members = read_members(connection, sorted(context[o].id for o in untouched if o is not None), model_id)
    heirs = earlier_ids(
        connection,
        unit,
        [child.persistent_id for n in changed if fates[n].survivor is None for child in _fresh(candidates, found, n)],
    )
    taken = {ids[fate.survivor] for fate in fates if fate.survivor is not None}
    identities: list[NewIdentity] = []
    events: list[NewEvent] = []
    for number in changed:
        group, fate = found.groups[number], fates[number]
        children: list[Identity] = []
        for i in group:
            node = candidates[i]
            children += (
                members[context[node.origin].id] if node.children is None and node.origin else node.children or ()
            )
        if fate.survivor is None:
            persistent_id = _heir(children, heirs, taken, set(context))
            taken.add(persistent_id)
            if fate.split_from is None:
                events.append(NewEvent(EventKind.CREATE, persistent_id))
            else:
                events.append(NewEvent(EventKind.SPLIT, persistent_id, ids[fate.split_from]))
        else:
            persistent_id = ids[fate.survivor]
            if any(candidates[i].origin is None for i in group):
                events.append(NewEvent(EventKind.ATTACH, persistent_id))
        for other in fate.merged:
            events.append(NewEvent(EventKind.MERGE, persistent_id, ids[other]))
            identities.append(_retired(context[ids[other]]))
        identities.append(_version(unit, persistent_id, children, settings))
    identities += [_retired(context[persistent_id]) for persistent_id in emptied] + unknown
    kept = {ids[fate.survivor] for fate in fates if fate.survivor is not None}
    assert kept.isdisjoint(emptied)
    decisions = [
        NewDecision(
            left_key=candidates[d.left].key,
            right_key=candidates[d.right].key,
            verdict=d.verdict.value,
            distance=d.distance,
            appearance_log_odds=d.appearance_log_odds,
            transit_log_odds=d.transit_log_odds,
            probability=d.probability,
            operating_point=d.operating_point,
            gap_s=d.gap_s,
            left_at=world.children[d.left_child],
            right_at=world.children[d.right_child],
            runner_up_key=None if d.runner_up is None else candidates[d.runner_up].key,
            runner_up_distance=d.runner_up_distance,
        )
        for d in found.decisions
    ]
    return WindowResult(identities, events, decisions)


def _candidates(
    unit: str, inputs: Inputs, world: Geometry, settings: AssociationSettings
) -> tuple[list[Node], list[UUID], list[NewIdentity]]:
    """The window's nodes by key, the identities that lost all members, and versions of those that cannot be compared.

    A new version of a child takes its earlier version's place. An identity that thereby contradicts itself is taken
    apart into its children, which are then joined anew. Members that the model does not know stay where they are: with
    the first of those that it knows, and where it knows none, with their identity.
    """
    newest = {child.persistent_id: child for child in inputs.children}
    placed: set[UUID] = set()
    nodes: list[Node] = []
    emptied: list[UUID] = []
    unknown: list[NewIdentity] = []
    for identity in inputs.context:
        before = inputs.touched.get(identity.persistent_id)
        if before is None:
            nodes.append(node_of(identity.key, None, identity, identity.persistent_id, fresh=False))
            continue
        children = [newest.get(m.persistent_id, m) for m in before if m.persistent_id not in inputs.gone]
        children = [child for child in children if child.persistent_id not in placed]
        placed |= {child.persistent_id for child in children}
        if not children:
            emptied.append(identity.persistent_id)
            continue
        whole = _whole(unit, identity.persistent_id, children, settings)
        if whole is None:
            unknown.append(_version(unit, identity.persistent_id, children, settings))
        elif contradicts_itself(columns([whole], inputs.tracklets, world), world)[0]:
            first, *others = [child for child in children if child.prototypes is not None]
            silent = [child for child in children if child.prototypes is None]
            apart = [node_of(child.key, [child], child, identity.persistent_id, fresh=True) for child in others]
            together = _whole(unit, identity.persistent_id, [first, *silent], settings)
            assert together is not None
            nodes += [replace(together, key=first.key), *apart]
        else:
            nodes.append(whole)
    nodes += [
        node_of(child.key, [child], child, None, fresh=True)
        for child in inputs.children
        if child.persistent_id not in placed
    ]
    return sorted(nodes, key=lambda node: node.key), emptied, unknown


def _whole(unit: str, persistent_id: UUID, children: Sequence[Identity], settings: AssociationSettings) -> Node | None:
    """The unit's identity with these children, as a node; None where the model knows none of them."""
    version = _version(unit, persistent_id, children, settings)
    if version.prototypes is None:
        return None
    tracklets = tuple(version.tracklets or ())
    return Node(version.key, children, tracklets, version.timed, version.prototypes.mean, persistent_id, fresh=True)


def node_of(
    key: bytes, children: Sequence[Identity] | None, identity: Identity, origin: UUID | None, *, fresh: bool
) -> Node:
    assert identity.prototypes is not None, "who cannot be compared is no candidate"
    return Node(key, children, identity.tracklets, identity.timed, identity.prototypes.mean, origin, fresh)


def columns(candidates: Sequence[Node], tracklets: Mapping[int, Tracklet], world: Geometry) -> Nodes:
    """Candidates, which are sorted by key, as the arrays that the association works on."""
    index = {code: i for i, code in enumerate(world.cameras)}
    spans = [tracklets[t] for node in candidates for t in sorted(node.tracklets, key=lambda t: _when(tracklets[t]))]
    return Nodes(
        keys=[node.key for node in candidates],
        mean=np.stack([node.mean for node in candidates]) if candidates else np.empty((0, 1)),
        spans=Spans(
            np.array([index[span.camera] for span in spans], dtype=np.int64),
            np.array([span.start_us for span in spans], dtype=np.int64),
            np.array([span.end_us for span in spans], dtype=np.int64),
            np.cumsum([0] + [len(node.tracklets) for node in candidates]),
        ),
        timed=np.array([node.timed for node in candidates], dtype=bool),
        fresh=np.array([node.fresh for node in candidates], dtype=bool),
    )


def _when(tracklet: Tracklet) -> tuple[int, int, str]:
    return tracklet.start_us, tracklet.end_us, tracklet.camera


def _fresh(candidates: Sequence[Node], found: Association, number: int) -> list[Identity]:
    return [child for i in found.groups[number] for child in candidates[i].children or ()]


def _heir(children: Sequence[Identity], heirs: Mapping[UUID, list[UUID]], taken: set[UUID], context: set[UUID]) -> UUID:
    """The oldest id by which one of the children was known at this unit and that nobody else bears, or a new one."""
    for child in children:
        for persistent_id in heirs.get(child.persistent_id, []):
            if persistent_id not in taken and persistent_id not in context:
                return persistent_id
    return uuid4()


def _version(
    unit: str, persistent_id: UUID, children: Sequence[Identity], settings: AssociationSettings
) -> NewIdentity:
    """An identity with these members; its prototypes come from theirs."""
    children = sorted(children, key=lambda child: child.key)
    known = [child.prototypes for child in children if child.prototypes is not None]
    return NewIdentity(
        key=identity_key(level_of(unit), unit, (child.key for child in children)),
        persistent_id=persistent_id,
        first_seen_us=min(child.first_seen_us for child in children),
        last_seen_us=max(child.last_seen_us for child in children),
        timed=all(child.timed for child in children),
        crops=sum(child.crops for child in children),
        prototypes=of_members(known, settings.medoids) if known else None,
        child_ids=[child.id for child in children],
        tracklets=sorted(t for child in children for t in child.tracklets),
    )


def _retired(identity: Identity) -> NewIdentity:
    """The version that ends an identity. Its key is that of the last one: nothing is known of it but that it ended."""
    return NewIdentity(
        key=identity.key,
        persistent_id=identity.persistent_id,
        first_seen_us=identity.first_seen_us,
        last_seen_us=identity.last_seen_us,
        timed=identity.timed,
        crops=0,
        prototypes=None,
        tracklets=[],
        retired=True,
    )
