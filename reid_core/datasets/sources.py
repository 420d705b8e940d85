"""Opens a data set by its source, a text such as `cuhk03:DIR`."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from reid_core.datasets import cuhk03, market1501, msmt17
from reid_core.datasets.dataset import Dataset, Progress
from reid_core.datasets.joined import join
from reid_core.datasets.rendered import PEOPLE, open_rendered
from schemas.errors import InputError

SOURCES = "a folder, market1501:DIR, cuhk03:DIR, cuhk03-labeled:DIR, msmt17:DIR or rendered:SEED[:PEOPLE]"


#: Names of version 0.1.
_OLD_NAMES = {"cuhk03-labelled": "cuhk03-labeled"}  # codespell:ignore labelled


class _Layout(NamedTuple):
    fits: Callable[[Path], bool]
    open: Callable[[Path, str], Dataset]
    expected: str


_LAYOUTS = {
    "market1501": _Layout(market1501.is_market1501, market1501.open_market1501, market1501.EXPECTED),
    "cuhk03": _Layout(
        partial(cuhk03.is_cuhk03, boxes="detected"), partial(cuhk03.open_cuhk03, boxes="detected"), cuhk03.EXPECTED
    ),
    "cuhk03-labeled": _Layout(
        partial(cuhk03.is_cuhk03, boxes="labeled"), partial(cuhk03.open_cuhk03, boxes="labeled"), cuhk03.EXPECTED
    ),
    "msmt17": _Layout(msmt17.is_msmt17, msmt17.open_msmt17, msmt17.EXPECTED),
}


def open_dataset(source: str, *, strict: bool = True, progress: Progress | None = None) -> Dataset:
    """Opens the data set that `source` names; does not open its pictures.

    source: `market1501:DIR`, `cuhk03:DIR` (boxes of the detector), `cuhk03-labeled:DIR` (boxes drawn by hand),
        `msmt17:DIR`, or a folder alone, whose layout is recognized; `rendered:SEED[:PEOPLE]` draws 200 people unless
        told otherwise. Several sources joined by ` + ` become one data set (see `joined.join`).
    strict: raise for names that do not parse; otherwise they are listed in `Dataset.wrong`.
    progress: called with (done, total) while pictures are rendered.

    Raises InputError for an unknown source, for a folder that is not in the layout, and, if strict, with the first
    three names that do not parse.
    """
    try:
        opened = [_open_one(part.strip(), progress) for part in source.split(" + ")]
    except OSError as error:
        raise InputError(f"{str(error.filename or source)[:200]}: cannot be read: {error.strerror or error}") from None
    found = opened[0] if len(opened) == 1 else join(opened, source)
    if strict and found.wrong:
        more = " and more" if len(found.wrong) > 3 else ""
        raise InputError(
            f"{len(found.wrong)} pictures of the data set cannot be used: {'; '.join(found.wrong[:3])}{more}; "
            f"`urban-reid dataset check {source}` lists all"
        )
    return found


def _open_one(source: str, progress: Progress | None) -> Dataset:
    kind, _, what = source.partition(":")
    kind = _OLD_NAMES.get(kind, kind)
    if kind == "rendered":
        match = re.fullmatch(r"([0-9]{1,9})(?::([0-9]{1,6}))?", what)
        people = int(match[2] or PEOPLE) if match else 0
        if match is None or people < 2:
            raise InputError(f"{source[:80]!r}: write rendered:SEED[:PEOPLE], such as rendered:7:400, 2 people or more")
        return open_rendered(int(match[1]), people, source, progress)
    if kind not in _LAYOUTS and source and Path(source).is_dir():
        kind, what = _recognize(Path(source)), source
    if kind not in _LAYOUTS or not what:
        raise InputError(
            f"{source[:80]!r}: no such folder or layout; a data set is {SOURCES}; several are joined by ' + '"
        )
    directory, layout = Path(what), _LAYOUTS[kind]
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder")
    if not layout.fits(directory):
        raise InputError(f"{directory}: is not in the layout {kind}: expected {layout.expected}; {_holds(directory)}")
    found = layout.open(directory, f"{kind}:{what}")
    if not (found.train or found.query or found.gallery or found.wrong):
        raise InputError(f"{directory}: is in the layout {kind} but holds no picture; {_holds(directory)}")
    return found


def _recognize(directory: Path) -> str:
    for kind, layout in _LAYOUTS.items():
        if layout.fits(directory):
            return kind
    expected = "; ".join(f"{kind}: {layout.expected}" for kind, layout in _LAYOUTS.items() if kind != "cuhk03-labeled")
    raise InputError(f"{directory}: is in no known layout ({expected}); {_holds(directory)}")


def _holds(directory: Path) -> str:
    """What a folder holds: the data set in a folder below it if there is one, else the first names."""
    below = sorted(directory.iterdir())
    if not below:
        return "it is empty"
    for child in (child for child in below if child.is_dir() and os.access(child, os.X_OK)):
        for kind, layout in _LAYOUTS.items():
            if layout.fits(child):
                return f"was {kind}:{child} meant?"
    names = [f"{child.name}/" if child.is_dir() else child.name for child in below]
    return f"it holds {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")
