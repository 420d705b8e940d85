"""The picture of `docs/scale.md`: busy cores by stage over cameras, and a district's window, with their intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.capacity.estimate import Range, total
from benchmarks.capacity.figures import LEVELS
from benchmarks.capacity.needs import Model

_STYLE: Any = {"svg.hashsalt": "capacity", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw(model: Model, path: Path) -> None:
    """Writes an SVG, the same for the same figures."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(10.4, 4.2), layout="constrained")
        cores, windows = figure.subplots(1, 2)
        _draw_cores(cores, model)
        _draw_windows(windows, model)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_cores(axes: Any, model: Model) -> None:
    sizes = [round(float(size)) for size in np.logspace(2, 5, 25)]
    needs = [model.needs(size) for size in sizes]
    for name in sorted(needs[-1].cores, key=lambda name: -needs[-1].cores[name].value):  # as lines lie at the right
        _line(axes, sizes, [each.cores[name] for each in needs], label=name)
    _line(axes, sizes, [total(list(each.cores.values())) for each in needs], label="all", color="black", linewidth=2)
    axes.set(xscale="log", yscale="log", xlabel="cameras", ylabel="busy cores in the busiest hour", ylim=(1e-3, None))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_windows(axes: Any, model: Model) -> None:
    cities = model.measured.cities
    sizes = np.geomspace(min(city.cameras for city in cities), model.load.cameras_per_district, 30).tolist()
    for level in LEVELS:
        power = model.stages.windows[level]
        color = _line(axes, sizes, [power.at(size) for size in sizes], label=level)
        measured = [city.live_s[level] / city.windows for city in cities]
        axes.plot([city.cameras for city in cities], measured, "o", markersize=4, color=color)
    axes.set(xscale="log", yscale="log", xlabel="cameras of a district", ylabel="seconds of a processor for a window")
    axes.legend(frameon=False, fontsize=8)


def _line(axes: Any, x: Sequence[float], found: Sequence[Range], **style: Any) -> str:
    """A line with its interval; returns its color."""
    (line,) = axes.plot(x, [one.value for one in found], **{"linewidth": 1.3} | style)
    color: str = line.get_color()
    axes.fill_between(x, [one.low for one in found], [one.high for one in found], color=color, alpha=0.15, linewidth=0)
    return color
