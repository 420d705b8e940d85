"""Artifacts of runs on Prefect's own pages: tables and Markdown summaries, under keys that stay the same.

Names come from files that anyone may have written, so all text is escaped. No pictures.
"""

import html
import re
from collections.abc import Mapping, Sequence

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from flows.failures import reported
from pipeline.resolve import UnitResult
from pipeline.training.comparison import Comparison
from schemas.levels import level_of
from schemas.parameters import TrainParameters
from schemas.settings import Settings
from schemas.text import one_line


async def _show_markdown(text: str, key: str, description: str) -> None:
    await reported(lambda: acreate_markdown_artifact(text, key, description))


def artifact_key(kind: str, name: str) -> str:
    """A key of Prefect's, of a-z, 0-9 and dashes, such as resolve-d1--s1. `name`: a unit's code or a model's name."""
    return f"{kind}-{re.sub('[^a-z0-9-]', '-', name.lower().replace('/', '--'))}"


def markdown(text: str) -> str:
    """`text` on one line, escaped for Markdown and HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~>:])", r"\\\1", html.escape(one_line(text), quote=False))


async def show_resolve(
    settings: Settings, unit: str, names: Mapping[str, str], results: Sequence[UnitResult], digest: str
) -> None:
    """Creates a table of counts and decisions with a row for each unit, and a summary."""
    rows = [
        {
            "unit": result.unit,
            "name": html.escape(one_line(names.get(result.unit, ""))),
            "level": level_of(result.unit).value,
            "windows": result.windows,
            "changed": result.changed,
            "rows": result.written,
            "identities": result.identities,
            "joins": result.joins,
            "reviews": result.reviews,
        }
        for result in reversed(results)
    ]
    described = f"The last resolve of {unit}, unit by unit"
    await reported(lambda: acreate_table_artifact(rows, artifact_key("resolve", unit), described))
    written, reviews = (sum(getattr(result, what) for result in results) for what in ("written", "reviews"))
    lines = [
        f"# {markdown(names.get(unit) or unit)}",
        "",
        f"- unit `{unit}` ({level_of(unit)}), {len(results)} units in all",
        f"- {sum(result.changed for result in results)} of {sum(r.windows for r in results)} windows resolved anew, "
        f"{written} rows written",
        f"- {sum(result.joins for result in results)} joins, {reviews} pairs for review",
        f"- decision digest `{digest}`",
    ]
    index = settings.report_link(unit).resolve() / "index.html"
    if index.exists():
        lines.append(f"- [report]({index.as_uri()}): {markdown(str(index))}")
    await _show_markdown(
        "\n".join(lines), artifact_key("resolve-summary", unit), f"Summary of the last resolve of {unit}"
    )


async def show_search(unit: str, request: str, hits: int) -> None:
    """Says how many hits there are, and where they can be seen: not here."""
    await _show_markdown(
        f"Search `{request}` in `{unit}`: {hits} hits, each a lead, not identification. Whoever asked for it has "
        "seen them in the terminal; they stand in the table `search_hit` of the city's database.",
        artifact_key("search", unit),
        f"The last search in {unit}",
    )


async def show_candidate(parameters: TrainParameters, comparison: Comparison | None) -> None:
    """Creates a summary: the candidate's figures beside those of the model in use, and what to do next."""
    lines = [
        f"# {markdown(parameters.name)}",
        "",
        f"- trained on {markdown(parameters.dataset)}; by whom and why stands in the audit",
    ]
    if comparison is None:
        lines.append(f"- no model is in use yet: `urban-reid models use {parameters.name}` puts it in use")
    else:
        lines += [
            f"- measured on {markdown(comparison.held_out)}",
            "",
            f"| metric | {markdown(parameters.name)} | {markdown(comparison.against)} | difference |",
            "|---|---|---|---|",
            *(
                f"| {name} | {comparison.metrics[name]:.1f} | {comparison.against_metrics[name]:.1f} | {by:+.1f} |"
                for name, by in comparison.difference.items()
            ),
            "",
            "It is worse: promoting it takes `--force`."
            if comparison.worse
            else f"`urban-reid models promote {parameters.name} --operator USER --reason TEXT` puts it in use.",
        ]
    await _show_markdown(
        "\n".join(lines), artifact_key("candidate", parameters.name), "A candidate beside the model in use"
    )
