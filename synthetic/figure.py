"""Draws a walking figure from the parts of its skeleton.

Parts are round and wear textures that go once round. A part is drawn as a sprite, the visible half of its texture with
shading, warped onto the picture; far parts first.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from synthetic.cloth import COLUMNS, PADDED
from synthetic.skeleton import Pose, body_parts
from synthetic.textures import Looks

Canvas = npt.NDArray[np.float32]

#: Half width of each shape along its axis, as points (t, r): t = 0 at its first end, r = 1 at its widest.
PROFILES: dict[str, tuple[tuple[float, float], ...]] = {
    "torso": ((0, 0.36), (0.03, 0.62), (0.08, 0.88), (0.14, 1.0), (0.3, 0.97), (0.62, 0.84), (0.85, 0.9), (1, 0.9)),
    "coat": ((0, 0.36), (0.02, 0.6), (0.055, 0.88), (0.1, 1.0), (0.2, 0.97), (0.42, 0.86), (0.7, 0.94), (1, 1.0)),
    "skirt": ((0, 0.6), (0.15, 0.74), (0.6, 0.9), (1, 1.0)),
    "thigh": ((0, 0.85), (0.08, 1.0), (0.5, 0.9), (0.95, 0.7), (1, 0.66)),
    "shin": ((0, 0.8), (0.06, 0.92), (0.25, 1.0), (0.8, 0.72), (1, 0.66)),
    "arm": ((0, 0.6), (0.1, 1.0), (0.5, 0.92), (0.94, 0.78), (1, 0.6)),
    "forearm": ((0, 0.66), (0.06, 0.96), (0.25, 1.0), (0.78, 0.72), (0.84, 0.82), (0.93, 0.74), (1, 0.3)),
    "neck": ((0, 1.0), (1, 1.0)),
    "head": ((0, 0.12), (0.04, 0.46), (0.12, 0.76), (0.25, 0.95), (0.42, 1.0), (0.62, 0.93), (0.8, 0.76), (0.93, 0.5),
             (1, 0.2)),
    "ball": tuple((t / 20, math.sqrt(1 - (t / 10 - 1) ** 2)) for t in range(21)),
    "hair": ((0, 0.3), (0.05, 0.6), (0.2, 0.95), (0.5, 1.0), (0.85, 0.9), (0.97, 0.6), (1, 0.3)),
    "box": ((0, 0.6), (0.05, 0.86), (0.14, 1.0), (0.9, 1.0), (0.97, 0.92), (1, 0.8)),
    "shoe": ((0, 0.6), (0.1, 0.95), (0.4, 1.0), (0.75, 0.8), (0.93, 0.66), (1, 0.35)),
}  # fmt: skip
#: Height and width of each shape's sprite, pixels: about its largest size on a canvas 192 px high.
_SPRITE: dict[str, tuple[int, int]] = {
    "torso": (56, 40), "coat": (72, 40), "skirt": (36, 36), "thigh": (40, 20), "shin": (40, 16), "arm": (32, 14),
    "forearm": (32, 12), "neck": (10, 12), "head": (28, 24), "ball": (16, 20), "hair": (28, 24), "box": (40, 28),
    "shoe": (28, 14),
}  # fmt: skip
#: Margin of a sprite around its shape, relative to its size, in which edges fade.
_MARGIN = 0.08


@dataclass(frozen=True)
class Light:
    side: float  # from where it comes, -1 left .. 1 right in the picture
    ambient: float  # share of the light that reaches the shade, 0..1


@lru_cache(maxsize=512)
def _sampling(shape: str, texture_rows: int, light: Light) -> tuple[npt.NDArray[np.intp], Canvas]:
    """For a shape's sprite: the flat index into a padded texture (h, w), and light times cover (h, w, 4)."""
    height, width = _SPRITE[shape]
    t = (np.arange(height) + 0.5) / height * (1 + 2 * _MARGIN) - _MARGIN
    x = ((np.arange(width) + 0.5) / width * 2 - 1) * (1 + _MARGIN)
    profile = np.array(PROFILES[shape])
    radius = np.interp(t, profile[:, 0], profile[:, 1])[:, None]
    along = np.minimum(t, 1 - t)[:, None] * height
    cover = np.clip((radius - np.abs(x[None])) * width / 2 + 0.5, 0, 1) * np.clip(along + 0.5, 0, 1)
    across = np.clip(x[None] / np.maximum(radius, 1e-3), -1, 1)
    turn = np.arcsin(across) / (2 * np.pi) * COLUMNS
    row = np.clip((t * texture_rows).astype(int), 0, texture_rows - 1)[:, None]
    flat = row * PADDED + np.round(COLUMNS / 4 - turn).astype(int)
    facing = np.sqrt(np.maximum(0, 1 - across**2))
    lit = light.ambient + (1 - light.ambient) * np.clip(0.75 * facing + 0.65 * light.side * across, 0, 1.1)
    shade = np.dstack([cover * lit, cover * lit, cover * lit, cover]).astype(np.float32)
    return flat.astype(np.intp), shade


def draw_figure(
    canvas: Canvas, looks: Looks, pose: Pose, foot: tuple[float, float], px_per_m: float, pitch: float, light: Light
) -> None:
    """Draws onto `canvas` (h, w, 4) float32 in place: RGB 0..255; the fourth channel is undefined afterwards.

    foot: pixel (x, y) of the body frame's origin. pitch: viewing angle downwards, radians.
    """
    parts = body_parts(looks, pose)
    ends = np.array([(part.start, part.end) for part in parts])  # (n, 2, 3)
    cos_yaw, sin_yaw = math.cos(pose.yaw), math.sin(pose.yaw)
    depth = ends[..., 0] * sin_yaw + ends[..., 1] * cos_yaw  # towards the camera
    x = foot[0] + px_per_m * (ends[..., 1] * sin_yaw - ends[..., 0] * cos_yaw)
    y = foot[1] - px_per_m * (ends[..., 2] * math.cos(pitch) - depth * math.sin(pitch))
    order = np.argsort(depth.mean(axis=1) + [part.nearer for part in parts], kind="stable")
    column = int((pose.yaw + math.pi) / (2 * math.pi) * COLUMNS) % COLUMNS
    points = np.stack([x, y], axis=-1).tolist()
    for i in order.tolist():
        part = parts[i]
        half = px_per_m * math.hypot(part.wide * cos_yaw, part.deep * sin_yaw)
        flat, shade = _sampling(part.shape, part.texture.shape[0] // PADDED, light)
        start = COLUMNS // 2 if part.sole else column
        sprite = part.texture.take(flat + start, axis=0)
        sprite *= shade
        _stamp(canvas, sprite, points[i][0], points[i][1], half, part.sole)


def draw_shadow(canvas: Canvas, foot: tuple[float, float], half: float, strength: float) -> None:
    """Draws a soft dark spot on the ground. half: half width, pixels."""
    sprite = np.zeros((*_SHADOW.shape, 4), np.float32)
    sprite[..., 3] = _SHADOW * strength
    _stamp(canvas, sprite, [foot[0], foot[1] - 0.28 * half], [foot[0], foot[1] + 0.28 * half], half, False)


_SHADOW = np.clip(1 - np.hypot(*np.meshgrid(np.linspace(-1.1, 1.1, 24), np.linspace(-1.1, 1.1, 24))), 0, 1).astype(
    np.float32
)


def _stamp(
    canvas: Canvas, sprite: Canvas, start: list[float], end: list[float], half: float, x_axis_down: bool
) -> None:
    """Warps `sprite` (h, w, 4: color times cover, cover) so that its axis is start .. end, and blends it over."""
    height, width = sprite.shape[:2]
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    length = math.hypot(along_x, along_y)
    if length < 1.0:  # seen along its axis
        along_x, along_y, length = 0.0, 1.0, 1.0
    side_x, side_y = along_y / length * half, -along_x / length * half
    if x_axis_down and side_y < 0:
        side_x, side_y = -side_x, -side_y
    reach = 1 + _MARGIN
    step_x = 2 * reach / width
    step_t = (1 + 2 * _MARGIN) / height
    a, b = side_x * step_x, along_x * step_t
    c, d = side_y * step_x, along_y * step_t
    origin_x = start[0] - side_x * (reach - step_x / 2) - along_x * (_MARGIN - step_t / 2)
    origin_y = start[1] - side_y * (reach - step_x / 2) - along_y * (_MARGIN - step_t / 2)
    wide_x, high_x, wide_y, high_y = a * width, b * height, c * width, d * height
    left = max(0, math.floor(origin_x + min(0, wide_x) + min(0, high_x)))
    top = max(0, math.floor(origin_y + min(0, wide_y) + min(0, high_y)))
    right = min(canvas.shape[1], math.ceil(origin_x + max(0, wide_x) + max(0, high_x)) + 1)
    bottom = min(canvas.shape[0], math.ceil(origin_y + max(0, wide_y) + max(0, high_y)) + 1)
    if left >= right or top >= bottom:
        return
    matrix = np.array([[a, b, origin_x - left], [c, d, origin_y - top]])
    warped = cv2.warpAffine(sprite, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    keep = 1 - cv2.extractChannel(warped, 3)
    under = canvas[top:bottom, left:right]
    under *= cv2.merge([keep, keep, keep, keep])
    under += warped
