"""Pictures to train on: rendered like those of a city, of people who occur in no city."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from synthetic.camera_view import Difficulty, Picture, Walker, draw_camera, photograph
from synthetic.pedestrians import draw_people, draw_person
from synthetic.seeds import generator
from synthetic.textures import dress

#: Harder than a city, so that no city is harder than the training data: more look-alikes in larger groups, and cameras
#: that differ more.
TRAINING_DIFFICULTY = Difficulty(look_alike_share=0.6, group=(2, 5), spread=5.0, cast=0.11, gamma=0.16, exposure=0.13)


@dataclass(frozen=True)
class TrainingCrop:
    """One crop at the size of its box; labels as in `TrainingPictures`."""

    picture: Picture
    identity: int
    camera: int
    passage: int


@dataclass(frozen=True)
class TrainingPictures:
    """N labeled crops of one size."""

    pictures: npt.NDArray[np.uint8]  # (N, H, W, 3) RGB
    identities: npt.NDArray[np.int64]  # (N,) 0 .. people - 1
    cameras: npt.NDArray[np.int64]  # (N,) 0 .. cameras - 1
    passages: npt.NDArray[np.int64]  # (N,) one number for each passage of one person at one camera


def training_set(
    seed: int,
    people: int,
    pictures_per_person: int,
    size: tuple[int, int] = (128, 64),
    *,
    pictures_per_passage: int = 4,
    cameras: int = 24,
    difficulty: Difficulty = TRAINING_DIFFICULTY,
) -> TrainingPictures:
    """The crops of `training_crops` as arrays, scaled to `size` (h, w)."""
    count = people * pictures_per_person
    pictures = np.empty((count, *size, 3), np.uint8)
    labels = np.empty((count, 3), np.int64)
    crops = training_crops(
        seed,
        people,
        pictures_per_person,
        pictures_per_passage=pictures_per_passage,
        cameras=cameras,
        difficulty=difficulty,
    )
    for row, crop in enumerate(crops):
        pictures[row] = fit(crop.picture, size)
        labels[row] = crop.identity, crop.camera, crop.passage
    return TrainingPictures(pictures, labels[:, 0], labels[:, 1], labels[:, 2])


def training_crops(
    seed: int,
    people: int,
    pictures_per_person: int,
    *,
    pictures_per_passage: int = 4,
    cameras: int = 24,
    difficulty: Difficulty = TRAINING_DIFFICULTY,
) -> Iterator[TrainingCrop]:
    """`pictures_per_person` crops of each person, in passages at different cameras, by identity, passage and time.

    The people come from `generator(seed, "training", ...)`: they occur in no city, and every seed gives others. As in a
    city, some are look-alikes.
    """
    rng = generator(seed, "training", 0)
    crowd = draw_people(
        rng, people, look_alike_share=difficulty.look_alike_share, group=difficulty.group, spread=difficulty.spread
    )
    views = [
        draw_camera(generator(seed, "training", 1, i), (0.0, 0.0), float(rng.uniform(-math.pi, math.pi)), difficulty)
        for i in range(cameras)
    ]
    strangers = [dress(draw_person(rng)) for _ in range(24)]
    passage = 0
    for number, person in enumerate(crowd):
        own = generator(seed, "training", 2, number)
        looks = dress(person)
        order = own.permutation(cameras)
        left, turn = pictures_per_person, 0
        while left:
            camera = int(order[turn % cameras])
            heading = float(own.choice([0.0, math.pi / 2, math.pi, -math.pi / 2]) + own.normal(0, 0.25))
            exposure = float(np.exp(own.normal(0, difficulty.exposure)))
            offset, phase, taken = float(own.uniform(-1.5, 1.5)), float(own.uniform(0, 2 * math.pi)), 0
            for step in np.sort(own.uniform(-3, 3, pictures_per_passage)).tolist():
                x = step * math.cos(heading) - offset * math.sin(heading)
                y = step * math.sin(heading) + offset * math.cos(heading)
                walker = Walker(looks, x, y, heading, phase + step * 4.2)
                stranger = strangers[int(own.integers(len(strangers)))] if own.random() < difficulty.crowding else None
                crop = photograph(views[camera], walker, own, difficulty, exposure=exposure, stranger=stranger)
                if crop is None or not left:
                    continue
                yield TrainingCrop(crop[0], number, camera, passage)
                left, taken = left - 1, taken + 1
            passage, turn = passage + (taken > 0), turn + 1


def fit(picture: Picture, size: tuple[int, int]) -> Picture:
    """`picture` resized to `size` (h, w): averaged where both sides shrink, else interpolated.

    The same as in `reid_core.preprocessing.prepare`, so that a model sees these pictures like those of a city.
    """
    shrinks = picture.shape[0] >= size[0] and picture.shape[1] >= size[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (size[1], size[0]), interpolation=interpolation), np.uint8)
