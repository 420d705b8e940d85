"""A walking figure, drawn: a skeleton in three dimensions whose parts are round and wear wrap-around textures.

Body frame in meters, origin on the ground between the feet: x to the person's right, y forward, z up. `yaw` is the
angle from where the person faces to where the camera stands, towards the person's right: 0 is seen from the front,
pi/2 shows the right side, pi the back. A part is drawn as a sprite (the visible half of its texture, shaded), warped
onto the picture, far parts first.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from synthetic.textures import COLUMNS, LIMB_ROWS, PADDED, Looks, Texture

Canvas = npt.NDArray[np.float32]

#: Half width of each shape along its axis, as points (t, r): t = 0 at its first end, r = 1 at its widest.
_PROFILES: dict[str, tuple[tuple[float, float], ...]] = {
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
#: Height and width of each shape's sprite, pixels, about as large as it gets on a canvas 192 px high.
_SPRITE: dict[str, tuple[int, int]] = {
    "torso": (56, 40), "coat": (72, 40), "skirt": (36, 36), "thigh": (40, 20), "shin": (40, 16), "arm": (32, 14),
    "forearm": (32, 12), "neck": (10, 12), "head": (28, 24), "ball": (16, 20), "hair": (28, 24), "box": (40, 28),
    "shoe": (28, 14),
}  # fmt: skip
_MARGIN = 0.08  # sprites reach beyond their shape by this share, so that edges fade


@dataclass(frozen=True)
class Pose:
    yaw: float
    phase: float  # of the gait, radians; a full turn is two steps
    swing: float  # 1 at walking pace, 0 standing


@dataclass(frozen=True)
class Light:
    """From where the light comes, on the picture: -1 left .. 1 right; and how much is left in the shade, 0..1."""

    side: float
    ambient: float


@dataclass(frozen=True)
class _Part:
    shape: str
    texture: Texture
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    wide: float  # half width, meters
    deep: float  # half depth, meters; equal to `wide` for limbs
    nearer: float = 0.0  # added to the depth that orders the parts, meters
    sole: bool = False  # a shoe: its sprite's x axis points down


@lru_cache(maxsize=512)
def _sampling(shape: str, texture_rows: int, light: Light) -> tuple[npt.NDArray[np.intp], Canvas]:
    """For a shape's sprite: the flat index into a padded texture, and light times cover, (h, w, 4)."""
    height, width = _SPRITE[shape]
    t = (np.arange(height) + 0.5) / height * (1 + 2 * _MARGIN) - _MARGIN
    x = ((np.arange(width) + 0.5) / width * 2 - 1) * (1 + _MARGIN)
    profile = np.array(_PROFILES[shape])
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
    """Draw onto `canvas` (h, w, 4) float32 in place: RGB 0..255, and a fourth channel that is left undefined.

    foot: pixel (x, y) of the body frame's origin. pitch: how far down the camera looks, radians.
    """
    parts = _parts(looks, pose)
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
    """A soft dark spot on the ground."""
    sprite = np.zeros((*_SHADOW.shape, 4), np.float32)
    sprite[..., 3] = _SHADOW * strength
    _stamp(canvas, sprite, [foot[0], foot[1] - 0.28 * half], [foot[0], foot[1] + 0.28 * half], half, False)


_SHADOW = np.clip(1 - np.hypot(*np.meshgrid(np.linspace(-1.1, 1.1, 24), np.linspace(-1.1, 1.1, 24))), 0, 1).astype(
    np.float32
)


def _stamp(
    canvas: Canvas, sprite: Canvas, start: list[float], end: list[float], half: float, x_axis_down: bool
) -> None:
    """Warp `sprite` (h, w, 4; color times cover, cover) so that its axis runs from `start` to `end`; lay it over."""
    height, width = sprite.shape[:2]
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    length = math.hypot(along_x, along_y)
    if length < 1.0:  # seen end on
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


def _parts(looks: Looks, pose: Pose) -> list[_Part]:
    """The skeleton in its pose, dressed."""
    person = looks.person
    k = person.height_m / 1.75
    build = person.build
    hip_z = person.leg_share * person.height_m
    shoulder_z, head_z = 0.835 * person.height_m, 0.925 * person.height_m
    swing = person.stride * pose.swing
    bob = -0.018 * pose.swing * abs(math.sin(pose.phase))
    hip_z, shoulder_z, head_z = hip_z + bob, shoulder_z + bob, head_z + bob
    lean = 0.035 * k * pose.swing
    thigh = person.leg_share * person.height_m * 0.47
    shin = person.leg_share * person.height_m - thigh - 0.075 * k
    half_shoulder, half_hip = 0.205 * k * (0.55 + 0.45 * build), 0.165 * k * build
    loose = {"coat": 1.12, "jacket": 1.10, "hoodie": 1.09, "vest": 1.08, "sweater": 1.03}.get(person.upper, 1.0)
    parts: list[_Part] = []

    def add(shape: str, texture: Texture, start: tuple[float, float, float], end: tuple[float, float, float],
            wide: float, deep: float | None = None, nearer: float = 0.0, sole: bool = False) -> None:  # fmt: skip
        parts.append(_Part(shape, texture, start, end, wide, wide if deep is None else deep, nearer, sole))

    slim = 1.0 if person.lower in ("trousers", "shorts") else 0.86
    for side, leg in ((1, looks.right_leg), (-1, looks.left_leg)):
        phase = pose.phase if side == 1 else pose.phase + math.pi
        angle = swing * math.sin(phase)
        bend = pose.swing * (0.12 + 0.85 * max(0.0, math.cos(phase)) ** 2 * (0.6 + 0.4 * math.cos(phase)))
        hip_x = side * half_hip * 0.52
        knee = (hip_x, thigh * math.sin(angle), hip_z - thigh * math.cos(angle))
        below = angle - bend
        ankle = (hip_x * 0.9, knee[1] + shin * math.sin(below), knee[2] - shin * math.cos(below))
        half = LIMB_ROWS * PADDED
        add("thigh", leg[:half], (hip_x, 0.0, hip_z + 0.07 * k), (knee[0], knee[1], knee[2] - 0.02 * k),
            0.088 * k * build * slim)  # fmt: skip
        add("shin", leg[half:], (knee[0], knee[1], knee[2] + 0.025 * k), ankle, 0.064 * k * (0.4 + 0.6 * build) * slim)
        tip = min(0.0, below + 0.25) * 0.8  # the toes point down behind the body
        toe = (
            ankle[0] + side * 0.02,
            ankle[1] + 0.19 * k * math.cos(tip),
            ankle[2] - 0.045 * k + 0.19 * k * math.sin(tip),
        )
        add("shoe", looks.shoe, (ankle[0], ankle[1] - 0.075 * k, ankle[2] - 0.03 * k), toe, 0.05 * k, sole=True)
        arm_angle = -0.85 * swing * math.sin(phase)
        shoulder = (side * (half_shoulder - 0.035 * k), lean, shoulder_z - 0.035 * k)
        spread = side * (0.045 + 0.03 * (loose - 1) * 10) * k
        elbow = (shoulder[0] + spread, shoulder[1] + 0.29 * k * math.sin(arm_angle), shoulder[2] - 0.285 * k)
        fore = arm_angle + 0.22 + 0.25 * pose.swing * max(0.0, arm_angle)
        wrist = (elbow[0] - spread * 0.2, elbow[1] + 0.33 * k * math.sin(fore), elbow[2] - 0.33 * k * math.cos(fore))
        thick = 0.054 * k * (0.45 + 0.55 * build) * loose
        add("arm", looks.upper_arm, shoulder, (elbow[0], elbow[1], elbow[2] - 0.02 * k), thick, nearer=0.06)
        add("forearm", looks.forearm, (elbow[0], elbow[1], elbow[2] + 0.02 * k), wrist, thick * 0.84, nearer=0.07)
        if person.bag == "hand" and side == (1 if person.bag_right else -1):
            add("box", looks.bag, (wrist[0], wrist[1], wrist[2] + 0.03), (wrist[0], wrist[1], wrist[2] - 0.3 * k),
                0.055 * k, 0.17 * k, nearer=0.08)  # fmt: skip

    hem = hip_z - (0.30 * k if person.upper == "coat" else 0.06 * k)
    if looks.skirt is not None:
        skirt_end = hip_z - (0.40 + 0.1 * person.pattern_scale) * k
        add("skirt", looks.skirt, (0, 0, hip_z + 0.12 * k), (0, 0, skirt_end), 0.24 * k * build, 0.2 * k * build, 0.18)
    wide = max(half_shoulder, half_hip * 1.02) * loose
    add("coat" if person.upper == "coat" else "torso", looks.torso, (0, lean, shoulder_z + 0.045 * k), (0, 0, hem),
        wide, 0.125 * k * build * loose, nearer=0.21 if person.upper == "coat" else 0.2)  # fmt: skip
    _add_head(add, looks, k, lean, shoulder_z, head_z)
    side = 1 if person.bag_right else -1
    if person.bag == "backpack":
        add("box", looks.bag, (0, lean - 0.20 * k, shoulder_z - 0.01), (0, -0.19 * k, shoulder_z - 0.45 * k),
            0.155 * k, 0.10 * k, nearer=0.06)  # fmt: skip
    elif person.bag in ("shoulder", "crossbody"):
        x = side * (half_hip + 0.07 * k)
        add("box", looks.bag, (x, -0.02, hip_z + 0.16 * k), (x, -0.02, hip_z - 0.12 * k), 0.06 * k, 0.16 * k, 0.08)
    return parts


def _add_head(add: Any, looks: Looks, k: float, lean: float, shoulder_z: float, head_z: float) -> None:
    """Neck, head, and what stands or hangs from it."""
    person = looks.person
    y = lean + 0.02 * k
    top, chin = head_z + 0.125 * k, head_z - 0.115 * k
    neck = 0.085 if person.scarf else 0.055
    add("neck", looks.neck, (0, lean, chin + 0.05 * k), (0, lean, shoulder_z + 0.01), neck * k, nearer=0.202)
    add("head", looks.head, (0, y, top), (0, y, chin), 0.083 * k, 0.098 * k, 0.215)
    hatless = person.hat in ("none", "cap")
    if person.hat == "hood":
        add(
            "hair",
            looks.hat,
            (0, y - 0.045 * k, top + 0.03 * k),
            (0, y - 0.05 * k, chin - 0.06 * k),
            0.115 * k,
            0.1 * k,
            0.214,
        )
    elif person.hair == "long":
        add(
            "hair",
            looks.hair,
            (0, y - 0.05 * k, top - 0.05 * k),
            (0, y - 0.075 * k, chin - 0.17 * k),
            0.1 * k,
            0.07 * k,
            0.214,
        )
    elif person.hair == "bob":
        add(
            "hair",
            looks.hair,
            (0, y - 0.035 * k, top - 0.03 * k),
            (0, y - 0.04 * k, chin - 0.01 * k),
            0.107 * k,
            0.095 * k,
            0.214,
        )
    elif person.hair == "afro" and person.hat == "none":
        add(
            "ball",
            looks.hair,
            (0, y - 0.03 * k, top + 0.07 * k),
            (0, y - 0.03 * k, chin + 0.03 * k),
            0.15 * k,
            0.14 * k,
            0.214,
        )
    elif person.hair == "bun" and hatless:
        add(
            "ball",
            looks.hair,
            (0, y - 0.09 * k, top + 0.04 * k),
            (0, y - 0.1 * k, top - 0.07 * k),
            0.055 * k,
            0.055 * k,
            0.214,
        )
    elif person.hair == "tail":
        add(
            "hair",
            looks.hair,
            (0, y - 0.11 * k, top - 0.07 * k),
            (0, y - 0.13 * k, chin - 0.13 * k),
            0.04 * k,
            0.04 * k,
            0.214,
        )
    if person.hat == "cap":
        brim = head_z + 0.04 * k
        add(
            "ball",
            looks.hat,
            (0, y + 0.1 * k, brim + 0.02 * k),
            (0, y + 0.1 * k, brim - 0.02 * k),
            0.07 * k,
            0.075 * k,
            0.216,
        )
    elif person.hat == "brim":
        brim = head_z + 0.045 * k
        add("ball", looks.hat, (0, y, brim + 0.03 * k), (0, y, brim - 0.025 * k), 0.165 * k, 0.165 * k, 0.217)
        add("box", looks.hat, (0, y, top + 0.035 * k), (0, y, brim), 0.085 * k, 0.095 * k, 0.218)
