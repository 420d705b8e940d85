"""urban-reid score: compares a unit's identities with the truth."""

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

#: Rows of the table, by JSON name.
_COUNTS = {
    "identities": "identities",
    "people": "people, again in each unit and after the horizon",
    "violations": "impossible pairs in one identity",
    "reviews": "decisions for review",
    "reviews_labeled": "of these, labeled on both sides",
    "reviews_needed": "of these, needed",
}
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
    "false_attach_rate": "new people attached to an identity",
    "miss_rate": "known people started as a new identity",
    "mistaken_rate": "known people attached to a wrong identity",
    "churn": "tracklets under another id than at first",
}


@app.command(epilog="Example: urban-reid score --unit d1 --truth labels.csv")
def score(
    unit: Annotated[str, typer.Option(metavar="CODE", help="The district, street or building, such as d1 or d1/s1.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labels as CSV or JSON Lines: truth, and crop (its key) or camera, time and track. "
            "Default: the truth that came with the crops.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a unit's identities with the truth, level by level."""
    if level_of(check_code(unit)) is Level.CAMERA:
        raise UsageError(f"--unit {unit}: is a camera, which joins nothing; give a building, street or district")
    from pipeline.accuracy.label_file import Matched

    matched: list[Matched] = []
    with progress("scoring"):
        found = _score(unit, truth, matched)
    if matched and matched[0].matched < matched[0].labels:
        say(f"{matched[0].labels - matched[0].matched} of {matched[0].labels} labels name no crop of {shown(unit)}")
    if as_json:
        print_json(found)
        return
    levels = [level for level in reversed(UPWARD) if level in found["levels"]]
    table = Table(
        f"{found['tracklets']} tracklets, {found['people']} people",
        *levels,
        title=f"{shown(unit)}, model {shown(found['model'])}",
        title_justify="left",
    )
    columns = [found["levels"][level] for level in levels]
    for name, description in _COUNTS.items():
        table.add_row(description, *(str(column[name]) for column in columns))
    for name, description in _SHARES.items():
        table.add_row(description, *(f"{column[name]:.3f}" for column in columns))
    out().print(table)


def _score(unit: str, truth: Path | None, matched: list[Any]) -> dict[str, Any]:
    """What --json prints; appends the `Matched` of a label file to `matched`."""
    from pipeline.accuracy.label_file import label_reader
    from pipeline.accuracy.labeled import labeled_tracklets
    from pipeline.accuracy.scorecard import scorecard
    from pipeline.city.units import read_city
    from pipeline.registry import model_in_use
    from pipeline.store import Store
    from schemas.city_file import unknown_unit

    with Store.open(settings(), "urban-reid score") as store:
        codes = {known.code for known in read_city(store).units}
        if unit not in codes:
            raise unknown_unit(unit, codes)
        with store.begin() as connection:
            model = model_in_use(connection)
        read_labels = label_reader(truth, unit, matched.append) if truth else None
        labeled = labeled_tracklets(store, unit, model.id, read_labels)
        if not labeled.key:
            raise InputError(
                f"no tracklet of {unit} has a label: either it is not resolved yet with model {model.name}, or its "
                "crops came without truth; give labels with --truth FILE"
            )
        levels = scorecard(store, unit, labeled)
    labels = {"labels": {"given": matched[0].labels, "matched": matched[0].matched}} if matched else {}
    return {
        "unit": unit,
        "model": model.name,
        "tracklets": len(labeled.key),
        "people": len(set(labeled.truth.tolist())),
        **labels,
        "levels": levels,
    }
