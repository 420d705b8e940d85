"""What the model looked at when it compared two pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from numpy.typing import NDArray

from pipeline.browsing.attention import COLUMNS, ROWS, looked_at
from pipeline.governance.audit import Action
from pipeline.governance.doors import check_authorized
from pipeline.governance.leads import check_may_compare
from schemas.errors import InputError
from urban_reid.console.context import Asking, Here
from urban_reid.console.looking import check_may_look
from urban_reid.console.texts import N_

routes = APIRouter()
#: One at a time: each takes the core for about a second.
_turn = Lock()
#: Parts that change the distance by less than this share of the largest change are left clear.
_LEAST = 0.08


@dataclass(frozen=True)
class Cell:
    """A part of a picture, in shares of its width and height. `weight`: 1 for the largest change; below 0: it keeps
    the two apart."""

    x: float
    y: float
    width: float
    height: float
    weight: float


@dataclass(frozen=True)
class Shown:
    """One picture of the pair. `thirds`: percent of its likeness to the other one, from the top down."""

    name: str  # of its address
    width: int
    height: int
    cells: Sequence[Cell]
    thirds: tuple[int, int, int] | None  # None: no part adds to it


@routes.get("/compare")
def compare_page(here: Here, found: Asking, left: str, right: str) -> HTMLResponse:
    check_may_look(found, N_("a comparison of two pictures"))
    pictures = [here.thumbnails.original(name, found) for name in (left, right)]
    if any(one is None for one in pictures):
        raise InputError("one of the pictures is not there any more, or your authorization does not show it")
    first, second = (one for one in pictures if one is not None)
    for one in (first, second):
        details = {"crop": one.key, "compared": True}
        check_authorized(
            found.store, one.camera, N_("a comparison of two pictures"), Action.PERSON_SHOW, details=details
        )
    check_may_compare(found.store)
    model, core = here.searches.in_use(found)
    with _turn:
        looked = looked_at(core, first.pixels, second.pixels, (first.camera, second.camera))
    shown = [
        _shown(name, one.pixels, grid, looked.largest)
        for name, one, grid in ((left, first, looked.left), (right, second, looked.right))
    ]
    return here.page("compare", found, shown=shown, distance=looked.distance, model=model.name)


def _shown(name: str, pixels: NDArray[np.uint8], changes: NDArray[np.float64], largest: float) -> Shown:
    cells = [
        Cell(column / COLUMNS, row / ROWS, 1 / COLUMNS, 1 / ROWS, float(changes[row, column] / largest))
        for row in range(ROWS)
        for column in range(COLUMNS)
        if largest > 0 and abs(changes[row, column]) >= _LEAST * largest
    ]
    adds = np.clip(changes, 0, None).sum(axis=1)
    parts = [float(part.sum()) for part in np.array_split(adds, 3)]
    thirds = tuple(round(100 * part / sum(parts)) for part in parts) if sum(parts) > 0 else None
    height, width = pixels.shape[:2]
    return Shown(name, width, height, cells, thirds)  # type: ignore[arg-type]
