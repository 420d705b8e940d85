"""Cloth, skin, hair and bags as textures that go once round a body part.

A texture is float32 (rows, COLUMNS, 3), RGB 0..255. Its rows go along the part from the top; its columns are the
angle round the body, from -pi through 0 (the front) and pi/2 (the person's right) to pi. So what a camera sees of a
print, an open jacket or a face follows from the angle it looks from, see `synthetic.figure`.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from synthetic.pedestrians import Person, Rgb

Texture = npt.NDArray[np.float32]

COLUMNS = 64
#: Columns of a padded texture: a quarter turn more on both sides.
PADDED = COLUMNS + COLUMNS // 2
#: Angle of each column's middle, radians.
ANGLE = ((np.arange(COLUMNS) + 0.5) / COLUMNS * 2 - 1).astype(np.float32) * np.float32(np.pi)
FRONT = np.abs(ANGLE)  # angle away from the front

TORSO_ROWS, LIMB_ROWS, HEAD_ROWS, BAG_ROWS = 56, 32, 32, 28


@dataclass(frozen=True)
class Looks:
    """All textures of one person, padded for drawing: float32 (rows * PADDED, 4), the last channel 1.

    `right_leg` and `left_leg` run from hip to ankle over 2 * LIMB_ROWS rows.
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
    """The textures of `person`. Deterministic; about 2 ms, so keep the result for all pictures of the person."""
    rng = np.random.default_rng([person.cloth, 1])
    right_leg, left_leg = _leg(person, rng, 1), _leg(person, rng, -1)
    upper_arm, forearm = _arm(person, rng)
    skirt = _skirt(person, rng)
    return Looks(
        person=person,
        torso=_padded(_torso(person, rng)),
        skirt=None if skirt is None else _padded(skirt),
        upper_arm=_padded(upper_arm),
        forearm=_padded(forearm),
        right_leg=_padded(right_leg),
        left_leg=_padded(left_leg),
        head=_padded(_head(person, rng)),
        hair=_padded(_cloth(person.hair_color, HEAD_ROWS, rng, folds=0.10, grain=0.10)),
        hat=_padded(_cloth(person.hat_color, HEAD_ROWS, rng)),
        neck=_padded(_cloth(person.scarf_color if person.scarf else _shade(person.skin, 0.86), LIMB_ROWS, rng)),
        shoe=_padded(_shoe(person, rng)),
        bag=_padded(_bag(person, rng)),
    )


def _padded(texture: Texture) -> Texture:
    """Flat rows of PADDED pixels with a fourth channel of 1."""
    quarter = COLUMNS // 4
    wide = np.ones((texture.shape[0], PADDED, 4), np.float32)
    wide[..., :3] = np.concatenate([texture[:, -quarter:], texture, texture[:, :quarter]], axis=1)
    flat: Texture = wide.reshape(-1, 4)
    return flat


def _shade(color: Rgb, factor: float) -> Rgb:
    red, green, blue = color
    return red * factor, green * factor, blue * factor


def _cloth(color: Rgb, rows: int, rng: np.random.Generator, folds: float = 0.07, grain: float = 0.035) -> Texture:
    """One color with folds (soft, slanting) and grain."""
    soft = cv2.resize(rng.normal(0, 1, (max(3, rows // 7), 9)), (COLUMNS, rows), interpolation=cv2.INTER_CUBIC)
    light = 1 + folds * soft + grain * rng.normal(0, 1, (rows, COLUMNS))
    cloth: Texture = np.clip(light[..., None] * np.array(color), 2, 253).astype(np.float32)
    return cloth


def _down(rows: int) -> npt.NDArray[np.float32]:
    """How far down each row's middle lies, 0..1, as a column vector."""
    return ((np.arange(rows) + 0.5) / rows).astype(np.float32)[:, None]


def _paint(texture: Texture, where: npt.NDArray[np.bool_], color: Rgb, cover: float = 1.0) -> None:
    """Color the places of `where` (rows, COLUMNS), keeping the cloth's light and dark a little."""
    where = np.broadcast_to(where, texture.shape[:2])
    old = texture[where]
    light = old.mean(axis=1, keepdims=True)
    mean = float(light.mean()) if light.size else 1.0
    texture[where] = old * (1 - cover) + cover * np.array(color, np.float32) * (0.7 + 0.3 * light / max(mean, 1.0))


def _garment(person: Person, rows: int, rng: np.random.Generator, color: Rgb, length: float) -> Texture:
    """Upper cloth with the pattern that goes all round. length: of the part, in torso lengths, keeps stripes alike."""
    cloth = _cloth(color, rows, rng)
    t, scale = _down(rows) * length, person.pattern_scale
    across = np.broadcast_to(ANGLE[None], cloth.shape[:2])
    along = np.broadcast_to(t, cloth.shape[:2])
    hoop = np.mod(along * (4 + 7 * scale), 1) < 0.36 + 0.2 * scale
    bar = np.mod(across * (4 + round(5 * scale)) / np.pi, 1) < 0.34
    if person.pattern == "hoops":
        _paint(cloth, hoop, person.second_color)
    elif person.pattern == "bars":
        _paint(cloth, bar, person.second_color)
    elif person.pattern == "checks":
        _paint(cloth, hoop, person.second_color, 0.55)
        _paint(cloth, bar, person.second_color, 0.55)
    elif person.pattern == "blocks":
        _paint(cloth, along > 0.38 + 0.3 * scale, person.second_color)
    elif person.pattern == "bands":
        _paint(cloth, (np.abs(along - 0.5) < 0.045) | (np.abs(along - 0.72) < 0.045), (214, 218, 206))
    elif person.pattern == "spots":
        _paint(cloth, _spots(rows, np.random.default_rng([person.motif, 2]), scale), person.second_color)
    return cloth


def _spots(rows: int, rng: np.random.Generator, scale: float) -> npt.NDArray[np.bool_]:
    cells = round(7 + 8 * (1 - scale))
    noise = cv2.resize(rng.normal(0, 1, (cells, cells)), (COLUMNS, rows), interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise > 0.55)


def _torso(person: Person, rng: np.random.Generator) -> Texture:
    """From the shoulders to the hem: hips for most, mid-thigh for a coat."""
    rows, upper = TORSO_ROWS, person.upper
    base = person.lower_color if person.lower == "dress" else person.upper_color
    cloth = _garment(person, rows, rng, base, 1.0)
    t = _down(rows)
    front = np.broadcast_to(FRONT[None], cloth.shape[:2])
    hip = 0.62 if upper == "coat" else 1.0  # share of the rows above the hips
    _print(person, cloth, t)
    if upper in ("jacket", "coat", "vest") and person.lower != "dress":
        if person.is_open:
            _paint(cloth, front < 0.20 + 0.34 * np.clip(1 - t / hip, 0, 1) + 0.06 * t, person.inner_color)
            _paint(cloth, np.abs(front - (0.27 + 0.34 * np.clip(1 - t / hip, 0, 1))) < 0.07, _shade(base, 0.6))
        else:
            _paint(cloth, (front < 0.05) & (t > 0.05), _shade(base, 0.45))
        _paint(cloth, (t < 0.08) & (front < 2.2), _shade(base, 0.75))
        _paint(cloth, (np.abs(t - 0.72 * hip) < 0.012) & (np.abs(front - 0.62) < 0.22), _shade(base, 0.55))
    elif upper == "hoodie":
        _paint(cloth, (t < 0.20 - 0.05 * (np.pi - front)) & (front > 1.5), _shade(base, 0.72))
        pocket = (t > 0.66) & (t < 0.88) & (front < 0.75)
        _paint(cloth, pocket, _shade(base, 0.88))
        _paint(cloth, pocket & (front > 0.66), _shade(base, 0.6))
        _paint(cloth, (t < 0.22) & (np.abs(front - 0.16) < 0.045), (226, 224, 220))
    elif upper == "sweater":
        _paint(cloth, t < 0.055, _shade(base, 0.7))
    else:
        _paint(cloth, t < 0.11 - 0.14 * front, person.skin)
    if upper == "coat" and person.motif % 2:
        _paint(cloth, np.broadcast_to(np.abs(t - 0.5) < 0.025, front.shape), _shade(base, 0.5))
    if upper != "coat" and person.lower != "dress":
        _paint(cloth, np.broadcast_to(t > 0.965, front.shape), _shade(base, 0.7))
    if person.scarf:
        _paint(cloth, (t < 0.09) | ((t < 0.42) & (np.abs(ANGLE[None] - 0.18) < 0.16)), person.scarf_color)
    _straps(person, cloth, t)
    return cloth


def _print(person: Person, cloth: Texture, t: npt.NDArray[np.float32]) -> None:
    """A large motif on the chest ("print"), or a small one on the left chest and often one on the back ("logo")."""
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
        _paint(cloth, shape, color)

    if person.pattern == "print":
        stamp(0.0, wide, 0.2, 0.2 + 0.45 * wide, person.second_color)
    else:
        stamp(-0.5, 0.17, 0.2, 0.31, person.second_color)
        if person.motif % 3:
            stamp(np.pi, wide, 0.17, 0.17 + 0.35 * wide, person.second_color)


def _straps(person: Person, cloth: Texture, t: npt.NDArray[np.float32]) -> None:
    strap = _shade(person.bag_color, 0.8)
    side = 1.0 if person.bag_right else -1.0
    angle = np.broadcast_to(ANGLE[None], cloth.shape[:2])
    if person.bag == "backpack":
        _paint(cloth, (t < 0.62) & (np.abs(FRONT[None] - 0.62) < 0.11), strap)
    elif person.bag == "crossbody":
        line = -0.8 + 2.0 * t  # from the far shoulder to the bag's hip, in front; mirrored behind
        behind = np.mod(np.pi - side * angle + np.pi, 2 * np.pi) - np.pi
        _paint(cloth, (np.abs(side * angle - line) < 0.11) | (np.abs(behind - line) < 0.11), strap)
    elif person.bag == "shoulder":
        _paint(cloth, (t < 0.6) & (np.abs(np.abs(side * angle - np.pi / 2) - 0.55) < 0.09), strap)


def _skirt(person: Person, rng: np.random.Generator) -> Texture | None:
    if person.lower not in ("skirt", "dress"):
        return None
    cloth = _cloth(person.lower_color, LIMB_ROWS, rng, folds=0.05)
    cloth *= (1 + 0.10 * np.sin(ANGLE * 7 + 1))[None, :, None].astype(np.float32)
    if person.lower == "dress" and person.pattern in ("hoops", "spots", "bars", "checks"):
        cloth = _garment(person, LIMB_ROWS, rng, person.lower_color, 0.8)
    return cloth


def _arm(person: Person, rng: np.random.Generator) -> tuple[Texture, Texture]:
    """Upper arm and forearm with the hand. Short sleeves end above the elbow; both arms are alike."""
    sleeve = {"vest": person.inner_color}.get(person.upper, person.sleeve_color)
    if person.lower == "dress":
        sleeve = person.lower_color
    pattern_goes_on = person.pattern in ("hoops", "spots", "checks") and person.upper != "vest"
    upper = _garment(person, LIMB_ROWS, rng, sleeve, 0.55) if pattern_goes_on else _cloth(sleeve, LIMB_ROWS, rng)
    lower = _garment(person, LIMB_ROWS, rng, sleeve, 0.5) if pattern_goes_on else _cloth(sleeve, LIMB_ROWS, rng)
    skin = _cloth(person.skin, LIMB_ROWS, rng, folds=0.03, grain=0.01)
    t = _down(LIMB_ROWS)[:, 0]
    if person.upper == "tshirt" or person.lower == "dress":
        upper[t > 0.72] = skin[t > 0.72]
        lower = skin
    else:
        _paint(lower, np.broadcast_to(((t > 0.72) & (t < 0.79))[:, None], lower.shape[:2]), _shade(sleeve, 0.65))
        lower[t >= 0.79] = skin[t >= 0.79]
    return upper, lower


def _leg(person: Person, rng: np.random.Generator, side: int) -> Texture:
    """Hip to ankle. side: 1 is the right leg."""
    rows = 2 * LIMB_ROWS
    t = np.broadcast_to(_down(rows), (rows, COLUMNS))
    skin = _cloth(person.skin, rows, rng, folds=0.03, grain=0.012)
    if person.lower in ("skirt", "dress"):
        if person.motif % 3 == 0:
            skin = _cloth((40, 38, 42), rows, rng, folds=0.03)  # tights
        return skin
    cloth = _cloth(person.lower_color, rows, rng)
    worn = np.exp(-(((t - 0.3) / 0.16) ** 2)) * np.exp(-((FRONT[None] / 0.7) ** 2))
    cloth *= (1 + 0.16 * worn)[..., None].astype(np.float32)
    _paint(cloth, np.abs(t - 0.52) < 0.014, _shade(person.lower_color, 0.72))
    if person.side_stripe:
        _paint(cloth, np.broadcast_to(np.abs(ANGLE[None] * side - np.pi / 2) < 0.34, t.shape), person.sole_color)
    if person.lower == "shorts":
        bare = t > 0.5
        cloth[bare] = skin[bare]
        if person.motif % 2:
            _paint(cloth, t > 0.86, person.sole_color)  # socks
    else:
        _paint(cloth, t > 0.965, _shade(person.lower_color, 0.6))
    return cloth


def _head(person: Person, rng: np.random.Generator) -> Texture:
    """Crown to chin: face in front, hair and hat round it."""
    rows = HEAD_ROWS
    head = _cloth(person.skin, rows, rng, folds=0.02, grain=0.012)
    t = np.broadcast_to(_down(rows), (rows, COLUMNS))
    front = np.broadcast_to(FRONT[None], t.shape)
    eyes = (np.abs(front - 0.42) < 0.16) & (np.abs(t - 0.50) < 0.04)
    _paint(head, eyes, (38, 28, 26), 0.85)
    _paint(head, (np.abs(front - 0.42) < 0.25) & (np.abs(t - 0.415) < 0.025), person.hair_color, 0.8)
    _paint(head, (front < 0.1) & (t > 0.5) & (t < 0.67), _shade(person.skin, 1.08))
    _paint(head, (front < 0.16) & (np.abs(t - 0.67) < 0.02), _shade(person.skin, 0.7))
    _paint(head, (front < 0.3) & (np.abs(t - 0.79) < 0.03), (146, 66, 62), 0.8)
    _paint(head, (np.abs(front - 1.6) < 0.2) & (np.abs(t - 0.55) < 0.09), _shade(person.skin, 0.78))
    if person.beard:
        _paint(head, (t > 0.66) & (front < 1.35) & ~((front < 0.3) & (np.abs(t - 0.79) < 0.03)), person.hair_color, 0.8)
    if person.glasses:
        _paint(head, (np.abs(t - 0.50) < 0.06) & (np.abs(front - 0.42) < 0.27), (22, 22, 26), 0.7)
        _paint(head, (np.abs(t - 0.47) < 0.03) & (front < 1.5), (22, 22, 26), 0.8)
    if person.hair == "bald":
        _paint(head, (t < 0.55) & (front > 1.9), person.hair_color, 0.15)
    else:
        low = 0.62 if person.hair in ("short", "bun", "tail") else 0.95
        edge = np.interp(FRONT, [0.0, 0.8, 1.15, 1.6, 2.0, np.pi], [0.27, 0.32, 0.45, 0.52, low + 0.06, low + 0.14])
        _paint(head, t < edge[None] + rng.normal(0, 0.015, (1, COLUMNS)), person.hair_color)
    if person.hat == "hood":
        _paint(head, (front > 0.85) | (t < 0.2), person.hat_color)
        _paint(head, (np.abs(front - 0.85) < 0.1) & (t > 0.2), _shade(person.hat_color, 0.6))
    elif person.hat != "none":
        _paint(head, t < (0.40 if person.hat == "beanie" else 0.34), person.hat_color)
        _paint(head, np.abs(t - (0.37 if person.hat == "beanie" else 0.33)) < 0.03, _shade(person.hat_color, 0.72))
    return head


def _shoe(person: Person, rng: np.random.Generator) -> Texture:
    """Heel to toe, seen with its sole below: drawn at angle 0 with its sprite's x axis down, see `synthetic.figure`."""
    shoe = _cloth(person.shoe_color, LIMB_ROWS, rng, folds=0.04)
    _paint(shoe, np.broadcast_to((ANGLE < -0.4)[None], shoe.shape[:2]), person.sole_color)
    _paint(shoe, np.broadcast_to((ANGLE > -0.45)[None] & (ANGLE < -0.3)[None], shoe.shape[:2]), (20, 20, 20), 0.5)
    return shoe


def _bag(person: Person, rng: np.random.Generator) -> Texture:
    bag = _cloth(person.bag_color, BAG_ROWS, rng, folds=0.05)
    t = np.broadcast_to(_down(BAG_ROWS), bag.shape[:2])
    away = np.pi - np.broadcast_to(FRONT[None], t.shape)  # angle from the face that looks away from the body
    _paint(bag, (t > 0.52) & (t < 0.9) & (away < 0.85), _shade(person.bag_color, 0.8))
    _paint(bag, (np.abs(t - 0.54) < 0.025) & (away < 0.85), _shade(person.bag_color, 1.35))
    _paint(bag, np.abs(t - 0.1) < 0.025, _shade(person.bag_color, 0.55))
    if person.motif % 4 == 0:
        _paint(bag, (np.abs(t - 0.3) < 0.07) & (away < 0.3), person.second_color)
    return bag
