"""Rendered people before a city's cameras: a data set of any size from a seed, with nobody's picture in it."""

from functools import partial

import numpy as np

from reid_core.datasets.dataset import Dataset, Progress, Sample, split_queries
from synthetic.training import training_crops

PEOPLE = 200
PICTURES_PER_PERSON = 16


def open_rendered(seed: int, people: int, source: str, progress: Progress | None = None) -> Dataset:
    """The first half of `people`, rounded down, to train on, the others as query and gallery; 24 cameras see both.

    Each has 16 pictures, in passages of up to four before different cameras; a passage's first is the query. They are
    rendered here, about 3 ms each, and held at their own size, about 20 KB each. The same seed and number of people
    give the same pictures.
    """
    samples: list[Sample] = []
    for crop in training_crops(seed, people, PICTURES_PER_PERSON):
        pixels = crop.picture.copy()  # what the camera gives is a view into its whole frame
        name = f"{crop.identity:05}_c{crop.camera}_{len(samples) % PICTURES_PER_PERSON:02}"
        samples.append(Sample(name, crop.identity, crop.camera, partial(np.asarray, pixels)))
        if progress:
            progress(len(samples), people * PICTURES_PER_PERSON)
    trained = people // 2 * PICTURES_PER_PERSON
    query, gallery = split_queries(samples[trained:])
    return Dataset(source, tuple(samples[:trained]), query, gallery)
