"""urban-reid search-several: one search of several databases, merged into one list."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from schemas.errors import InputError, UrbanReidError, UsageError
from schemas.parameters import LEAD, SearchResult
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import Table, out, print_json, shown

if TYPE_CHECKING:
    from pipeline.search.several import Part

app = typer.Typer()
#: Hits that a console answers with.
_TOP = 24
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@app.command(
    "search-several",
    epilog="Example: urban-reid search-several --probe person.jpg --in north=d1 --in south=d7 --reason 'case 17'",
)
def search_several(
    probe: Annotated[list[Path], typer.Option(metavar="FILE", help="A picture of the person; may be repeated.")],
    places: Annotated[
        list[str],
        typer.Option("--in", metavar="NAME=CODE", help="A city of URBAN_REID_CITIES and a unit of it; to be repeated."),
    ],
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why this person is searched for. Each city writes it to its audit.")
    ],
    top: Annotated[int, typer.Option(metavar="N", min=1, max=_TOP, help="Most hits to return.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Search units of several databases for one person, and state one probability for each hit and for "not here".

    Each is asked through its console's API, with a token of its own, so each authorizes and audits its own part. If one
    does not answer, there is no result: "not here" would be said of people who were not looked at.
    """
    from pipeline.search.several import merge

    asked = [_place(place) for place in places]
    pictures = [_read(file) for file in probe]
    with ThreadPoolExecutor(len(asked)) as threads:
        parts = list(threads.map(lambda place: _ask(place[0], place[1], pictures, reason), asked))
    found = merge(parts, top)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    table = Table("#", "city", "unit", "distance", "probability", "identity", title=f"each hit is a {LEAD}")
    for one in found.hits:
        hit = one.hit
        said = (f"{hit.distance:.3f}", f"{hit.probability:.2f}", str(hit.identity)[:8])
        table.add_row(str(hit.rank), shown(one.city), shown(hit.unit), *said)
    out().print(table)
    out().print(f"{found.compared} identities were compared; with probability {found.not_here:.2f} none is the person")
    for note in found.notes:
        out().print(shown(note), soft_wrap=True)


def _place(said: str) -> tuple[str, str]:
    """The name of a city that is known, and a unit's code."""
    name, _, unit = said.partition("=")
    known = settings().cities
    if not unit or name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise UsageError(f"--in {said}: write NAME=CODE with a name of URBAN_REID_CITIES, which holds {there}")
    if name not in settings().city_tokens:
        raise UsageError(f"--in {said}: URBAN_REID_CITY_TOKENS has no token for {name}")
    address = urlsplit(known[name])
    if address.scheme != "https" and address.hostname not in _LOOPBACK:
        raise UsageError(f"URBAN_REID_CITIES: {name} is not reached by https, so its token would be seen on the way")
    return name, unit


def _read(file: Path) -> bytes:
    from pipeline.ingest.picture_roots import Place
    from schemas.errors import PictureError

    try:
        return Place(file).read()
    except PictureError as error:
        raise InputError(f"--probe {file}: {error}") from None


def _ask(name: str, unit: str, pictures: Sequence[bytes], reason: str) -> "Part":
    import httpx

    from pipeline.search.several import Part
    from urban_reid.client import Client

    try:
        with Client(settings().cities[name], settings().city_tokens[name].get_secret_value()) as city:
            answer = city.search(unit, *pictures, reason=reason, evidence=True)
    except UrbanReidError as error:
        raise type(error)(f"{name}: {error}") from None
    except httpx.HTTPError as error:
        raise UrbanReidError(f"{name}: {settings().cities[name]} does not answer ({type(error).__name__})") from None
    return Part(f"{name}={unit}", SearchResult.model_validate(answer))
