"""urban-reid dataset: checks labeled data sets for training and evaluation."""

from typing import Annotated

import typer

from urban_reid.arguments import AsJson
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import progress

app = typer.Typer(help="Check labeled data sets.", no_args_is_help=True)


@app.command(epilog="Example: urban-reid dataset check Market-1501")
def check(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|SOURCE",
            help="A data set's folder, or market1501:DIR, cuhk03:DIR, cuhk03-labeled:DIR, msmt17:DIR, "
            "rendered:SEED[:PEOPLE]; several joined by ' + '.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Open every picture of a data set and list what is wrong.

    The exit code is 0 if nothing is wrong that would change figures, else 1.
    """
    from dataclasses import asdict

    from reid_core.datasets import check_dataset, open_dataset

    with progress("pictures") as tell:
        report = check_dataset(open_dataset(source, strict=False, progress=tell), tell)
    if as_json:
        print_json(asdict(report) | {"sound": report.sound})
    else:
        table = Table("split", *("pictures", "people", "cameras", "junk", "distractors"), title=shown(report.source))
        for column in table.columns[1:]:
            column.justify = "right"
        for name, counts in report.counts.items():
            table.add_row(name, *(f"{number:,}" for number in asdict(counts).values()))
        out().print(table)
        for finding in report.findings:
            kind = "[red]wrong:[/red]" if finding.wrong else "[yellow]note:[/yellow]"
            more = ", ..." if finding.count > 3 else ""
            examples = f" ({shown(', '.join(finding.examples[:3]))}{more})" if finding.examples else ""
            out().print(f"{kind} {shown(finding.text)}{examples}", soft_wrap=True)
        wrong = sum(finding.wrong for finding in report.findings)
        out().print(f"{wrong} wrong" if wrong else "sound: nothing here would change figures")
    if not report.sound:
        raise typer.Exit(1)
