"""Frames of a fixed camera with several rendered people, and where they are: labels to judge a detector by."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from synthetic.figure import Canvas, Light, draw_figure, draw_shadow
from synthetic.pedestrians import draw_person
from synthetic.skeleton import Pose
from synthetic.textures import dress

#: Heights of people in a frame, in shares of the frame's.
SMALLEST, LARGEST = 0.12, 0.6
MOST_PEOPLE = 8
JPEG_QUALITY = 85


@dataclass(frozen=True)
class LabeledFrame:
    """A frame (h, w, 3) uint8 BGR, and of each person the whole body's box, also where it is covered.

    boxes: (n, 4) left, top, width, height, pixels. visible: (n,) the share of the body that nobody else covers.
    """

    frame: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float64]
    visible: npt.NDArray[np.float64]


def labeled_frames(seed: int, count: int, height: int = 576, width: int = 768) -> Iterator[LabeledFrame]:
    """`count` frames, each with another place, light and 0 to 8 other people, wholly within the frame."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield _frame(rng, height, width)


def _frame(rng: np.random.Generator, height: int, width: int) -> LabeledFrame:
    horizon = float(rng.uniform(-0.1, 0.3)) * height
    canvas = _place(rng, height, width, max(0.0, horizon + 0.1 * height))
    light, pitch = Light(float(rng.uniform(-1, 1)), float(rng.uniform(0.3, 0.7))), float(rng.uniform(0.1, 0.4))
    people = int(rng.integers(0, MOST_PEOPLE + 1))
    sizes = np.sort(rng.uniform(SMALLEST, LARGEST, people)) * height  # the farthest first
    covered_by = np.full((height, width), -1)
    masks = []
    for size in sizes.tolist():
        person = draw_person(rng)
        px_per_m = size / person.height_m
        # The larger, the nearer and the lower in the frame.
        foot_y = horizon + (height * 0.97 - horizon) * (0.35 + 0.65 * size / (LARGEST * height))
        foot = float(rng.uniform(0.25 * size, width - 0.25 * size)), max(foot_y, 1.05 * size)
        pose = Pose(float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0, 1)))
        draw_shadow(canvas, foot, 0.25 * size, float(rng.uniform(0.2, 0.5)))
        looks = dress(person)
        draw_figure(canvas, looks, pose, foot, px_per_m, pitch, light)
        blank = np.full((height, width, 4), -1000, np.float32)
        draw_figure(blank, looks, pose, foot, px_per_m, pitch, light)
        masks.append(blank[..., 0] > -500)  # where the body covers more than half of the pixel
        covered_by[masks[-1]] = len(masks) - 1
    boxes = [cv2.boundingRect(mask.astype(np.uint8)) for mask in masks]
    visible = [(covered_by == row).sum() / max(1, mask.sum()) for row, mask in enumerate(masks)]
    return LabeledFrame(
        _taken(rng, canvas), np.array(boxes, np.float64).reshape(-1, 4), np.array(visible, np.float64).reshape(-1)
    )


def _place(rng: np.random.Generator, height: int, width: int, floor: float) -> Canvas:
    """A wall with windows and posts, and a floor from row `floor` on."""
    canvas = np.empty((height, width, 4), np.float32)
    canvas[:] = (*_gray(rng, 90, 190), 1)
    top = round(floor)
    canvas[top:, :, :3] = _gray(rng, 70, 170) * np.linspace(0.85, 1.1, height - top)[:, None, None]
    for _ in range(int(rng.integers(3, 12))):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, max(1, top)))
        size = int(rng.integers(10, 90)), int(rng.integers(20, 160))
        canvas[max(0, y - size[1]) : y, x : x + size[0], :3] = rng.uniform(20, 230, 3)
    texture = cv2.resize(rng.normal(0, 14, (height // 8, width // 8)).astype(np.float32), (width, height))
    canvas[..., :3] += np.asarray(texture)[..., None]
    return canvas


def _gray(rng: np.random.Generator, least: float, most: float) -> npt.NDArray[np.float64]:
    """A color near gray, RGB."""
    return rng.uniform(least, most) + rng.normal(0, 12, 3)


def _taken(rng: np.random.Generator, canvas: Canvas) -> npt.NDArray[np.uint8]:
    """What the camera gives: blur, noise and JPEG."""
    picture = cv2.GaussianBlur(canvas[..., 2::-1], (0, 0), float(rng.uniform(0.4, 1.0)))
    noisy = np.asarray(picture) + rng.normal(0, float(rng.uniform(1, 4)), picture.shape)
    encoded, data = cv2.imencode(
        ".jpg", np.clip(noisy, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    assert encoded
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
