"""The city's levels and the codes of its units.

A code is a path, `d1/s2/b3/c4`; its depth is its level, and its parent is the path without the last segment.
"""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator

from schemas.errors import CityError

_SEGMENT = re.compile(r"[a-z0-9-]{1,32}")


class Level(StrEnum):
    CAMERA = "camera"
    BUILDING = "building"
    STREET = "street"
    DISTRICT = "district"


#: Level by number of segments, minus one.
_BY_DEPTH = (Level.DISTRICT, Level.STREET, Level.BUILDING, Level.CAMERA)
#: Levels from camera to district.
UPWARD = tuple(reversed(_BY_DEPTH))


def check_code(code: str) -> str:
    """Returns `code`. Raises CityError if it is not a unit code."""
    segments = code.split("/")
    if len(segments) > len(_BY_DEPTH) or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise CityError(
            f"{code[:80]!r} is not a unit code: 1 to 4 segments of a-z, 0-9 and '-' joined by '/', as in d1/s2/b3/c4"
        )
    return code


def level_of(code: str) -> Level:
    """The level of a unit. Raises CityError if `code` is not a unit code."""
    return _BY_DEPTH[check_code(code).count("/")]


def parent_of(code: str) -> str | None:
    """The code one level up, None for a district. Raises CityError if `code` is not a unit code."""
    return check_code(code).rpartition("/")[0] or None


def is_within(code: str, ancestor: str) -> bool:
    """Whether `code` is `ancestor` or lies below it."""
    return code == ancestor or code.startswith(ancestor + "/")


def _validate(code: str) -> str:
    try:
        return check_code(code)
    except CityError as error:
        raise ValueError(str(error)) from None


#: A unit code as a field of a Pydantic model.
Code = Annotated[str, AfterValidator(_validate)]
