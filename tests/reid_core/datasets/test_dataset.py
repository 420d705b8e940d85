from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from reid_core.datasets import Dataset, Sample, split_queries
from tests.helpers.data_sets import SMALL, pixels


def test_whoever_is_interrupted_does_not_wait_for_the_rest() -> None:
    told, picture = Event(), pixels(0)
    reads: list[int] = []

    def read(number: int) -> NDArray[np.uint8]:
        if number:
            told.wait()
        reads.append(number)
        return picture

    samples = tuple(Sample("", 1, 1, lambda number=number: read(number)) for number in range(2000))  # type: ignore[misc]

    def interrupt(done: int, total: int) -> None:
        told.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Dataset("", samples, (), ()).load("train", SMALL, interrupt)
    assert len(reads) < 2000


def test_the_first_of_each_person_and_camera_asks() -> None:
    labels = [(1, 1), (1, 1), (1, 2), (2, 1), (-1, 1), (2, 1)]
    samples = [Sample(str(row), *label, lambda: pixels(0)) for row, label in enumerate(labels)]
    query, gallery = split_queries(samples)
    assert [sample.name for sample in query] == ["0", "2", "3"]
    assert [sample.name for sample in gallery] == ["1", "4", "5"]
    assert split_queries([]) == ((), ())
