"""urban-reid city: loading and showing the tree of units."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.tree import Tree

from schemas.city_file import City, Unit
from schemas.levels import Level, parent_of
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, say, shown

app = typer.Typer(help="The city: districts, streets, buildings, cameras.", no_args_is_help=True)


@app.command(epilog="Example: urban-reid city load city.yaml")
def load(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="City file in YAML: units, walks, time zone.")],
    as_json: AsJson = False,
) -> None:
    """Check a city file and make it the city of this data directory.

    Units may be added and changed at any time. Those whose geometry changes (positions, clocks, overlaps, walks) are
    decided anew by the next resolve. A unit that has crops or a feed cannot be removed.
    """
    from pipeline.city.units import read_city_file, store_city
    from pipeline.store import Store

    city = read_city_file(file)
    with Store.open(settings(), "urban-reid city load") as store:
        changed = store_city(store, city)
    feeds = sum(unit.feed is not None for unit in city.units)
    counts = {level.value: sum(unit.level is level for unit in city.units) for level in Level}
    if as_json:
        print_json({"changed": changed, "units": counts})
        return
    numbers = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in reversed(counts.items()))
    out().print(f"{'loaded' if changed else 'already loaded'}: {numbers}")
    if feeds:
        have = "1 camera has a feed" if feeds == 1 else f"{feeds} cameras have feeds"
        say(f"{have}: `urban-reid cameras import {shown(file)}` takes them in")


@app.command(epilog="Example: urban-reid city show")
def show(as_json: AsJson = False) -> None:
    """Show the loaded city as a tree."""
    from pipeline.city.units import read_city
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid city show") as store:
        city = read_city(store)
    below = _below(city)
    if as_json:
        print_json({"timezone": city.timezone, "districts": [_plain(unit, below) for unit in below[None]]})
        return
    for unit in below[None]:
        out().print(_grow(Tree(_label(unit)), unit, below))


def _below(city: City) -> dict[str | None, list[Unit]]:
    below: dict[str | None, list[Unit]] = defaultdict(list)
    for unit in sorted(city.units, key=lambda unit: unit.code):
        below[parent_of(unit.code)].append(unit)
    return below


def _plain(unit: Unit, below: dict[str | None, list[Unit]]) -> dict[str, Any]:
    said = unit.model_dump(mode="json", exclude_defaults=True) | {"level": unit.level.value}
    if unit.level is not Level.CAMERA:
        said["units"] = [_plain(child, below) for child in below[unit.code]]
    return said


def _label(unit: Unit) -> str:
    kind = f", {shown(unit.kind)}" if unit.kind else ""
    return f"[bold]{unit.code}[/bold] {shown(unit.name)} [dim]{unit.level}{kind}[/dim]"


def _grow(tree: Tree, unit: Unit, below: dict[str | None, list[Unit]]) -> Tree:
    for child in below[unit.code]:
        _grow(tree.add(_label(child)), child, below)
    return tree
