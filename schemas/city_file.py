"""The contents of a city file: units, walks, time zone."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from schemas.errors import CityError
from schemas.feeds import FeedOptions
from schemas.levels import Code, Level, level_of, parent_of
from schemas.numbers import Number
from schemas.settings import Frozen
from schemas.text import Line, Text, said

T = TypeVar("T")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name[:60]!r} is no time zone; write one such as Europe/Berlin") from None
    return name


class Unit(Frozen):
    """One node of the city's tree; its level is the depth of its code."""

    code: Code
    name: Text = Field("", max_length=200)
    kind: Text = Field("", max_length=40, description="for example `site` for an outdoor place")
    source: Line | None = Field(None, max_length=200, description="camera: its name in data sets, such as c1")
    position: tuple[Number, Number] | None = Field(None, description="camera: meters east and north of any fixed point")
    overlaps: tuple[Code, ...] = Field((), description="camera: cameras that see some of the same ground")
    clock_uncertainty_s: Number = Field(0.5, ge=0, le=3600, description="camera: largest error of its clock, seconds")
    feed: FeedOptions | None = Field(None, description="camera: how `urban-reid cameras import` takes it in")

    @property
    def level(self) -> Level:
        return level_of(self.code)

    @model_validator(mode="after")
    def _camera_fields(self) -> Self:
        of_camera = self.source or self.position or self.overlaps or self.feed or self.kind == "camera"
        if self.level is not Level.CAMERA and of_camera:
            raise ValueError(
                f"{self.code} is a {self.level} by its depth, but is written as a camera; "
                "a camera's code has four segments: district/street/building/camera"
            )
        return self


class Walk(Frozen):
    """The shortest time in which a person gets from one unit to a sibling, both ways."""

    from_: Code = Field(alias="from")
    to: Code
    shortest_s: Number = Field(ge=0, le=86_400)


class City(Frozen):
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    units: tuple[Unit, ...] = Field(min_length=1)
    walks: tuple[Walk, ...] = ()

    @model_validator(mode="after")
    def _is_a_tree(self) -> Self:
        codes = [unit.code for unit in self.units]
        known = set(codes)
        twice = [code for code, count in Counter(codes).items() if count > 1]
        if twice:
            raise ValueError(f"unit codes are there twice: {', '.join(twice[:10])}")
        for unit in self.units:
            parent = parent_of(unit.code)
            if parent is not None and parent not in known:
                raise ValueError(f"{unit.code}: its parent {parent} is not among the units")
            for other in unit.overlaps:
                if other not in known or parent_of(other) != parent or other == unit.code:
                    raise ValueError(f"{unit.code}: overlaps {other}, which is no other camera of the same building")
        for walk in self.walks:
            for code in (walk.from_, walk.to):
                if code not in known:
                    raise ValueError(f"walk {walk.from_} -> {walk.to}: {nearest(code, known)}")
            if walk.from_ == walk.to or parent_of(walk.from_) != parent_of(walk.to):
                raise ValueError(f"walk {walk.from_} -> {walk.to}: both ends must be different units of one parent")
        return self

    def __copy__(self) -> Self:
        """A copy without cached lookups, since `model_copy(update=...)` changes it afterwards."""
        copied = super().__copy__()
        for found in ("_cameras", "_children", "_walks"):
            vars(copied).pop(found, None)
        return copied

    # A resolve calls the following for each unit, so their cost does not depend on the size of the city.

    def cameras(self, within: str | None = None) -> list[Unit]:
        """The cameras at or below unit `within`, or all, in the order of their codes."""
        found = self._cameras if within is None else _below(self._cameras, within, lambda unit: unit.code)
        return sorted(found, key=lambda unit: unit.code)

    def check_unit(self, code: str) -> None:
        """Raises CityError, with the nearest codes, where the city has no such unit."""
        codes = {unit.code for unit in self.units}
        if code not in codes:
            raise unknown_unit(code, codes)

    def children(self, unit: str) -> Sequence[str]:
        """The codes of the unit's children, sorted."""
        return self._children.get(unit, ())

    def walks_within(self, unit: str) -> Sequence[Walk]:
        """The walks between units below `unit`."""
        return _below(self._walks, unit, _parent)

    @cached_property
    def _cameras(self) -> list[Unit]:
        return _by_path([unit for unit in self.units if unit.level is Level.CAMERA], lambda unit: unit.code)

    @cached_property
    def _children(self) -> dict[str | None, list[str]]:
        found: dict[str | None, list[str]] = {}
        for code in sorted(unit.code for unit in self.units):
            found.setdefault(parent_of(code), []).append(code)
        return found

    @cached_property
    def _walks(self) -> list[Walk]:
        return _by_path(self.walks, _parent)


def _parent(walk: Walk) -> str:
    return parent_of(walk.from_) or ""


def _by_path(items: Iterable[T], code: Callable[[T], str]) -> list[T]:
    """Sorted so that a unit and all below it are adjacent; the order of plain codes would put d1-a between them."""
    return sorted(items, key=lambda item: code(item) + "/")


def _below(items: Sequence[T], unit: str, code: Callable[[T], str]) -> Sequence[T]:
    """The items at or below `unit`; `items` must be in the order of `_by_path`."""
    start = bisect_left(items, unit + "/", key=lambda item: code(item) + "/")
    end = bisect_left(items, unit + "0", lo=start, key=lambda item: code(item) + "/")  # '0' follows '/'
    return items[start:end]


def nearest(code: str, known: set[str]) -> str:
    """A sentence: `code` is unknown, and the nearest codes."""
    close = get_close_matches(code, sorted(known), n=3, cutoff=0.5)
    missing = said(f"no unit {code[:80]!r} in this city")
    return said(f"{missing}; nearest: {', '.join(close)}") if close else missing


def unknown_unit(code: str, known: set[str]) -> CityError:
    return CityError(nearest(code, known), do="`urban-reid city show` lists all units")
