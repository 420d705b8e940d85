"""urban-reid score: a unit's identities against what is known of who is who."""

from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.errors import InputError, UsageError
from schemas.levels import UPWARD, Level, check_code, level_of
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import Table, out, print_json, say, shown
from urban_reid.progress import progress

app = typer.Typer()

#: Rows of the table: what is measured, and how a person calls it.
_SHARES = {
    "precision": "pairwise precision",
    "recall": "pairwise recall",
    "pairwise_f1": "pairwise F1",
    "b_cubed_precision": "B-cubed precision",
    "b_cubed_recall": "B-cubed recall",
    "b_cubed_f1": "B-cubed F1",
    "idf1": "IDF1",
    "homogeneity": "homogeneity",
    "completeness": "completeness",
    "v_measure": "V-measure",
    "purity": "purity",
    "adjusted_rand": "adjusted Rand index",
    "false_attach_rate": "new people attached to somebody",
    "miss_rate": "known people taken for new",
    "mistaken_rate": "known people attached to another",
    "churn": "tracklets under another id than first",
}
_COUNTS = {
    "identities": "identities",
    "people": "people, again in each unit and after the horizon",
    "violations": "impossible pairs in one identity",
    "reviews": "decisions for a person to review",
    "reviews_labeled": "of these with labels on both sides",
    "reviews_needed": "of these needed",
}


@app.command(epilog="Example: urban-reid score --unit d1 --truth labels.csv")
def score(
    unit: Annotated[str, typer.Option(metavar="CODE", help="The district, street or building, such as d1 or d1/s1.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labels as CSV or JSON Lines: truth, and crop (its key) or camera, time and track. "
            "Without it, the truth that came with the crops.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score who was taken for whom against the truth, level by level."""
    if level_of(check_code(unit)) is Level.CAMERA:
        raise UsageError(f"--unit {unit}: that is a camera, which joins nobody; name a building, street or district")
    from pipeline.accuracy.label_file import Matched

    heard: list[Matched] = []
    with progress("scoring"):
        found = _found(unit, truth, heard)
    if heard and heard[0].matched < heard[0].labels:
        say(f"{heard[0].labels - heard[0].matched} of {heard[0].labels} labels are of no crop of {shown(unit)}")
    if as_json:
        print_json(found)
        return
    table = Table(
        f"{found['tracklets']} tracklets, {found['people']} people",
        *(level for level in reversed(UPWARD) if level in found["levels"]),
        title=f"{shown(unit)}, model {shown(found['model'])}",
        title_justify="left",
    )
    columns = [found["levels"][level] for level in reversed(UPWARD) if level in found["levels"]]
    for name, said in _COUNTS.items():
        table.add_row(said, *(str(column[name]) for column in columns))
    for name, said in _SHARES.items():
        table.add_row(said, *(f"{column[name]:.3f}" for column in columns))
    out().print(table)


def _found(unit: str, truth: Path | None, heard: list[Any]) -> dict[str, Any]:
    from pipeline.accuracy.label_file import read_said
    from pipeline.accuracy.labeled import labeled_tracklets
    from pipeline.accuracy.scorecard import scorecard
    from pipeline.city.units import read_city
    from pipeline.registry import model_in_use
    from pipeline.store import Store
    from schemas.city_file import unknown_unit

    with Store.open(settings(), "urban-reid score") as store:
        known = {u.code for u in read_city(store).units}
        if unit not in known:
            raise unknown_unit(unit, known)
        with store.begin() as connection:
            model = model_in_use(connection)
        labeled = labeled_tracklets(store, unit, model.id, read_said(truth, unit, heard.append) if truth else None)
        if not labeled.key:
            raise InputError(
                f"no tracklet of {unit} has a label: either it is not resolved yet with model {model.name}, or its "
                "crops came without truth; `--truth FILE` gives labels"
            )
        levels = scorecard(store, unit, labeled)
    labels = {"labels": {"given": heard[0].labels, "matched": heard[0].matched}} if heard else {}
    return {
        "unit": unit,
        "model": model.name,
        "tracklets": len(labeled.key),
        "people": len(set(labeled.truth.tolist())),
        **labels,
        "levels": levels,
    }
