"""Textures that go once round a body part, and how they are colored.

A texture is float32 (rows, COLUMNS, 3), RGB 0..255. Its rows go along the part from the top. Its columns are the angle
round the body, from -pi through 0 (the front) and pi/2 (the person's right) to pi: what a camera sees of a print, an
open jacket or a face follows from its viewing angle.
"""

import cv2
import numpy as np
import numpy.typing as npt

from schemas.arrays import Bools, Singles
from synthetic.pedestrians import Rgb

Texture = npt.NDArray[np.float32]

COLUMNS = 64
#: Columns of a padded texture: a quarter turn more on both sides.
PADDED = COLUMNS + COLUMNS // 2
#: Angle at the middle of each column, radians, and its distance from the front.
ANGLE = ((np.arange(COLUMNS) + 0.5) / COLUMNS * 2 - 1).astype(np.float32) * np.float32(np.pi)
FRONT = np.abs(ANGLE)

TORSO_ROWS, LIMB_ROWS, HEAD_ROWS, BAG_ROWS = 56, 32, 32, 28


def cloth(color: Rgb, rows: int, rng: np.random.Generator, folds: float = 0.07, grain: float = 0.035) -> Texture:
    """One color with soft folds and grain; `folds` and `grain` are standard deviations of the brightness."""
    soft = cv2.resize(rng.normal(0, 1, (max(3, rows // 7), 9)), (COLUMNS, rows), interpolation=cv2.INTER_CUBIC)
    light = 1 + folds * soft + grain * rng.normal(0, 1, (rows, COLUMNS))
    texture: Texture = np.clip(light[..., None] * np.array(color), 2, 253).astype(np.float32)
    return texture


def paint(texture: Texture, where: Bools, color: Rgb, cover: float = 1.0) -> None:
    """Colors the texture in place where `where` (rows, COLUMNS) is true; keeps a part of its light and dark."""
    where = np.broadcast_to(where, texture.shape[:2])
    old = texture[where]
    light = old.mean(axis=1, keepdims=True)
    mean = float(light.mean()) if light.size else 1.0
    texture[where] = old * (1 - cover) + cover * np.array(color, np.float32) * (0.7 + 0.3 * light / max(mean, 1.0))


def shaded(color: Rgb, factor: float) -> Rgb:
    """The color with its brightness multiplied."""
    red, green, blue = color
    return red * factor, green * factor, blue * factor


def row_fraction(rows: int) -> Singles:
    """(rows, 1) Position of each row's middle from the top, 0..1."""
    return ((np.arange(rows) + 0.5) / rows).astype(np.float32)[:, None]


def padded(texture: Texture) -> Texture:
    """(rows * PADDED, 4) The texture with a quarter turn more on both sides, flat, and a fourth channel of 1."""
    quarter = COLUMNS // 4
    wide = np.ones((texture.shape[0], PADDED, 4), np.float32)
    wide[..., :3] = np.concatenate([texture[:, -quarter:], texture, texture[:, :quarter]], axis=1)
    flat: Texture = wide.reshape(-1, 4)
    return flat
