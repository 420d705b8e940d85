"""The data set door: folders in a published layout, whose file names state person, camera and frame.

Market-1501's names are `0002_c1s1_000451_03.jpg`: person 0002, camera c1, sequence 1, frame 451, detection 03. Person
-1 is junk and left out. Person 0 stands for distractors, people who were never told apart: they come in without truth.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pipeline.city.units import canonical, find_city, load_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.batches import Again, Source, ended, path_text
from pipeline.ingest.crop_writer import LISTED, Candidate, Progress, is_future, take_in
from pipeline.ingest.picture_roots import Place
from pipeline.store import Store
from reid_core.datasets.market1501 import FOLDERS, SUFFIXES, parse_name
from schemas.city_file import City
from schemas.crops import IngestReport
from schemas.errors import CityError, InputError
from schemas.keys import content_hash
from schemas.times import UNTIMED

Layout = Literal["market1501"]
SPLITS = FOLDERS
#: Time of frame 0 of the first sequence, when frames are counted as times; each later sequence begins a day after the
#: one before. Fixed, so that a crop's time does not depend on which other crops come in with it.
START = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class DatasetFile:
    path: Path
    person: int  # -1: junk, 0: a distractor
    camera: str  # such as c1
    sequence: int
    frame: int

    @property
    def name(self) -> str:
        """Split and file name, for messages."""
        return f"{self.path.parent.name}/{self.path.name}"


def ingest_dataset(
    store: Store,
    crops: CropStore,
    directory: Path,
    layout: Layout,
    city: City,
    times: str,
    *,
    splits: Sequence[str] | None = None,
    again: Again = "refuse",
    operator: str | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Writes the crops of a data set, and its city if none is loaded yet. The same data set again writes nothing.

    The city is loaded together with the first crops.

    `city` states by each camera's `source` which camera of the data set it is. `times` is `frames:FPS` (a crop's time
    is START, plus a day for each earlier sequence, plus its frame over FPS) or `none` (crops are untimed). `splits`
    names the folders to take; all that exist unless given. `again`: what happens if the same data set was taken in with
    other `times` or cameras. `operator`: as for `take_in`.

    Raises InputError, with nothing written, for names that do not parse (the first ten), a time in the future, or when
    not one picture can be used; CityError for a camera that the city lacks, or when the store holds another city.
    """
    per_second = _frames_per_second(times)
    files = dataset_files(directory, splits)
    by_source = _cameras(city)
    missing = Counter(file.camera for file in files if file.camera not in by_source)
    if missing:
        counts = ", ".join(f"{source} ({count} pictures)" for source, count in sorted(missing.items())[:20])
        raise CityError(
            f"{directory}: no camera of the city has the source {counts}; write `source: c1` into its units"
        )
    people = [file for file in files if file.person >= 0]
    if not people:
        raise InputError(f"{directory}: every picture is junk (person -1)")
    moments = [_moment(file, per_second) for file in people]
    loaded = find_city(store)
    if loaded is not None and loaded != canonical(city):
        raise CityError(
            "another city is loaded than the one given for this data set; `urban-reid city load` the given one first, "
            "or use another URBAN_REID_HOME"
        )
    operator = operator or store.settings.operator
    source = _source(directory, layout, files, by_source, times)
    candidates = (
        Candidate(
            name=file.name,
            read=Place(file.path).read,
            camera=by_source[file.camera],
            captured_at=moment or UNTIMED,
            timed=moment is not None,
            truth=str(file.person) if file.person else None,
        )
        for file, moment in zip(people, moments, strict=True)
    )
    report = take_in(
        store,
        crops,
        source,
        candidates,
        total=len(people),
        operator=operator,
        again=again,
        before_first=lambda connection: loaded or load_city(connection, city, operator),
        progress=progress,
    )
    junk = [f"{file.name}: junk, person -1" for file in files if file.person < 0]
    return ended(
        store,
        report.model_copy(
            update={
                "read": report.read + len(junk),
                "skipped": (*report.skipped, *junk)[:LISTED],
                "skipped_count": report.skipped_count + len(junk),
            }
        ),
        left_out=len(junk),
    )


def _source(
    directory: Path, layout: Layout, files: Sequence[DatasetFile], cameras: Mapping[str, str], times: str
) -> Source:
    """The content is that of the file names, which state everything but the pictures, and of their sizes."""
    names = [part for file in files for part in (file.name, file.path.stat().st_size)]
    placed = [part for pair in sorted(cameras.items()) for part in pair]
    options = {"times": times, "cameras": content_hash("cameras", placed).hex()[:8]}
    return Source(f"dataset:{layout}", path_text(directory), content_hash("dataset", names), options)


def dataset_files(directory: Path, splits: Sequence[str] | None = None) -> list[DatasetFile]:
    """The pictures of a data set by split, then name; arguments and errors as for `ingest_dataset`."""
    return [file for split in _split_folders(directory, splits) for file in _files(split)]


def _frames_per_second(times: str) -> float | None:
    if times == "none":
        return None
    match = re.fullmatch(r"frames:(\d{1,6}(?:\.\d{1,6})?)", times)
    if match is None or float(match[1]) == 0:
        raise InputError(f"times {times[:40]!r}: write frames:25 for 25 frames/s, or none")
    return float(match[1])


def _moment(file: DatasetFile, per_second: float | None) -> datetime | None:
    """When a picture was taken; None if frames are no times. Raises InputError for the future."""
    if per_second is None:
        return None
    try:
        moment = START + timedelta(days=file.sequence - 1, seconds=file.frame / per_second)
    except OverflowError:
        moment = datetime.max.replace(tzinfo=UTC)
    if is_future(moment):
        raise InputError(
            f"{file.name}: at {per_second:g} frames/s, a day a sequence from {START:%Y-%m-%d} on, its time "
            f"{moment.isoformat()} lies in the future; give the true frame rate, or `--times none`"
        )
    return moment


def _split_folders(directory: Path, splits: Sequence[str] | None) -> list[Path]:
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder")
    if unknown := sorted(set(splits or ()) - set(SPLITS)):
        raise InputError(f"no split {unknown[0][:40]!r} in this layout; it has {', '.join(SPLITS)}")
    folders = [directory / split for split in SPLITS if split in (splits or SPLITS)]
    found = [folder for folder in folders if folder.is_dir()]
    if not found or (splits and len(found) < len(folders)):
        absent = ", ".join(folder.name for folder in folders if folder not in found)
        raise InputError(f"{directory}: holds no folder {absent}; give the data set's top folder")
    return found


def _files(folder: Path) -> list[DatasetFile]:
    """The pictures of one split, by name. Raises InputError for names that do not parse, or without any picture."""
    files: list[DatasetFile] = []
    strange: list[str] = []
    for path in sorted(folder.iterdir()):
        said = parse_name(path.name)
        if said is not None and said.sequence is not None and said.frame is not None:
            files.append(DatasetFile(path, said.identity, f"c{said.camera}", said.sequence, said.frame))
        elif path.suffix.lower() in SUFFIXES:  # Market-1501 comes with Thumbs.db and the like, which are no pictures
            strange.append(path.name)
    if strange:
        more = f" and {len(strange) - 10} more" if len(strange) > 10 else ""
        names = ", ".join(repr(name) for name in strange[:10])
        raise InputError(f"{folder}: a picture's name has the form 0002_c1s1_000451_03.jpg, unlike {names}{more}")
    if not files:
        raise InputError(f"{folder}: holds no picture")
    return files


def _cameras(city: City) -> dict[str, str]:
    """Camera codes by source. Raises CityError for a source of two cameras."""
    found: dict[str, str] = {}
    for unit in city.cameras():
        if unit.source is not None and found.setdefault(unit.source, unit.code) != unit.code:
            raise CityError(f"the cameras {found[unit.source]} and {unit.code} have the same source {unit.source!r}")
    return found
