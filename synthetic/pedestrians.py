"""The people of a rendered city: bodies, clothes and belongings, drawn from a seed.

A `Person` is independent of camera, light and pose. People may come in groups of look-alikes (`draw_people`), who wear
the same kinds of clothes in nearly the same colors, like uniforms or common dark clothing, and differ in details only.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Rgb = tuple[float, float, float]

Upper = Literal["tshirt", "sweater", "hoodie", "jacket", "coat", "vest"]
Lower = Literal["trousers", "shorts", "skirt", "dress"]
Pattern = Literal["plain", "hoops", "bars", "checks", "print", "logo", "blocks", "bands", "spots"]
Hair = Literal["bald", "short", "bob", "long", "bun", "tail", "afro"]
Hat = Literal["none", "cap", "beanie", "brim", "hood"]
Bag = Literal["none", "backpack", "shoulder", "crossbody", "hand"]

SKIN: tuple[Rgb, ...] = ((244, 208, 182), (229, 184, 150), (206, 155, 118), (165, 114, 80), (118, 78, 54), (82, 54, 40))
HAIR: tuple[Rgb, ...] = (
    (24, 20, 18),
    (52, 36, 26),
    (92, 62, 38),
    (150, 106, 62),
    (206, 172, 112),
    (150, 62, 34),
    (176, 174, 172),
)
DARK: tuple[Rgb, ...] = ((26, 26, 30), (38, 40, 46), (28, 34, 58), (52, 54, 58), (58, 46, 40), (40, 50, 44))
DENIM: tuple[Rgb, ...] = ((44, 58, 92), (66, 88, 128), (108, 132, 168), (34, 42, 66))
BRIGHT: tuple[Rgb, ...] = (
    (222, 222, 218),
    (176, 178, 180),
    (124, 126, 130),
    (192, 44, 44),
    (222, 112, 44),
    (232, 192, 62),
    (64, 138, 76),
    (36, 92, 70),
    (56, 116, 190),
    (118, 178, 220),
    (108, 66, 140),
    (216, 140, 164),
    (132, 32, 56),
    (200, 176, 138),
    (136, 108, 78),
    (96, 104, 66),
)


@dataclass(frozen=True)
class Person:
    """The appearance of one person. Lengths in meters, colors RGB 0..255."""

    height_m: float
    build: float  # width of the body; 1 is average
    leg_share: float  # of the height
    stride: float  # swing of the thighs at walking pace, radians
    skin: Rgb
    hair: Hair
    hair_color: Rgb
    beard: bool
    glasses: bool
    hat: Hat
    hat_color: Rgb
    upper: Upper
    upper_color: Rgb
    second_color: Rgb  # of the pattern
    sleeve_color: Rgb
    inner_color: Rgb  # under an open jacket
    is_open: bool
    pattern: Pattern
    pattern_scale: float  # 0..1
    motif: int  # seed of the shape of print or logo, and of some details
    lower: Lower
    lower_color: Rgb
    side_stripe: bool
    shoe_color: Rgb
    sole_color: Rgb
    bag: Bag
    bag_color: Rgb
    bag_right: bool
    scarf: bool
    scarf_color: Rgb
    cloth: int  # seed of folds and cloth grain


def _pick(rng: np.random.Generator, palette: tuple[Rgb, ...], jitter: float = 12.0) -> Rgb:
    """A color of the palette with random brightness and a small random shift of each channel."""
    base = np.array(palette[int(rng.integers(len(palette)))])
    shifted = np.clip(base * rng.normal(1.0, 0.10) + rng.normal(0.0, jitter, 3) * 0.6, 6, 248)
    return float(shifted[0]), float(shifted[1]), float(shifted[2])


def _near(rng: np.random.Generator, color: Rgb, spread: float) -> Rgb:
    """A color near `color`, with slightly different brightness and hue."""
    near = np.clip(np.array(color) * rng.normal(1.0, spread / 60) + rng.normal(0.0, spread, 3), 4, 250)
    return float(near[0]), float(near[1]), float(near[2])


def draw_person(rng: np.random.Generator) -> Person:
    """A random person."""

    def choose(names: tuple[str, ...], weights: tuple[float, ...]) -> str:
        probabilities = np.array(weights) / sum(weights)
        return names[int(rng.choice(len(names), p=probabilities))]

    upper = choose(("tshirt", "sweater", "hoodie", "jacket", "coat", "vest"), (24, 18, 18, 24, 10, 6))
    cloth_palette = DARK if rng.random() < 0.45 else BRIGHT
    upper_color = _pick(rng, cloth_palette)
    pattern = choose(
        ("plain", "hoops", "bars", "checks", "print", "logo", "blocks", "bands", "spots"),
        (34, 9, 4, 7, 16, 12, 9, 5, 4),
    )
    lower = choose(("trousers", "shorts", "skirt", "dress"), (66, 15, 10, 9))
    if upper in ("coat", "vest") and lower == "dress":
        lower = "skirt"
    lower_palette = DENIM if lower != "dress" and rng.random() < 0.4 else (DARK if rng.random() < 0.6 else BRIGHT)
    hat = choose(("none", "cap", "beanie", "brim"), (72, 14, 10, 4))
    if upper == "hoodie" and rng.random() < 0.22:
        hat = "hood"
    return Person(
        height_m=float(np.clip(rng.normal(1.72, 0.09), 1.48, 1.98)),
        build=float(np.clip(rng.normal(1.0, 0.12), 0.76, 1.4)),
        leg_share=float(rng.normal(0.53, 0.012)),
        stride=float(rng.normal(0.42, 0.05)),
        skin=_pick(rng, SKIN, 5),
        hair=choose(("bald", "short", "bob", "long", "bun", "tail", "afro"), (7, 38, 14, 17, 8, 11, 5)),  # type: ignore[arg-type]
        hair_color=_pick(rng, HAIR, 6),
        beard=bool(rng.random() < 0.18),
        glasses=bool(rng.random() < 0.2),
        hat=hat,  # type: ignore[arg-type]
        hat_color=upper_color if hat == "hood" else _pick(rng, DARK if rng.random() < 0.5 else BRIGHT),
        upper=upper,  # type: ignore[arg-type]
        upper_color=upper_color,
        second_color=_pick(rng, BRIGHT),
        sleeve_color=_pick(rng, BRIGHT) if rng.random() < 0.12 else upper_color,
        inner_color=_pick(rng, BRIGHT),
        is_open=bool(rng.random() < 0.5),
        pattern=pattern,  # type: ignore[arg-type]
        pattern_scale=float(rng.random()),
        motif=int(rng.integers(2**31)),
        lower=lower,  # type: ignore[arg-type]
        lower_color=upper_color if lower == "dress" else _pick(rng, lower_palette),
        side_stripe=bool(lower in ("trousers", "shorts") and rng.random() < 0.14),
        shoe_color=_pick(rng, DARK if rng.random() < 0.55 else BRIGHT),
        sole_color=_pick(rng, ((226, 224, 220), (40, 36, 34))),
        bag=choose(("none", "backpack", "shoulder", "crossbody", "hand"), (46, 24, 11, 9, 10)),  # type: ignore[arg-type]
        bag_color=_pick(rng, DARK if rng.random() < 0.5 else BRIGHT),
        bag_right=bool(rng.random() < 0.5),
        scarf=bool(upper in ("coat", "jacket") and rng.random() < 0.25),
        scarf_color=_pick(rng, BRIGHT),
        cloth=int(rng.integers(2**31)),
    )


def look_alike(rng: np.random.Generator, model: Person, spread: float) -> Person:
    """Another person in nearly the clothes of `model`.

    Kinds and pattern of the garments are the model's, and so are their colors within about `spread` (of 255). Body,
    face, hair and cloth are random, and so are, in about half of the cases each, shoes, hat, bag and motif.
    """
    own = draw_person(rng)

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    upper_color = _near(rng, model.upper_color, spread)
    plain_sleeves = model.sleeve_color == model.upper_color
    keeps_hat, keeps_bag, keeps_shoes = chance(0.5), chance(0.5), chance(0.5)
    return replace(
        own,
        hat=model.hat if keeps_hat else ("none" if own.hat == "hood" else own.hat),
        hat_color=_near(rng, model.hat_color, spread) if keeps_hat else own.hat_color,
        upper=model.upper,
        upper_color=upper_color,
        second_color=_near(rng, model.second_color, spread),
        sleeve_color=upper_color if plain_sleeves else _near(rng, model.sleeve_color, spread),
        inner_color=_near(rng, model.inner_color, 2 * spread) if chance(0.5) else own.inner_color,
        is_open=model.is_open if chance(0.7) else own.is_open,
        pattern=model.pattern,
        pattern_scale=float(np.clip(model.pattern_scale + rng.normal(0, 0.08), 0, 1)),
        motif=own.motif if chance(0.5) else model.motif,
        lower=model.lower,
        lower_color=upper_color if model.lower == "dress" else _near(rng, model.lower_color, spread),
        side_stripe=model.side_stripe,
        shoe_color=_near(rng, model.shoe_color, spread) if keeps_shoes else own.shoe_color,
        sole_color=model.sole_color if keeps_shoes else own.sole_color,
        bag=model.bag if keeps_bag else own.bag,
        bag_color=_near(rng, model.bag_color, spread) if keeps_bag else own.bag_color,
        scarf=model.scarf,
        scarf_color=_near(rng, model.scarf_color, 2 * spread),
    )


def draw_people(
    rng: np.random.Generator, count: int, *, look_alike_share: float, group: tuple[int, int], spread: float
) -> list[Person]:
    """`count` people in random order, of whom about `look_alike_share` are in groups of look-alikes.

    group: smallest and largest size of a group. spread: see `look_alike`.
    """
    people: list[Person] = []
    in_groups = round(count * look_alike_share)
    while in_groups - len(people) >= 2:
        size = min(int(rng.integers(group[0], group[1] + 1)), in_groups - len(people))
        first = draw_person(rng)
        people.append(first)
        people.extend(look_alike(rng, first, spread) for _ in range(size - 1))
    people.extend(draw_person(rng) for _ in range(count - len(people)))
    return [people[i] for i in rng.permutation(count)]
