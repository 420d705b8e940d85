"""resolve_level: one window of a building, street or district.

Associates the window's nodes, then stitches the groups to the unit's persistent identities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from pipeline.association.associate import Decision, associate
from pipeline.association.stitching import Fate, Known, stitch
from pipeline.resolve.bound_nodes import node_pairs, taken_apart
from pipeline.resolve.rows import Identity, NewDecision, NewEvent, NewIdentity
from pipeline.resolve.window_nodes import (
    Inputs,
    LevelRun,
    Node,
    as_columns,
    new_version,
    retired_version,
    window_nodes,
)
from schemas.association import EventKind


@dataclass(frozen=True)
class WindowResult:
    identities: list[NewIdentity]
    events: list[NewEvent]
    decisions: list[NewDecision]


def resolve_level(run: LevelRun, inputs: Inputs) -> WindowResult:
    """New versions of the unit's identities after one window, their events, and the match decisions."""
    found = window_nodes(run, inputs)
    nodes = taken_apart(run, inputs.bound, found.nodes)
    columns, answers = as_columns(nodes), node_pairs(inputs.bound, nodes)
    association = associate(columns, run.geometry, run.core, run.calibration, run.transit, run.settings, answers)
    if run.observe is not None:
        run.observe(nodes, association.shortlist)
    # A single identity that nothing touched and that was joined with nothing stays as it is.
    groups = [group for group in association.groups if len(group) > 1 or nodes[group[0]].children is not None]
    identities, events = _versions(run, inputs, nodes, groups)
    events += [NewEvent(EventKind.RETIRE, persistent_id) for persistent_id in found.emptied]
    context = {identity.persistent_id: identity for identity in inputs.context}
    identities += [retired_version(run, context[persistent_id]) for persistent_id in found.emptied] + found.unknown
    return WindowResult(identities, events, [_decision(run, nodes, one) for one in association.decisions])


def _versions(
    run: LevelRun, inputs: Inputs, nodes: Sequence[Node], groups: Sequence[Sequence[int]]
) -> tuple[list[NewIdentity], list[NewEvent]]:
    """A new version for each group of nodes, a retired version for each identity that was merged, and the events."""
    context = {identity.persistent_id: identity for identity in inputs.context}
    ids, fates = _stitch(nodes, groups, context)
    untouched = [nodes[i].origin for group in groups for i in group if nodes[i].children is None]
    members = run.members(origin for origin in untouched if origin is not None)
    free_ids = run.free_ids(
        child.persistent_id
        for group, fate in zip(groups, fates, strict=True)
        if fate.survivor is None
        for i in group
        for child in nodes[i].children or ()
    )
    taken = {ids[fate.survivor] for fate in fates if fate.survivor is not None}
    identities: list[NewIdentity] = []
    events: list[NewEvent] = []
    for group, fate in zip(groups, fates, strict=True):
        children: list[Identity] = []
        for node in (nodes[i] for i in group):
            children += members[node.origin] if node.children is None and node.origin else node.children or ()
        if fate.survivor is None:
            persistent_id = _first_free(children, free_ids, taken, context)
            taken.add(persistent_id)
        else:
            persistent_id = ids[fate.survivor]
        kind = EventKind.SPLIT if fate.survivor is None else EventKind.MOVE
        events += [NewEvent(kind, persistent_id, ids[other]) for other in fate.parts]
        if any(nodes[i].origin is None for i in group):
            is_new = fate.survivor is None and not fate.parts
            events.append(NewEvent(EventKind.CREATE if is_new else EventKind.ATTACH, persistent_id))
        for other in fate.merged:
            events.append(NewEvent(EventKind.MERGE, persistent_id, ids[other]))
            identities.append(retired_version(run, context[ids[other]]))
        only = nodes[group[0]].identity
        if len(group) == 1 and isinstance(only, NewIdentity) and only.persistent_id == persistent_id:
            identities.append(only)  # made by window_nodes, and joined with nothing
        else:
            identities.append(new_version(run, persistent_id, children))
    return identities, events


def _stitch(
    nodes: Sequence[Node], groups: Sequence[Sequence[int]], context: Mapping[UUID, Identity]
) -> tuple[list[UUID], list[Fate]]:
    """The fate of each group, and the persistent ids that its numbers stand for."""
    origins = {i: origin for group in groups for i in group if (origin := nodes[i].origin) is not None}
    ids = list(dict.fromkeys(origins.values()))
    numbers = {persistent_id: number for number, persistent_id in enumerate(ids)}
    fates = stitch(
        groups,
        {i: numbers[origin] for i, origin in origins.items()},
        {i: len(nodes[i].identity.tracklets) for group in groups for i in group},
        [Known(context[persistent_id].first_seen_us, context[persistent_id].key) for persistent_id in ids],
    )
    return ids, fates


def _first_free(
    children: Sequence[Identity],
    free_ids: Mapping[UUID, Sequence[UUID]],
    taken: set[UUID],
    context: Mapping[UUID, object],
) -> UUID:
    """The oldest free id of an earlier identity that held one of the children, or a new id."""
    for child in children:
        for persistent_id in free_ids.get(child.persistent_id, ()):
            if persistent_id not in taken and persistent_id not in context:
                return persistent_id
    return uuid4()


def _decision(run: LevelRun, nodes: Sequence[Node], decision: Decision) -> NewDecision:
    return NewDecision(
        left_key=nodes[decision.left].key,
        right_key=nodes[decision.right].key,
        verdict=decision.verdict.value,
        distance=decision.distance,
        appearance_log_odds=decision.appearance_log_odds,
        transit_log_odds=decision.transit_log_odds,
        probability=decision.probability,
        operating_point=decision.operating_point,
        gap_s=decision.gap_s,
        way_s=decision.expected_s,
        left_at=run.geometry.children[decision.left_child],
        right_at=run.geometry.children[decision.right_child],
        runner_up_key=None if decision.runner_up is None else nodes[decision.runner_up].key,
        runner_up_distance=decision.runner_up_distance,
        answered=decision.answered,
    )
