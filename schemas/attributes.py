"""Attributes of people by name: what somebody wears and carries, and how it is asked for."""

import re
from collections.abc import Mapping
from typing import Self

from schemas.errors import InputError
from schemas.settings import Frozen

#: What a person has or does not have. Sex and age are not among it.
NAMES = ("bag", "backpack", "hat", "long sleeves", "long trousers", "long hair", "coat or jacket")
#: The eleven basic color terms of English (Berlin and Kay, 1969).
COLORS = ("black", "gray", "white", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
#: What has a color.
PLACES = ("top", "bottom")

#: Share of people of whom two cameras say something different, by what they wear: one crop each of 100 people
#: (docs/results.md, "Attributes"). Hats, coats and jackets were too rare to tell.
DISAGREE: Mapping[str, float] = {
    "bag": 0.39,
    "backpack": 0.38,
    "hat": 0.01,
    "long sleeves": 0.21,
    "long trousers": 0.28,
    "long hair": 0.15,
    "coat or jacket": 0.03,
    "top": 0.43,
    "bottom": 0.36,
}


class WantedAttributes(Frozen):
    """What somebody looks for: `has` by name, and the color of top and bottom; None: any."""

    has: Mapping[str, bool] = {}
    top: str | None = None
    bottom: str | None = None

    @classmethod
    def parse(cls, said: str) -> Self:
        """Of a text such as "red top, long trousers, no hat". Raises InputError."""
        has: dict[str, bool] = {}
        colors: dict[str, str] = {}
        for term in filter(None, (" ".join(part.lower().split()) for part in said.split(","))):
            no, name = re.fullmatch(r"(no )?(.*)", term).groups()  # type: ignore[union-attr]
            color, _, place = name.partition(" ")
            if name in NAMES and name not in has:
                has[name] = no is None
            elif color in COLORS and place in PLACES and no is None and place not in colors:
                colors[place] = color
            else:
                raise InputError(
                    f"{term[:40]!r} is no attribute, or is said twice: write some such as 'red top, long trousers, no "
                    f"hat', of {', '.join(NAMES)}, and for top and bottom of the colors {', '.join(COLORS)}"
                )
        if not has and not colors:
            raise InputError("no attribute is named; write some such as 'red top, long trousers, no hat'")
        return cls(has=has, **colors)

    @property
    def colors(self) -> Mapping[str, str]:
        """The colors that are wanted, by place."""
        return {place: color for place in PLACES if (color := getattr(self, place))}

    @property
    def terms(self) -> tuple[str, ...]:
        """As they are written, in a fixed order."""
        said = [name if self.has[name] else f"no {name}" for name in NAMES if name in self.has]
        return (*(f"{color} {place}" for place, color in self.colors.items()), *said)

    @property
    def disagree(self) -> float:
        """The share of people who match by one camera and not by another, were the terms independent of each other."""
        agree = 1.0
        for name in (*self.has, *self.colors):
            agree *= 1 - DISAGREE[name]
        return 1 - agree
