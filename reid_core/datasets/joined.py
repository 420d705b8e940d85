"""Joins data sets, to train on all of them."""

from collections.abc import Sequence
from dataclasses import replace

from reid_core.datasets.dataset import SPLITS, Dataset, Sample
from reid_core.datasets.person_pictures import JUNK


def join(datasets: Sequence[Dataset], source: str) -> Dataset:
    """One data set with the training pictures of all, and query and gallery of the first.

    So the figures of the first show what a further set adds to the training. The first keeps its identity and camera
    numbers; those of each further set continue after the sets before it, so that no two sets share one. Junk stays
    junk.
    """
    first = datasets[0]
    train = list(first.train)
    person, camera = _after(first)
    for other in datasets[1:]:
        train += [
            replace(
                sample,
                name=f"{other.source}/{sample.name}",
                identity=JUNK if sample.identity == JUNK else person + sample.identity,
                camera=camera + sample.camera,
            )
            for sample in other.train
        ]
        persons, cameras = _after(other)
        person, camera = person + persons, camera + cameras
    wrong = tuple(line for dataset in datasets for line in dataset.wrong)
    return replace(first, source=source, train=tuple(train), published=None, wrong=wrong)


def _after(dataset: Dataset) -> tuple[int, int]:
    """One more than the largest identity and camera of any split."""
    samples: list[Sample] = [sample for name in SPLITS for sample in dataset.split(name)]
    return (
        1 + max((sample.identity for sample in samples), default=-1),
        1 + max((sample.camera for sample in samples), default=-1),
    )
