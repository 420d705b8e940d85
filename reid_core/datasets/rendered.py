"""Rendered people under a city's cameras: a data set of any size from a seed, with no real person in it."""

from functools import partial

import numpy as np

from reid_core.datasets.dataset import Dataset, Progress, Sample, split_queries
from synthetic.training import training_crops

PEOPLE = 200
PICTURES_PER_PERSON = 16


def open_rendered(seed: int, people: int, source: str, progress: Progress | None = None) -> Dataset:
    """Renders a data set: the first half of `people` (rounded down) to train on, the others as query and gallery.

    Both halves pass the same 24 cameras. Each person has 16 pictures in passages of up to four under different cameras;
    the first of a passage is the query. A picture takes about 3 ms to render and 20 KB of memory at its own size. The
    same seed and number of people give the same pictures. `progress` is called with (done, total) pictures.
    """
    samples: list[Sample] = []
    for crop in training_crops(seed, people, PICTURES_PER_PERSON):
        pixels = crop.picture.copy()  # the crop is a view of the camera's whole frame
        name = f"{crop.identity:05}_c{crop.camera}_{len(samples) % PICTURES_PER_PERSON:02}"
        samples.append(Sample(name, crop.identity, crop.camera, partial(np.asarray, pixels)))
        if progress:
            progress(len(samples), people * PICTURES_PER_PERSON)
    trained = people // 2 * PICTURES_PER_PERSON
    query, gallery = split_queries(samples[trained:])
    return Dataset(source, tuple(samples[:trained]), query, gallery)
