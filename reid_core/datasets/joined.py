"""Several data sets as one, to train on all of them."""

from collections.abc import Sequence
from dataclasses import replace

from reid_core.datasets.dataset import SPLITS, Dataset, Sample
from reid_core.datasets.person_pictures import JUNK


def join(datasets: Sequence[Dataset], source: str) -> Dataset:
    """One data set: the training pictures of all, the query and gallery of the first.

    So what a further set adds to the training is seen in the figures of the first, and figures stay comparable with
    the first's own. The first keeps its numbers; people and cameras of each further set are numbered on after those of
    the sets before it, so that none of two sets are ever the same. Junk stays junk.
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
