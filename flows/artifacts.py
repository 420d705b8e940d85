"""Artifacts of runs on Prefect's own pages: tables and Markdown summaries, under keys that stay the same.

Names come from files that anyone may have written, so all text is escaped. No pictures.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from pipeline.resolve import UnitResult
from pipeline.training.comparison import Comparison
from schemas.levels import level_of
from schemas.parameters import SearchResult, TrainParameters
from schemas.settings import Settings
from schemas.text import one_line
from schemas.times import period_text


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
    await acreate_table_artifact(rows, artifact_key("resolve", unit), f"The last resolve of {unit}, unit by unit")
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
    await acreate_markdown_artifact(
        "\n".join(lines), artifact_key("resolve-summary", unit), f"Summary of the last resolve of {unit}"
    )


async def show_search(unit: str, request: str, reason: str, result: SearchResult, zone: ZoneInfo) -> None:
    """The hits as a table, ranked. Times in the city's zone."""
    rows: list[dict[str, Any]] = [
        {
            "rank": hit.rank,
            "identity": str(hit.identity),
            "model": hit.model,
            "distance": round(hit.distance, 4),
            "probability": None if hit.probability is None else round(hit.probability, 4),
            f"seen ({zone.key})": period_text(hit.first_seen, hit.last_seen, zone)
            if hit.first_seen and hit.last_seen
            else None,
            "cameras": ", ".join(sorted({crop.camera for crop in hit.crops})),
            "nearest crop": hit.crops[0].key,
        }
        for hit in result.hits
    ]
    await acreate_table_artifact(
        rows,
        artifact_key("search", unit),
        f"Request `{request}` in `{unit}`: {len(result.hits)} hits, ranked. {markdown(result.summary)} "
        f"Reason: {markdown(reason)}",
    )


async def show_candidate(parameters: TrainParameters, comparison: Comparison | None) -> None:
    """Creates a summary: the candidate's figures beside those of the model in use, and what to do next."""
    lines = [
        f"# {markdown(parameters.name)}",
        "",
        f"- trained on {markdown(parameters.dataset)} by {markdown(parameters.operator)}",
        f"- {markdown(parameters.reason)}",
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
    await acreate_markdown_artifact(
        "\n".join(lines), artifact_key("candidate", parameters.name), "A candidate beside the model in use"
    )
