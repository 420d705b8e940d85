from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from pipeline.report.identities import Tracklet
from pipeline.report.tree import WIDTH, Cell, draw_tree
from pipeline.report.unit_counts import UnitCounts
from schemas.levels import Level


def city(streets: int, buildings: int, cameras: int) -> list[UnitCounts]:
    """A district with this many streets, buildings in each and cameras in each; parents before children."""
    codes = ["d1"]
    for s in range(streets):
        codes.append(f"d1/s{s}")
        for b in range(buildings):
            codes.append(f"d1/s{s}/b{b}")
            codes += [f"d1/s{s}/b{b}/c{c}" for c in range(cameras)]
    return [UnitCounts(code, code.upper(), 10, 5, 4, 2, 1, 3) for code in codes]


def inside(child: Cell, parent: Cell) -> bool:
    return parent.y <= child.y and child.y + child.height <= parent.y + parent.height + 1e-6


@pytest.mark.parametrize("size", [(2, 2, 2), (1, 1, 1), (3, 2, 4), (0, 0, 0), (2, 0, 0)])
def test_children_lie_beside_their_parent_and_cells_do_not_overlap(size: tuple[int, int, int]) -> None:
    tree = draw_tree(city(*size), [])
    cells = {cell.unit.code: cell for cell in tree.cells}
    assert len(cells) == len(city(*size))
    for cell in tree.cells:
        assert 0 <= cell.x < cell.x + cell.width <= WIDTH
        assert cell.y + cell.height <= tree.height + 1e-6
        if cell.unit.parent is not None:
            assert inside(cell, cells[cell.unit.parent])
            assert cell.x > cells[cell.unit.parent].x
        for other in tree.cells:
            if other is not cell and other.unit.level is cell.unit.level:
                assert cell.y + cell.height <= other.y or other.y + other.height <= cell.y


@pytest.mark.parametrize(
    ("size", "level", "cells"),
    [
        ((2, 2, 6), Level.CAMERA, 31),
        ((2, 2, 7), Level.BUILDING, 7),
        ((2, 30, 1), Level.STREET, 3),
        ((50, 1, 1), Level.DISTRICT, 1),
    ],
)
def test_a_large_city_is_drawn_to_a_higher_level(size: tuple[int, int, int], level: Level, cells: int) -> None:
    tree = draw_tree(city(*size), [])
    assert tree.drawn_to is level
    assert len(tree.cells) == cells
    assert max(cell.x + cell.width for cell in tree.cells) == WIDTH


def activity(cells: Sequence[Cell], code: str) -> list[tuple[float, float]]:
    return [(column.x, column.height) for cell in cells if cell.unit.code == code for column in cell.activity]


def test_columns_show_when_tracklets_began() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    tracklets = [
        Tracklet(i, uuid4(), "d1/s0/b0/c0", start + timedelta(minutes=m), start + timedelta(minutes=m), True, 1, None)
        for i, m in enumerate((0, 0, 0, 60))
    ]
    tree = draw_tree(city(2, 2, 2), tracklets)
    (first, high), (last, low) = activity(tree.cells, "d1/s0")
    assert first < last
    assert high == pytest.approx(3 * low)
    assert activity(tree.cells, "d1/s1") == []
    assert activity(tree.cells, "d1/s0/b0/c0") == []  # no room
