"""The log of a training run: one line of JSON per epoch, and a picture of the curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.disk import write_whole

LOG = "log.jsonl"
CURVES = "curves.png"


@dataclass(frozen=True)
class EpochRecord:
    """One line of the log; each loss is the mean over the epoch's batches, with its weight."""

    epoch: int  # from 1
    learning_rate: float  # of the last batch
    losses: Mapping[str, float]
    pictures: int
    seconds: float
    metrics: Mapping[str, float]  # what `validate` returned; empty in epochs without validation


def write_log(directory: Path, records: Sequence[EpochRecord]) -> None:
    """Writes all records to `directory`, whole or not at all, in place of the log before."""
    write_whole(directory / LOG, "".join(json.dumps(asdict(record)) + "\n" for record in records))


def draw_curves(directory: Path, records: Sequence[EpochRecord]) -> Path:
    """Draws losses, learning rate and metrics over the epochs to `directory`, and returns the picture's path."""
    from matplotlib.figure import Figure  # takes half a second, and only training needs it

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    losses, rate, metrics = figure.subplots(1, 3)
    epochs = [record.epoch for record in records]
    for name in sorted({name for record in records for name in record.losses}):
        losses.plot(epochs, [record.losses.get(name) for record in records], label=name)
    highest = max((value for record in records for value in record.losses.values()), default=0.0)
    losses.set(title="losses, each with its weight", xlabel="epoch", ylim=(0, 1.05 * highest or 1))
    rates = [record.learning_rate for record in records]
    rate.set(title="learning rate", xlabel="epoch", yscale="log")
    rate.set_ylim(min(rates) / 2, max(rates) * 2)  # before plotting: automatic limits fail with a single rate
    rate.plot(epochs, rates, color="gray")
    scored = [record for record in records if record.metrics]
    for name in sorted({name for record in scored for name in record.metrics}):
        its = [record for record in scored if name in record.metrics]
        metrics.plot([r.epoch for r in its], [r.metrics[name] for r in its], marker=".", label=name)
    metrics.set(title="validation, %", xlabel="epoch")
    for axes in (losses, metrics):
        if axes.lines:
            axes.legend(fontsize="small", frameon=False)
    for axes in (losses, rate, metrics):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    path = directory / CURVES
    figure.savefig(path, dpi=110)
    return path
