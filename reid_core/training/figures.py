"""The paper's figures 4 and 5: scores by data set and transform, of what was reproduced.

Each reproduction's folder keeps the figures of its rows in `results.json`, from which the pictures of one or of several
data sets are drawn: figure 4 for BagTricks, figure 5 for AGW, and one for any other method with rows of transforms.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_core.evaluation.ranking import over_seeds
from reid_core.training.methods import METHODS
from reid_core.training.paper import TRANSFORMS
from reid_core.training.reproduce import Reproduced, row_key
from schemas.disk import write_whole
from schemas.errors import InputError

RESULTS = "results.json"
NUMBERS = {"bagtricks": "figure4", "agw": "figure5"}
#: Metrics of the panels, with their names.
PANELS = {"rank1": "Rank-1", "mAP": "mAP", "mINP": "mINP"}
COLORS = ("#9a9a9a", "#9ecae1", "#4292c6", "#08519c")


def remember(work: Path, dataset: str, paper: str | None, found: Sequence[Reproduced]) -> None:
    """Adds the figures of these rows to those that `work` keeps.

    `dataset`: as the pictures name it. `paper`: the name under which the paper has figures, if it has.
    """
    kept = results_of(work) if (work / RESULTS).exists() else {"rows": {}}
    for one in found:
        published = one.paper(paper) if paper else None
        kept["rows"][row_key(one.row)] = {
            "ours": {name: spread._asdict() for name, spread in over_seeds(one.scores).items()},
            "paper": None if published is None else vars(published),
        }
    write_whole(work / RESULTS, json.dumps({"dataset": dataset, "rows": kept["rows"]}, indent=2) + "\n")


def draw_figures(folders: Sequence[Path], out: Path) -> list[Path]:
    """Draws to `out` each method of which `folders`, one a data set, hold rows of transforms; returns the pictures.

    Bars are ours, with the deviation over seeds; marks are the paper's. Raises InputError for a folder without results.
    """
    sets = [results_of(folder) for folder in folders]
    keys = {key for one in sets for key in one["rows"]}
    drawn = []
    for method in METHODS:
        bars = {"plain": method} | {title: _key(method, transform) for transform, title in TRANSFORMS.items()}
        if any(key in keys for key in bars.values() if key != method):
            path = out / f"{NUMBERS.get(method, 'figure-' + method)}.png"
            _draw(path, METHODS[method].title, bars, sets)
            drawn.append(path)
    return drawn


def _key(method: str, transform: str) -> str:
    return f"{method}+separate" + ("" if transform == "sub_abs" else f":{transform}")


def _draw(path: Path, title: str, bars: Mapping[str, str], sets: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.figure import Figure  # takes half a second, and only this needs it

    figure = Figure(figsize=(4.2 + 2.4 * len(sets), 7.2), layout="constrained")
    panels = figure.subplots(len(PANELS), 1, sharex=True)
    width = 0.8 / len(bars)
    for axes, (metric, name) in zip(panels, PANELS.items(), strict=True):
        heights = []
        for number, (label, key) in enumerate(bars.items()):
            for place, one in enumerate(sets):
                row = one["rows"].get(key)
                if row is None:
                    continue
                x = place + (number - (len(bars) - 1) / 2) * width
                mean, deviation = row["ours"][metric]["mean"], row["ours"][metric]["deviation"]
                known = None if row["paper"] is None else row["paper"][metric]
                axes.bar(x, mean, 0.9 * width, yerr=deviation, capsize=2, color=COLORS[number], label=label)
                axes.annotate(f"{mean:.1f}", (x, 0), (0, 3), textcoords="offset points", ha="center", fontsize=7,
                              color="black" if number < 2 else "white")  # fmt: skip
                if known is not None:
                    axes.plot(x, known, "_", color="black", markersize=60 * width, markeredgewidth=2, label="paper")
                heights += [mean + (deviation or 0), known or 0]
        axes.set(ylabel=f"{name}, %", ylim=(0, min(105, 1.12 * max(heights, default=1) or 1)))
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xticks(range(len(sets)), [one["dataset"] for one in sets])
    panels[-1].set_xlim(-0.6, len(sets) - 0.4)
    handles, labels = panels[0].get_legend_handles_labels()
    once = dict(zip(reversed(labels), reversed(handles), strict=True))
    order = [label for label in (*bars, "paper") if label in once]
    figure.legend([once[label] for label in order], order, loc="outside lower center", ncols=5, frameon=False)
    panels[0].set_title(f"{title}, separate training, by transform", fontsize="medium")
    figure.savefig(path, dpi=110)


def results_of(folder: Path) -> dict[str, Any]:
    """What `remember` keeps in a reproduction's folder. Raises InputError where there is nothing."""
    try:
        found: dict[str, Any] = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not JSON"
        raise InputError(f"{folder / RESULTS}: {reason}; `urban-reid reproduce --work {folder}` writes it") from None
    return found
