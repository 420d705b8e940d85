"""urban-reid review: what waits for a person, answers, and what they change."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.parameters import ApprovalParameters
from schemas.review import Said
from schemas.settings import settings
from urban_reid.arguments import AsJson, Operator, Reason, checked
from urban_reid.output import Table, out, print_json, shown

if TYPE_CHECKING:
    from uuid import UUID

    from pipeline.registry import ModelRow
    from pipeline.review.answers import Plan
    from pipeline.review.changes import Change
    from pipeline.review.in_the_way import Hindrances
    from pipeline.review.queue import Item, Side
    from pipeline.store import Store
    from reid_core.serving.core import ReIDCore

app = typer.Typer(help="Say whether two passages show one person; later resolves follow.", no_args_is_help=True)

Unit = Annotated[str, typer.Option("--unit", metavar="CODE", help="The unit, with all below it, such as d1 or d1/s1.")]
Passage = Annotated[str, typer.Argument(metavar="PASSAGE", help="A passage's key, or eight or more of its digits.")]
Trial = Annotated[
    bool,
    typer.Option("--try", help="Only show what it would change within a day; nothing is said, and nothing is kept."),
]


def _store() -> "Store":
    from pipeline.store import Store

    return Store.open(settings(), "urban-reid review")


def _key(key: bytes) -> str:
    return key.hex()[:12]


@app.command("list", epilog="Example: urban-reid review list --unit d1 --limit 10")
def list_(
    unit: Unit,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most rows.")] = 20,
    second: Annotated[
        bool, typer.Option("--second", help="Pairs that one other reviewer answered, without that answer.")
    ] = False,
    answers: Annotated[bool, typer.Option("--answers", help="What was answered, the newest first.")] = False,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """List pairs that wait for a person, most valuable first: how unsure the program is, and how much it would move.

    They are match decisions that it left to a person, and hits of searches for a stored crop.
    """
    from pipeline.city.units import read_city
    from pipeline.governance.audit import Action
    from pipeline.governance.deciding import actor_of
    from pipeline.governance.doors import check_authorized
    from pipeline.review.given import answers_given
    from pipeline.review.queue import read_queue, second_looks

    with _store() as store:
        read_city(store).check_unit(unit)
        check_authorized(store, unit, "a review", Action.REVIEW_SHOW)
        with store.signed_in() as connection:
            if answers:
                _print_answers(answers_given(connection, unit, limit), as_json)
                return
            who = actor_of(store, connection, operator)
            read = second_looks if second else read_queue
            items = read(connection, unit, who, most=limit).items
    if as_json:
        print_json({"waiting": [_item(item) for item in items]})
        return
    table = Table("passage", "at", "until", "other passage", "at", "until", "decided at", "worth")
    for item in items:
        sides = [_cells(item.left), _cells(item.right)]
        table.add_row(*sides[0], *sides[1], shown(item.unit), f"{item.value:.1f}")
    out().print(table if items else "nothing waits for a person there")


def _cells(side: "Side") -> tuple[str, str, str]:
    one = side.passage
    return _key(one.key), shown(one.camera), f"{one.last_seen:%Y-%m-%d %H:%M:%S}Z" if one.timed else "time not known"


def _item(item: "Item") -> dict[str, Any]:
    def side(one: "Side") -> dict[str, Any]:
        passage = one.passage
        return {
            "passage": passage.key.hex(),
            "camera": passage.camera,
            "first_seen": passage.first_seen.isoformat() if passage.timed else None,
            "last_seen": passage.last_seen.isoformat() if passage.timed else None,
            "identity": str(one.person) if one.person else None,
        }

    return {
        "way": item.way.value,
        "unit": item.unit,
        "worth": item.value,
        "left": side(item.left),
        "right": side(item.right),
    }


def _print_answers(rows: Any, as_json: bool) -> None:
    if as_json:
        found = [
            {
                "answer": str(row.id),
                "at": row.at.isoformat(),
                "reviewer": row.reviewer,
                "said": row.said,
                "way": row.way,
                "unit": row.unit,
                "pairs": row.pairs,
                "reason": row.reason,
                "undone_at": row.undone_at.isoformat() if row.undone_at else None,
                "undone_by": row.undone_by,
            }
            for row in rows
        ]
        print_json({"answers": found})
        return
    table = Table("answer", "at", "by", "said", "pairs", "way", "unit", "reason", "undone by")
    for row in rows:
        when = f"{row.at:%Y-%m-%d %H:%M:%S}Z"
        cells = (str(row.id)[:8], when, shown(row.reviewer), row.said, str(row.pairs), row.way, shown(row.unit))
        table.add_row(*cells, shown(row.reason), shown(row.undone_by or ""))
    out().print(table if rows else "nothing was answered there")


@app.command(epilog='Example: urban-reid review answer 3f2a81c0 9b1e77d2 same --reason "coat, bag and gait"')
def answer(
    left: Passage,
    right: Passage,
    said: Annotated[Said, typer.Argument(help="Whether both show one person.")],
    reason: Reason,
    operator: Operator = None,
    trial: Trial = False,
    as_json: AsJson = False,
) -> None:
    """Say that two passages show one person (same), two (different), or that you cannot tell (unsure).

    What contradicts earlier answers, or cannot be because of times and places, is refused.
    """
    from pipeline.review.answers import plan_answer

    _say(lambda store: plan_answer(store, left, right, said), operator, reason, trial, as_json)


@app.command(epilog='Example: urban-reid review merge 5d0c 81ab --reason "both carry the red bag" --try')
def merge(
    one: Annotated[str, typer.Argument(metavar="ID", help="An identity's id, or its first digits.")],
    other: Annotated[str, typer.Argument(metavar="ID", help="Another one's.")],
    reason: Reason,
    operator: Operator = None,
    trial: Trial = False,
    as_json: AsJson = False,
) -> None:
    """Join two identities by hand: says `same` of passages that stand for both, among each other."""
    from pipeline.review.answers import plan_merge

    _say(lambda store: plan_merge(store, one, other), operator, reason, trial, as_json)


@app.command(epilog='Example: urban-reid review split 5d0c 3f2a81c0 9b1e77d2 --reason "another coat"')
def split(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The identity's id, or its first digits.")],
    passages: Annotated[list[str], typer.Argument(metavar="PASSAGE...", help="Keys of the passages to take out.")],
    reason: Reason,
    operator: Operator = None,
    trial: Trial = False,
    as_json: AsJson = False,
) -> None:
    """Take passages out of an identity by hand: says `different` of each of them and each that stays."""
    from pipeline.review.answers import plan_split

    _say(lambda store: plan_split(store, identity, passages), operator, reason, trial, as_json)


@app.command(epilog='Example: urban-reid review follow 1c9e02b7 --reason "another coat"')
def follow(
    answer_id: Annotated[str, typer.Argument(metavar="ANSWER", help="The answer's id, or its first digits.")],
    reason: Reason,
    passage: Annotated[
        str | None, typer.Argument(metavar="PASSAGE", help="The one that was joined wrongly, where one of several was.")
    ] = None,
    operator: Operator = None,
    trial: Trial = False,
    as_json: AsJson = False,
) -> None:
    """Part whoever stands in the way of an answer: says `different` of them and those whom they were joined with.

    They were joined below the place where the answer's passages meet, and times and places keep them from its other
    side. `review answer` and `review changed` name them.
    """
    from pipeline.review.answers import plan_follow

    _say(lambda store: plan_follow(store, answer_id, passage), operator, reason, trial, as_json)


@app.command(epilog='Example: urban-reid review undo 1c9e02b7 --reason "the other bag"')
def undo(
    answer_id: Annotated[str, typer.Argument(metavar="ANSWER", help="The answer's id, or its first digits.")],
    reason: Reason,
    operator: Operator = None,
    trial: Trial = False,
    as_json: AsJson = False,
) -> None:
    """Undo an answer, whatever was answered since. It stays in the list, and binds nothing."""
    from pipeline.review.answers import undo as take_back
    from pipeline.review.in_the_way import Hindrances

    approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    with _store() as store:
        if trial:
            from pipeline.review.rehearsal import rehearse_undo

            changes = rehearse_undo(store, *_in_use(store), answer_id)
            _print_changes(changes, Hindrances(), "nobody would be joined or parted by it", as_json)
            return
        done = take_back(store, answer_id, reviewer=approval.operator, reason=approval.reason)
    if as_json:
        print_json({"answer": str(done.id), "unit": done.unit})
    else:
        out().print(f"answer {str(done.id)[:8]} is undone; {_effect(done.unit)}")


@app.command(epilog="Example: urban-reid review changed 1c9e02b7")
def changed(
    answer_id: Annotated[str, typer.Argument(metavar="ANSWER", help="The answer's id, or its first digits.")],
    as_json: AsJson = False,
) -> None:
    """Show who was joined, parted or moved in the district since an answer was given: before, and now."""
    from pipeline.review.answers import find_answer, hindrances
    from pipeline.review.changes import read_changes

    with _store() as store:
        found = find_answer(store, answer_id)
        held = hindrances(store, answer_id)
        with store.signed_in() as connection:
            changes = read_changes(connection, found.unit.partition("/")[0], found.at)
    _print_changes(changes, held, "nobody has been joined or parted since", as_json)
    _print_follow(held, found.id, as_json)


@app.command(epilog="Example: urban-reid review agreement --unit d1")
def agreement(unit: Unit, as_json: AsJson = False) -> None:
    """Show how far reviewers agree on the pairs that two of them answered, and Cohen's kappa."""
    from pipeline.city.units import read_city
    from pipeline.governance.doors import check_authorized
    from pipeline.review.agreement import agreements

    with _store() as store:
        read_city(store).check_unit(unit)
        check_authorized(store, unit, "a review")
        with store.signed_in() as connection:
            found = agreements(connection, unit)
    if as_json:
        print_json({"agreement": [vars(one) for one in found]})
        return
    table = Table("reviewer", "and", "pairs", "agreed", "kappa")
    for one in found:
        kappa = "" if one.kappa is None else f"{one.kappa:.2f}"
        table.add_row(shown(one.one), shown(one.other), str(one.pairs), str(one.agreed), kappa)
    out().print(table if found else "no two reviewers have answered the same pair; `review list --second` offers some")


def _say(plan: "Callable[[Store], Plan]", operator: str | None, reason: str, trial: bool, as_json: bool) -> None:
    from pipeline.review.answers import give, hindrances, would_hinder

    approval = checked(ApprovalParameters, operator=operator or settings().operator, reason=reason)
    with _store() as store:
        planned = plan(store)
        if trial:
            from pipeline.review.rehearsal import rehearse

            core, model = _in_use(store)
            changes = rehearse(store, core, model, planned, reviewer=approval.operator)
            held = would_hinder(store, planned, reviewer=approval.operator)
            _print_changes(changes, held, "nobody would be joined or parted by it", as_json)
            return
        done = give(store, planned, reviewer=approval.operator, reason=approval.reason)
        held = hindrances(store, str(done.id))
    if as_json:
        said = {"answer": str(done.id), "said": done.said.value, "unit": done.unit, "pairs": done.pairs}
        print_json(said | {"in_the_way": _in_the_way(held)})
    else:
        out().print(f"answer {str(done.id)[:8]}: {done.said.value}; {_effect(done.unit)}")
        _print_held(held)
        _print_follow(held, done.id, as_json)


def _in_use(store: "Store") -> "tuple[ReIDCore, ModelRow]":
    """The core of the model in use, and the model. Raises InputError if there is none."""
    from pipeline.registry import model_in_use
    from reid_core.serving.factory import open_core

    with store.begin() as connection:
        model = model_in_use(connection)
    return open_core(settings(), model.directory(settings())), model


def _effect(unit: str) -> str:
    district = unit.partition("/")[0]
    return f"`urban-reid resolve --unit {shown(district)}` follows it, and `urban-reid up` by itself"


def _in_the_way(held: "Hindrances") -> list[dict[str, Any]]:
    return [
        {
            "passage": one.other.key.hex(),
            "joined_with": one.held.key.hex(),
            "unit": one.unit,
            "why": one.why,
            "is_certain": one.is_certain,
        }
        for one in held.found
    ]


def _print_held(held: "Hindrances") -> None:
    for one in held.found:
        joined = f"{shown(one.unit)} has joined {_key(one.held.key)} with {_key(one.other.key)}"
        either = "" if one.is_certain else "; this join is wrong, or another one that is named here"
        out().print(f"it cannot be followed yet: {joined}, and {one.why}{either}")
    if held.hidden:
        out().print("it cannot be followed yet: a join stands in the way that your authorization does not show")


def _print_follow(held: "Hindrances", answer: "UUID", as_json: bool) -> None:
    if held.found and not as_json:
        name = "" if all(one.is_certain for one in held.found) else " PASSAGE"
        out().print(f"`urban-reid review follow {str(answer)[:8]}{name} --reason ...` parts them")


def _print_changes(changes: "list[Change]", held: "Hindrances", nothing: str, as_json: bool) -> None:
    if as_json:
        found = [
            {"kind": one.kind}
            | {
                side: [{"identity": str(group.persistent_id), "passages": len(group.tracklets)} for group in groups]
                for side, groups in (("before", one.before), ("after", one.after))
            }
            for one in changes
        ]
        print_json({"changes": found, "in_the_way": _in_the_way(held)})
        return
    table = Table("change", "before", "after")
    for one in changes:
        sides = (
            ", ".join(f"{str(g.persistent_id)[:8]} ({len(g.tracklets)})" for g in groups)
            for groups in (one.before, one.after)
        )
        table.add_row(one.kind, *sides)
    out().print(table if changes else nothing)
    _print_held(held)
