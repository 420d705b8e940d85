"""Cameras in a file: a CSV file with a line a camera, or a city file whose cameras have a feed."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from pipeline.cameras.changes import Wanted
from pipeline.cameras.feed_text import FEED_FIELDS, UNIT_FIELDS, fields_of
from pipeline.city.units import read_city_file
from schemas.city_file import City, Unit
from schemas.errors import InputError, UrbanReidError
from schemas.feeds import Feed
from schemas.validation import first_fault

COLUMNS = ("camera", "address", *FEED_FIELDS, *UNIT_FIELDS)
_MAX_BYTES = 20_000_000


@dataclass(frozen=True)
class FeedFile:
    """The cameras of a file. `city`: of a city file, to begin with where no city is loaded."""

    cameras: Sequence[Wanted]
    city: City | None = None


def read_feed_file(path: Path) -> FeedFile:
    """Reads a .csv file, or a city file in YAML. Raises InputError and CityError with file and line."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return _of_city(path, read_city_file(path))
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: is no .csv, .yaml or .yml file")
    return FeedFile(_of_csv(path))


def _of_city(path: Path, city: City) -> FeedFile:
    cameras = [
        Wanted(
            Feed(camera=unit.code, **unit.feed.model_dump()),
            {name: getattr(unit, name) for name in UNIT_FIELDS if name in unit.model_fields_set},
        )
        for unit in city.cameras()
        if unit.feed is not None
    ]
    if not cameras:
        raise InputError(f"{path}: no camera has a feed; write feed: {{address: rtsp://host:port/path}} to one")
    return FeedFile(cameras, city)


def _of_csv(path: Path) -> list[Wanted]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES // 1_000_000} MB, which no list of cameras is")
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    header = lines[0] if lines else ""
    rows = csv.reader(lines, delimiter=";" if ";" in header and "," not in header else ",", strict=True)
    columns: list[str] = []
    cameras: list[Wanted] = []
    line_of: dict[str, int] = {}
    line = 1
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                pass
            elif not columns:
                columns = _columns(row)
            else:
                cameras.append(wanted := _wanted(columns, row, path.absolute().parent))
                camera = wanted.feed.camera
                if camera in line_of:
                    raise InputError(f"{camera} is on line {line_of[camera]} already")
                line_of[camera] = line
            line = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: {error}") from None
    except UrbanReidError as error:
        raise InputError(f"{path}, line {line}: {error}") from None
    if not cameras:
        raise InputError(f"{path}: holds no camera; its first line names the columns: {', '.join(COLUMNS)}")
    return cameras


def _columns(row: Sequence[str]) -> list[str]:
    columns = [cell.strip() for cell in row]
    for name in columns:
        if name not in COLUMNS:
            near = get_close_matches(name, COLUMNS, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COLUMNS)}"
            raise InputError(f"unknown column {name[:40]!r}; {meant}")
        if columns.count(name) > 1:
            raise InputError(f"the column {name} is there twice")
    for name in ("camera", "address"):
        if name not in columns:
            raise InputError(f"there is no column {name}")
    return columns


def _wanted(columns: Sequence[str], row: Sequence[str], folder: Path) -> Wanted:
    if len(row) > len(columns):
        raise InputError(f"has {len(row)} cells for {len(columns)} columns; put a cell that holds a comma in quotes")
    cells = {name: cell.strip() for name, cell in zip(columns, row, strict=False) if cell.strip()}
    own = {name: cells.pop(name, "") for name in ("camera", "address")}
    given, unit = fields_of(cells)
    model: type[Feed] | type[Unit] = Feed
    try:
        feed = Feed.model_validate(own | given, context={"folder": folder})
        model = Unit
        Unit.model_validate({"code": feed.camera} | unit)
    except ValidationError as error:
        place, message = first_fault(error, model)
        raise InputError(f"{place[0]}: {message}" if place else message) from None
    return Wanted(feed, unit)
