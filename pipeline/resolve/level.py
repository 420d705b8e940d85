"""One window of a building, street or district: associate its children with what the unit knows, and stitch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import numpy as np

from pipeline.association.associate import Shortlist, associate
from pipeline.association.geometry import Geometry, contradicts_itself
from pipeline.association.nodes import Nodes, Spans
from pipeline.association.prototypes import Prototypes, of_members
from pipeline.association.stitching import Known, stitch
from pipeline.association.transit import UnitTransit
from pipeline.resolve.read import Identity, in_time_order
from pipeline.resolve.write import NewDecision, NewEvent, NewIdentity
from reid_core.serving.core import ReIDCore
from schemas.association import EventKind
from schemas.calibration import LevelCalibration
from schemas.keys import identity_key
from schemas.levels import level_of
from schemas.settings import AssociationSettings


@dataclass(frozen=True)
class Inputs:
    """What a window's run depends on, besides model, calibration, transit times and settings."""

    children: Sequence[Identity]  # versions that the window's runs of the child units wrote, by key
    gone: Mapping[UUID, bytes]  # children that were retired in the window: persistent id -> last key
    context: Sequence[Identity]  # the unit's own identities as of the window's start, by key
    #: Members of those of the context that hold an earlier version of one of the children, or one that is gone.
    touched: Mapping[UUID, Sequence[Identity]]


@dataclass(frozen=True)
class LevelRun:
    """What decides every window of a unit alike, and where the rest is looked up."""

    unit: str
    world: Geometry
    core: ReIDCore
    calibration: LevelCalibration | None
    transit: UnitTransit
    settings: AssociationSettings
    new_id: Callable[[], int]  # of a row of identity
    members: Callable[[Iterable[UUID]], Mapping[UUID, Sequence[Identity]]]  # of identities of the context
    #: For children, the unit's ids that ever held them and that nobody bears, oldest first.
    heirs: Callable[[Iterable[UUID]], Mapping[UUID, Sequence[UUID]]]
    observe: "Observer | None" = None


@dataclass(frozen=True, slots=True)
class Node:
    """A candidate of the window: an identity of the unit, or a child that is in none yet."""

    key: bytes
    identity: "Identity | NewIdentity"  # whose vectors and times are compared
    children: Sequence[Identity] | None  # None: an identity of the unit that nothing touched
    origin: UUID | None  # the unit's identity that it is, or was part of
    fresh: bool

    @property
    def prototypes(self) -> Prototypes:
        assert self.identity.prototypes is not None, "who cannot be compared is no candidate"
        return self.identity.prototypes


#: Hears of the pairs that each window compared.
Observer = Callable[[Sequence[Node], Shortlist], None]


@dataclass(frozen=True)
class WindowResult:
    identities: list[NewIdentity]
    events: list[NewEvent]
    decisions: list[NewDecision]


def resolve_level(run: LevelRun, inputs: Inputs) -> WindowResult:
    """New versions of the unit's identities after one window, what happened to them, and why."""
    candidates, emptied, unknown = _candidates(run, inputs)
    found = associate(columns(candidates), run.world, run.core, run.calibration, run.transit, run.settings)
    if run.observe is not None:
        run.observe(candidates, found.shortlist)
    context = {identity.persistent_id: identity for identity in inputs.context}
    # An identity that nothing touched, and that joined nobody, stays as it is.
    changed = [group for group in found.groups if len(group) > 1 or candidates[group[0]].children is not None]
    ids = list({own: None for group in changed for i in group if (own := candidates[i].origin) is not None})
    order = {persistent_id: i for i, persistent_id in enumerate(ids)}
    fates = stitch(
        changed,
        {i: order[own] for group in changed for i in group if (own := candidates[i].origin) is not None},
        {i: len(candidates[i].identity.tracklets) for group in changed for i in group},
        [Known(context[own].first_seen_us, context[own].key) for own in ids],
    )
    untouched = [candidates[i].origin for group in changed for i in group if candidates[i].children is None]
    members = run.members(own for own in untouched if own is not None)
    heirs = run.heirs(
        child.persistent_id
        for group, fate in zip(changed, fates, strict=True)
        if fate.survivor is None
        for i in group
        for child in candidates[i].children or ()
    )
    taken = {ids[fate.survivor] for fate in fates if fate.survivor is not None}
    identities: list[NewIdentity] = []
    events: list[NewEvent] = []
    for group, fate in zip(changed, fates, strict=True):
        children: list[Identity] = []
        for i in group:
            node = candidates[i]
            children += members[node.origin] if node.children is None and node.origin else node.children or ()
        if fate.survivor is None:
            persistent_id = _heir(children, heirs, taken, context)
            taken.add(persistent_id)
        else:
            persistent_id = ids[fate.survivor]
        part = EventKind.SPLIT if fate.survivor is None else EventKind.MOVE
        events += [NewEvent(part, persistent_id, ids[other]) for other in fate.parts]
        if any(candidates[i].origin is None for i in group):
            is_new = fate.survivor is None and not fate.parts
            events.append(NewEvent(EventKind.CREATE if is_new else EventKind.ATTACH, persistent_id))
        for other in fate.merged:
            events.append(NewEvent(EventKind.MERGE, persistent_id, ids[other]))
            identities.append(_retired(run, context[ids[other]]))
        whole = candidates[group[0]].identity
        if len(group) == 1 and isinstance(whole, NewIdentity) and whole.persistent_id == persistent_id:
            identities.append(whole)  # it was made to be compared, and nobody joined it
        else:
            identities.append(_version(run, persistent_id, children))
    events += [NewEvent(EventKind.RETIRE, persistent_id) for persistent_id in emptied]
    identities += [_retired(run, context[persistent_id]) for persistent_id in emptied] + unknown
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
            way_s=d.way_s,
            left_at=run.world.children[d.left_child],
            right_at=run.world.children[d.right_child],
            runner_up_key=None if d.runner_up is None else candidates[d.runner_up].key,
            runner_up_distance=d.runner_up_distance,
        )
        for d in found.decisions
    ]
    return WindowResult(identities, events, decisions)


def _candidates(run: LevelRun, inputs: Inputs) -> tuple[list[Node], list[UUID], list[NewIdentity]]:
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
    whole: list[Node] = []
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
        version = _version(run, identity.persistent_id, children)
        if version.prototypes is None:
            unknown.append(version)
        else:
            whole.append(Node(version.key, version, children, identity.persistent_id, fresh=True))
    apart = contradicts_itself(columns(sorted(whole, key=lambda node: node.key)), run.world)
    for node, wrong in zip(sorted(whole, key=lambda node: node.key), apart.tolist(), strict=True):
        nodes += _apart(run, node) if wrong else [node]
    nodes += [
        Node(child.key, child, [child], None, fresh=True)
        for child in inputs.children
        if child.persistent_id not in placed
    ]
    return sorted(nodes, key=lambda node: node.key), emptied, unknown


def _apart(run: LevelRun, node: Node) -> list[Node]:
    assert node.children is not None and node.origin is not None
    first, *others = [child for child in node.children if child.prototypes is not None]
    silent = [child for child in node.children if child.prototypes is None]
    together = _version(run, node.origin, [first, *silent])
    return [
        Node(first.key, together, [first, *silent], node.origin, fresh=True),
        *(Node(child.key, child, [child], node.origin, fresh=True) for child in others),
    ]


def columns(candidates: Sequence[Node]) -> Nodes:
    """Candidates, which are sorted by key, as the arrays that the association works on."""
    known = [node.identity for node in candidates]
    spans = np.concatenate([one.spans for one in known], axis=1) if known else np.empty((3, 0), np.int64)
    counts = [one.spans.shape[1] for one in known]
    return Nodes(
        keys=[node.key for node in candidates],
        mean=np.stack([node.prototypes.mean for node in candidates]).astype(np.float64)
        if candidates
        else np.empty((0, 1)),
        weight=np.array([node.prototypes.weight for node in candidates]),
        spans=Spans(spans[0], spans[1], spans[2], np.cumsum([0, *counts])),
        timed=np.array([one.timed for one in known], dtype=bool),
        fresh=np.array([node.fresh for node in candidates], dtype=bool),
    )


def _heir(
    children: Sequence[Identity], heirs: Mapping[UUID, Sequence[UUID]], taken: set[UUID], context: Mapping[UUID, object]
) -> UUID:
    """The oldest id by which one of the children was known at this unit and that nobody else bears, or a new one."""
    for child in children:
        for persistent_id in heirs.get(child.persistent_id, ()):
            if persistent_id not in taken and persistent_id not in context:
                return persistent_id
    return uuid4()


def _version(run: LevelRun, persistent_id: UUID, children: Sequence[Identity]) -> NewIdentity:
    """An identity with these members; its prototypes come from theirs."""
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
        prototypes=of_members(known, run.settings.medoids) if known else None,
        tracklets=tuple(sorted(t for child in children for t in child.tracklets)),
        spans=in_time_order(np.concatenate([child.spans for child in children], axis=1)),
        children=children,
    )


def _retired(run: LevelRun, identity: Identity) -> NewIdentity:
    """The version that ends an identity. Its key is that of the last one: nothing is known of it but that it ended."""
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
