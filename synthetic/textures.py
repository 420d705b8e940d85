"""The textures of one person: clothes, skin, hair and bag; see `synthetic.cloth` for their format."""

from dataclasses import dataclass

import cv2
import numpy as np

from schemas.arrays import Bools, Singles
from synthetic.cloth import (
    ANGLE,
    BAG_ROWS,
    COLUMNS,
    FRONT,
    HEAD_ROWS,
    LIMB_ROWS,
    TORSO_ROWS,
    Texture,
    cloth,
    padded,
    paint,
    row_fraction,
    shaded,
)
from synthetic.pedestrians import Person, Rgb


@dataclass(frozen=True)
class Looks:
    """All textures of one person, padded for drawing: float32 (rows * PADDED, 4), the last channel 1.

    `right_leg` and `left_leg` go from hip to ankle in 2 * LIMB_ROWS rows.
    """

    person: Person
    torso: Texture
    skirt: Texture | None
    upper_arm: Texture
    forearm: Texture
    right_leg: Texture
    left_leg: Texture
    head: Texture
    hair: Texture
    hat: Texture
    neck: Texture
    shoe: Texture
    bag: Texture


def dress(person: Person) -> Looks:
    """The textures of `person`. Deterministic. Takes about 2 ms: reuse the result for all pictures of the person."""
    rng = np.random.default_rng([person.cloth, 1])
    right_leg, left_leg = _leg(person, rng, 1), _leg(person, rng, -1)
    upper_arm, forearm = _arm(person, rng)
    skirt = _skirt(person, rng)
    return Looks(
        person=person,
        torso=padded(_torso(person, rng)),
        skirt=None if skirt is None else padded(skirt),
        upper_arm=padded(upper_arm),
        forearm=padded(forearm),
        right_leg=padded(right_leg),
        left_leg=padded(left_leg),
        head=padded(_head(person, rng)),
        hair=padded(cloth(person.hair_color, HEAD_ROWS, rng, folds=0.10, grain=0.10)),
        hat=padded(cloth(person.hat_color, HEAD_ROWS, rng)),
        neck=padded(cloth(person.scarf_color if person.scarf else shaded(person.skin, 0.86), LIMB_ROWS, rng)),
        shoe=padded(_shoe(person, rng)),
        bag=padded(_bag(person, rng)),
    )


def _garment(person: Person, rows: int, rng: np.random.Generator, color: Rgb, length: float) -> Texture:
    """An upper garment with a pattern all round. length: of the part in torso lengths, so that stripes are equal."""
    texture = cloth(color, rows, rng)
    t, scale = row_fraction(rows) * length, person.pattern_scale
    across = np.broadcast_to(ANGLE[None], texture.shape[:2])
    along = np.broadcast_to(t, texture.shape[:2])
    hoop = np.mod(along * (4 + 7 * scale), 1) < 0.36 + 0.2 * scale
    bar = np.mod(across * (4 + round(5 * scale)) / np.pi, 1) < 0.34
    if person.pattern == "hoops":
        paint(texture, hoop, person.second_color)
    elif person.pattern == "bars":
        paint(texture, bar, person.second_color)
    elif person.pattern == "checks":
        paint(texture, hoop, person.second_color, 0.55)
        paint(texture, bar, person.second_color, 0.55)
    elif person.pattern == "blocks":
        paint(texture, along > 0.38 + 0.3 * scale, person.second_color)
    elif person.pattern == "bands":
        paint(texture, (np.abs(along - 0.5) < 0.045) | (np.abs(along - 0.72) < 0.045), (214, 218, 206))
    elif person.pattern == "spots":
        paint(texture, _spots(rows, np.random.default_rng([person.motif, 2]), scale), person.second_color)
    return texture


def _spots(rows: int, rng: np.random.Generator, scale: float) -> Bools:
    cells = round(7 + 8 * (1 - scale))
    noise = cv2.resize(rng.normal(0, 1, (cells, cells)), (COLUMNS, rows), interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise > 0.55)


def _torso(person: Person, rng: np.random.Generator) -> Texture:
    """From the shoulders to the hem: at the hips, or at mid-thigh for a coat."""
    rows, upper = TORSO_ROWS, person.upper
    base = person.lower_color if person.lower == "dress" else person.upper_color
    texture = _garment(person, rows, rng, base, 1.0)
    t = row_fraction(rows)
    front = np.broadcast_to(FRONT[None], texture.shape[:2])
    hip = 0.62 if upper == "coat" else 1.0  # row fraction of the hips
    _print(person, texture, t)
    if upper in ("jacket", "coat", "vest") and person.lower != "dress":
        if person.is_open:
            paint(texture, front < 0.20 + 0.34 * np.clip(1 - t / hip, 0, 1) + 0.06 * t, person.inner_color)
            paint(texture, np.abs(front - (0.27 + 0.34 * np.clip(1 - t / hip, 0, 1))) < 0.07, shaded(base, 0.6))
        else:
            paint(texture, (front < 0.05) & (t > 0.05), shaded(base, 0.45))
        paint(texture, (t < 0.08) & (front < 2.2), shaded(base, 0.75))
        paint(texture, (np.abs(t - 0.72 * hip) < 0.012) & (np.abs(front - 0.62) < 0.22), shaded(base, 0.55))
    elif upper == "hoodie":
        paint(texture, (t < 0.20 - 0.05 * (np.pi - front)) & (front > 1.5), shaded(base, 0.72))
        pocket = (t > 0.66) & (t < 0.88) & (front < 0.75)
        paint(texture, pocket, shaded(base, 0.88))
        paint(texture, pocket & (front > 0.66), shaded(base, 0.6))
        paint(texture, (t < 0.22) & (np.abs(front - 0.16) < 0.045), (226, 224, 220))
    elif upper == "sweater":
        paint(texture, t < 0.055, shaded(base, 0.7))
    else:
        paint(texture, t < 0.11 - 0.14 * front, person.skin)
    if upper == "coat" and person.motif % 2:
        paint(texture, np.broadcast_to(np.abs(t - 0.5) < 0.025, front.shape), shaded(base, 0.5))
    if upper != "coat" and person.lower != "dress":
        paint(texture, np.broadcast_to(t > 0.965, front.shape), shaded(base, 0.7))
    if person.scarf:
        paint(texture, (t < 0.09) | ((t < 0.42) & (np.abs(ANGLE[None] - 0.18) < 0.16)), person.scarf_color)
    _straps(person, texture, t)
    return texture


def _print(person: Person, texture: Texture, t: Singles) -> None:
    """Paints a large motif on the chest ("print"), or a small one there and often one on the back ("logo")."""
    if person.pattern not in ("print", "logo") or person.lower == "dress":
        return
    rng = np.random.default_rng([person.motif, 3])
    kind, wide, cells = int(rng.integers(5)), float(rng.uniform(0.5, 0.85)), rng.random((5, 3))

    def stamp(middle: float, half: float, top: float, bottom: float, color: Rgb) -> None:
        x = np.mod(ANGLE[None] - middle + np.pi, 2 * np.pi) - np.pi
        x, y = np.broadcast_arrays(x / half, (2 * t - top - bottom) / (bottom - top))
        inside = (np.abs(x) < 1) & (np.abs(y) < 1)
        if kind == 0:
            shape = x * x + y * y < 1
        elif kind == 1:
            shape = inside & (np.mod((y + 1) * 1.5, 1) < 0.6) & (np.abs(x) < 0.75 + 0.25 * np.sin(7 * y))
        elif kind == 2:
            shape = inside & (np.abs(x) < (y + 1) / 2)
        elif kind == 3:
            shape = inside & ((np.abs(x) > 0.66) | (np.abs(y) > 0.66) | (np.abs(x) + np.abs(y) < 0.5))
        else:  # a symmetric badge of square cells
            column = np.minimum((np.abs(x) * 3).astype(int), 2)
            row = np.clip(((y + 1) * 2.5).astype(int), 0, 4)
            shape = inside & (cells[row, column] > 0.42)
        paint(texture, shape, color)

    if person.pattern == "print":
        stamp(0.0, wide, 0.2, 0.2 + 0.45 * wide, person.second_color)
    else:
        stamp(-0.5, 0.17, 0.2, 0.31, person.second_color)
        if person.motif % 3:
            stamp(np.pi, wide, 0.17, 0.17 + 0.35 * wide, person.second_color)


def _straps(person: Person, texture: Texture, t: Singles) -> None:
    strap = shaded(person.bag_color, 0.8)
    side = 1.0 if person.bag_right else -1.0
    angle = np.broadcast_to(ANGLE[None], texture.shape[:2])
    if person.bag == "backpack":
        paint(texture, (t < 0.62) & (np.abs(FRONT[None] - 0.62) < 0.11), strap)
    elif person.bag == "crossbody":
        line = -0.8 + 2.0 * t  # in front, from the far shoulder to the hip with the bag; mirrored behind
        behind = np.mod(np.pi - side * angle + np.pi, 2 * np.pi) - np.pi
        paint(texture, (np.abs(side * angle - line) < 0.11) | (np.abs(behind - line) < 0.11), strap)
    elif person.bag == "shoulder":
        paint(texture, (t < 0.6) & (np.abs(np.abs(side * angle - np.pi / 2) - 0.55) < 0.09), strap)


def _skirt(person: Person, rng: np.random.Generator) -> Texture | None:
    if person.lower not in ("skirt", "dress"):
        return None
    texture = cloth(person.lower_color, LIMB_ROWS, rng, folds=0.05)
    texture *= (1 + 0.10 * np.sin(ANGLE * 7 + 1))[None, :, None].astype(np.float32)
    if person.lower == "dress" and person.pattern in ("hoops", "spots", "bars", "checks"):
        texture = _garment(person, LIMB_ROWS, rng, person.lower_color, 0.8)
    return texture


def _arm(person: Person, rng: np.random.Generator) -> tuple[Texture, Texture]:
    """Upper arm, and forearm with the hand; the same for both arms. Short sleeves end above the elbow."""
    sleeve = {"vest": person.inner_color}.get(person.upper, person.sleeve_color)
    if person.lower == "dress":
        sleeve = person.lower_color
    pattern_goes_on = person.pattern in ("hoops", "spots", "checks") and person.upper != "vest"
    upper = _garment(person, LIMB_ROWS, rng, sleeve, 0.55) if pattern_goes_on else cloth(sleeve, LIMB_ROWS, rng)
    lower = _garment(person, LIMB_ROWS, rng, sleeve, 0.5) if pattern_goes_on else cloth(sleeve, LIMB_ROWS, rng)
    skin = cloth(person.skin, LIMB_ROWS, rng, folds=0.03, grain=0.01)
    t = row_fraction(LIMB_ROWS)[:, 0]
    if person.upper == "tshirt" or person.lower == "dress":
        upper[t > 0.72] = skin[t > 0.72]
        lower = skin
    else:
        paint(lower, np.broadcast_to(((t > 0.72) & (t < 0.79))[:, None], lower.shape[:2]), shaded(sleeve, 0.65))
        lower[t >= 0.79] = skin[t >= 0.79]
    return upper, lower


def _leg(person: Person, rng: np.random.Generator, side: int) -> Texture:
    """From hip to ankle. side: 1 for the right leg, -1 for the left."""
    rows = 2 * LIMB_ROWS
    t = np.broadcast_to(row_fraction(rows), (rows, COLUMNS))
    skin = cloth(person.skin, rows, rng, folds=0.03, grain=0.012)
    if person.lower in ("skirt", "dress"):
        if person.motif % 3 == 0:
            skin = cloth((40, 38, 42), rows, rng, folds=0.03)  # tights
        return skin
    texture = cloth(person.lower_color, rows, rng)
    worn = np.exp(-(((t - 0.3) / 0.16) ** 2)) * np.exp(-((FRONT[None] / 0.7) ** 2))
    texture *= (1 + 0.16 * worn)[..., None].astype(np.float32)
    paint(texture, np.abs(t - 0.52) < 0.014, shaded(person.lower_color, 0.72))
    if person.side_stripe:
        paint(texture, np.broadcast_to(np.abs(ANGLE[None] * side - np.pi / 2) < 0.34, t.shape), person.sole_color)
    if person.lower == "shorts":
        bare = t > 0.5
        texture[bare] = skin[bare]
        if person.motif % 2:
            paint(texture, t > 0.86, person.sole_color)  # socks
    else:
        paint(texture, t > 0.965, shaded(person.lower_color, 0.6))
    return texture


def _head(person: Person, rng: np.random.Generator) -> Texture:
    """From crown to chin: face in front, hair and hat around it."""
    rows = HEAD_ROWS
    head = cloth(person.skin, rows, rng, folds=0.02, grain=0.012)
    t = np.broadcast_to(row_fraction(rows), (rows, COLUMNS))
    front = np.broadcast_to(FRONT[None], t.shape)
    eyes = (np.abs(front - 0.42) < 0.16) & (np.abs(t - 0.50) < 0.04)
    paint(head, eyes, (38, 28, 26), 0.85)
    paint(head, (np.abs(front - 0.42) < 0.25) & (np.abs(t - 0.415) < 0.025), person.hair_color, 0.8)
    paint(head, (front < 0.1) & (t > 0.5) & (t < 0.67), shaded(person.skin, 1.08))
    paint(head, (front < 0.16) & (np.abs(t - 0.67) < 0.02), shaded(person.skin, 0.7))
    paint(head, (front < 0.3) & (np.abs(t - 0.79) < 0.03), (146, 66, 62), 0.8)
    paint(head, (np.abs(front - 1.6) < 0.2) & (np.abs(t - 0.55) < 0.09), shaded(person.skin, 0.78))
    if person.beard:
        paint(head, (t > 0.66) & (front < 1.35) & ~((front < 0.3) & (np.abs(t - 0.79) < 0.03)), person.hair_color, 0.8)
    if person.glasses:
        paint(head, (np.abs(t - 0.50) < 0.06) & (np.abs(front - 0.42) < 0.27), (22, 22, 26), 0.7)
        paint(head, (np.abs(t - 0.47) < 0.03) & (front < 1.5), (22, 22, 26), 0.8)
    if person.hair == "bald":
        paint(head, (t < 0.55) & (front > 1.9), person.hair_color, 0.15)
    else:
        low = 0.62 if person.hair in ("short", "bun", "tail") else 0.95
        edge = np.interp(FRONT, [0.0, 0.8, 1.15, 1.6, 2.0, np.pi], [0.27, 0.32, 0.45, 0.52, low + 0.06, low + 0.14])
        paint(head, t < edge[None] + rng.normal(0, 0.015, (1, COLUMNS)), person.hair_color)
    if person.hat == "hood":
        paint(head, (front > 0.85) | (t < 0.2), person.hat_color)
        paint(head, (np.abs(front - 0.85) < 0.1) & (t > 0.2), shaded(person.hat_color, 0.6))
    elif person.hat != "none":
        paint(head, t < (0.40 if person.hat == "beanie" else 0.34), person.hat_color)
        paint(head, np.abs(t - (0.37 if person.hat == "beanie" else 0.33)) < 0.03, shaded(person.hat_color, 0.72))
    return head


def _shoe(person: Person, rng: np.random.Generator) -> Texture:
    """From heel to toe. Drawn from the side: the x axis of its sprite points down, see `skeleton.Part.sole`."""
    shoe = cloth(person.shoe_color, LIMB_ROWS, rng, folds=0.04)
    paint(shoe, np.broadcast_to((ANGLE < -0.4)[None], shoe.shape[:2]), person.sole_color)
    paint(shoe, np.broadcast_to((ANGLE > -0.45)[None] & (ANGLE < -0.3)[None], shoe.shape[:2]), (20, 20, 20), 0.5)
    return shoe


def _bag(person: Person, rng: np.random.Generator) -> Texture:
    bag = cloth(person.bag_color, BAG_ROWS, rng, folds=0.05)
    t = np.broadcast_to(row_fraction(BAG_ROWS), bag.shape[:2])
    away = np.pi - np.broadcast_to(FRONT[None], t.shape)  # angle from the side that faces away from the body
    paint(bag, (t > 0.52) & (t < 0.9) & (away < 0.85), shaded(person.bag_color, 0.8))
    paint(bag, (np.abs(t - 0.54) < 0.025) & (away < 0.85), shaded(person.bag_color, 1.35))
    paint(bag, np.abs(t - 0.1) < 0.025, shaded(person.bag_color, 0.55))
    if person.motif % 4 == 0:
        paint(bag, (np.abs(t - 0.3) < 0.07) & (away < 0.3), person.second_color)
    return bag
