"""Feeds as text: the values of options, and of the cells of a CSV file."""

import re
from collections.abc import Mapping
from typing import Any

from schemas.errors import InputError, UsageError
from schemas.feeds import Feed
from schemas.levels import Code, check_code
from schemas.times import parse_time

#: Fields of a camera's unit that may be given with its feed.
UNIT_FIELDS = ("name", "position", "overlaps", "clock_uncertainty_s")
FEED_FIELDS = tuple(name for name in Feed.model_fields if name not in ("camera", "address", "paused"))


def fields_of(texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of a feed, and of a camera's unit, as their models take them. An empty text is the field's default.

    region is x,y,width,height; masks are polygons x,y x,y x,y between semicolons; position is x,y; overlaps are codes
    between spaces. Raises InputError that begins with the field's name.
    """
    feed: dict[str, Any] = {}
    unit: dict[str, Any] = {}
    for name, text in texts.items():
        fields, defaults = (unit, _UNIT_DEFAULTS) if name in UNIT_FIELDS else (feed, _FEED_DEFAULTS)
        try:
            fields[name] = _PARSERS.get(name, str)(text) if text.strip() else defaults.get(name, "")
        except (ValueError, UsageError) as error:
            raise InputError(f"{name}: {error}") from None
    return feed, unit


_UNIT_DEFAULTS: dict[str, Any] = {"name": "", "position": None, "overlaps": (), "clock_uncertainty_s": 0.5}
_FEED_DEFAULTS: dict[str, Any] = {name: Feed.model_fields[name].default for name in FEED_FIELDS}


def _numbers(text: str, many: int, shape: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != many:
        raise ValueError(f"{text[:40]!r}: write {shape}")
    return found


def _region(text: str) -> tuple[int, ...]:
    if re.fullmatch(r"\s*\d{1,5}(\s*,\s*\d{1,5}){3}\s*", text, re.ASCII) is None:
        raise ValueError(f"{text[:40]!r}: write x,y,width,height in pixels, such as 0,0,384,288")
    return tuple(int(part) for part in text.split(","))


def _masks(text: str) -> tuple[tuple[tuple[float, ...], ...], ...]:
    shape = "corners x,y in shares of the frame, such as 0,0 0.5,0 0,0.5"
    polygons = [polygon.split() for polygon in text.split(";")]
    if not all(polygons):
        raise ValueError(f"one is empty; write {shape}")
    found = tuple(tuple(_numbers(corner, 2, shape) for corner in polygon) for polygon in polygons)
    if min(map(len, found)) < 3:
        raise ValueError(f"one has fewer than three corners; write {shape}")
    if not all(0 <= share <= 1 for polygon in found for corner in polygon for share in corner):
        raise ValueError(f"a corner lies outside the frame; write {shape}")
    return found


def _overlaps(text: str) -> tuple[Code, ...]:
    return tuple(check_code(code) for code in text.replace(",", " ").split())


_PARSERS: dict[str, Any] = {
    "region": _region,
    "masks": _masks,
    "position": lambda text: _numbers(text, 2, "x,y in meters, such as 12.5,40"),
    "overlaps": _overlaps,
    "start": parse_time,
}
