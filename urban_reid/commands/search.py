"""urban-reid search: finds one person from pictures, or people by what they wear."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import typer
from rich.box import SIMPLE

from schemas.errors import InputError, PictureError, UsageError
from schemas.feeds import Outage
from schemas.parameters import LEAD, Covered, SearchHit, SearchParameters
from schemas.settings import settings
from schemas.times import period_text
from urban_reid.arguments import AsJson, FromTime, Operator, ToTime, checked, moment
from urban_reid.earlier_names import Command
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import steps

app = typer.Typer()

#: Most outages that are printed.
_OUTAGES = 5


@app.command(
    cls=Command, epilog="Example: urban-reid search --probe person.jpg --unit d1 --reason 'missing child, case 17'"
)
def search(
    unit: Annotated[str, typer.Option(metavar="CODE", help="The unit to search, such as d1 or d1/s1.")],
    reason: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Why this person is searched for. Written to the audit before the search starts."
        ),
    ],
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|CROP-KEY|IDENTITY",
            help="A picture, the key of a stored crop, or the id of an identity. Without one: --attributes.",
        ),
    ] = None,
    attributes: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What the person wears and carries: 'red top, long trousers, no hat'. A filter with --probe, a "
            "list of people without.",
        ),
    ] = None,
    operator: Operator = None,
    more: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|CROP-KEY", help="A further picture or crop of the same person; may be repeated."),
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(metavar="CROP-KEY", help="A crop of whom it is not; may be repeated.")
    ] = None,
    person: Annotated[
        int | None, typer.Option(metavar="N", help="Which of several people in the picture, from the left, from 1.")
    ] = None,
    places: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="A camera or place below the unit; may be repeated.")
    ] = None,
    from_time: FromTime = None,
    to_time: ToTime = None,
    day_from: Annotated[
        str | None, typer.Option(metavar="HH:MM", help="Start of hours of the day, in the city's zone.")
    ] = None,
    day_to: Annotated[
        str | None, typer.Option(metavar="HH:MM", help="Their end; earlier than the start: over midnight.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", help="Most hits to return, 1 to 200.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Search a unit for the person in pictures, or for people by what they wear.

    Who searches and why is written to the audit first.
    """
    from urban_reid import running

    if probe is None and attributes is None:
        raise UsageError("--probe or --attributes is missing: a search begins with a picture, or with what is worn")

    asked: dict[str, Any] = {
        "unit": unit,
        "reason": reason,
        "operator": operator or settings().operator,
        "from_time": moment(from_time),
        "to_time": moment(to_time),
        "day_from": day_from,
        "day_to": day_to,
        "more": [one for one in more or () if _is_key(one)],
        "attributes": attributes,
        "unlike": unlike or (),
        "places": places or (),
        "top": top,
    }
    files = [one for one in more or () if not _is_key(one)]
    key = probe if probe is not None and _is_key(probe) else None
    identity = None if probe is None else _identity(probe)
    # All other options are checked before a picture is read and stored.
    if probe is None and (files or person is not None):
        raise UsageError("--more and --person belong to --probe, which is missing")
    parameters = checked(SearchParameters, crop_key=key or (None if probe is None else "0" * 64), **asked)
    sent = {}
    if probe is not None and key is None and identity is None:
        sent[probe] = _person("--probe", probe, _read("--probe", Path(probe)), person)
    sent |= {file: _person("--more", file, _read("--more", Path(file)), None) for file in files}
    with running.ready(settings(), unit) as opened:
        if identity is not None:
            from pipeline.search.people import crops_of_identity

            key, *others = crops_of_identity(opened.store, identity)
            asked["more"] = list(dict.fromkeys([*others, *asked["more"]]))
        pictures = {uuid4(): data for data in sent.values()}
        if pictures or identity is not None:
            probes = list(pictures)
            first = None if key else probes.pop(0)
            parameters = checked(SearchParameters, crop_key=key, probe_id=first, pictures=probes, **asked)
        with steps() as begin:
            begin(f"searching {unit}")
            request, result = running.search(settings(), parameters, pictures)
    if as_json:
        print_json({"request": str(request), **result.model_dump(mode="json", exclude={"evidence"})})
        return
    zone = ZoneInfo(opened.city.timezone)
    covered = period_of(result.covered, zone)
    if result.hits:
        each = f"each hit is a {LEAD}" if parameters.has_picture else "a list of people, and no identification"
        out().print(f"{each}; searched: {shown(covered)}", soft_wrap=True)
        out().print(hits_table(result.hits, zone))
        out().print(shown(result.summary))
    else:
        out().print(f"no identity was seen then; searched: {shown(covered)}", soft_wrap=True)
    for uploaded_id in (parameters.probe_id, *parameters.pictures):
        if uploaded_id is not None:
            out().print(f"probe {uploaded_id}", soft_wrap=True)
    for line in blind_lines(result.blind, zone):
        out().print(shown(line), soft_wrap=True)


def period_of(covered: Covered, zone: ZoneInfo) -> str:
    """What a search looked at, in words."""
    bounds = [
        f"{word} {period_text(at, at, zone)}"
        for word, at in (("from", covered.from_time), ("to", covered.to_time))
        if at
    ]
    said = f"{covered.unit}, {covered.cameras} cameras, {' '.join(bounds) or 'all times'}"
    if covered.exact:
        return said
    recall = "not measured yet" if covered.recall is None else f"{covered.recall:.3f}"
    return f"{said}; by a shortlist, recall of the ten nearest: {recall}"


def blind_lines(outages: Sequence[Outage], zone: ZoneInfo) -> list[str]:
    """What a search may have missed, the latest first: a line for each of a few outages, and how many more."""
    lines = [f"camera {one.camera} blind {one.when(zone)}: {one.reason}" for one in outages[:_OUTAGES]]
    more = len(outages) - len(lines)
    return [*lines, f"and {more} more such times; --json lists them"] if more else lines


def _is_key(said: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", said) is not None


def _identity(probe: str) -> UUID | None:
    try:
        return UUID(probe) if len(probe) == 36 else None
    except ValueError:
        return None


def _person(option: str, file: str, data: bytes, chosen: int | None) -> bytes:
    """The one person in a picture, or the chosen one; the whole picture where this home has no detector."""
    from reid_core.decoding import decode
    from reid_core.detection.files import default_detector

    try:
        pixels = decode(data)
    except PictureError as error:
        raise PictureError(f"{option} {file}: {error}") from None
    if default_detector(settings()) is None:
        if chosen is not None:
            raise UsageError("--person: this home has no detector; `urban-reid models get NAME` registers one")
        return data
    from pipeline.search.people import people_in
    from reid_core.detection import open_detector

    people = people_in(open_detector(settings()), pixels)
    if chosen is None and len(people) > 1:
        way = f"add --person 1 (the leftmost) to {len(people)}" if option == "--probe" else "cut the person out"
        raise UsageError(f"{option} {file}: shows {len(people)} people; {way}")
    if chosen is not None and not 1 <= chosen <= len(people):
        raise UsageError(f"--person {chosen}: {len(people)} people were found in {file}")
    return people[(chosen or 1) - 1] if people else data


def _read(option: str, file: Path) -> bytes:
    from pipeline.ingest.picture_roots import Place

    try:
        return Place(file).read()
    except PictureError as error:
        raise InputError(
            f"{option} {file}: neither a crop key of 64 hex digits, nor an identity's id, nor a picture: {error}"
        ) from None


def hits_table(hits: Sequence[SearchHit], zone: ZoneInfo) -> Table:
    """The hits as a table, times in `zone`. Ids and keys are cut to eight digits, as in the report."""
    seen = f"seen ({shown(zone.key)})"
    are_leads = any(hit.lead for hit in hits)  # not in a home without authorizations
    is_list = any(hit.distance is None for hit in hits)  # of a search without a picture
    says = ["shows"] if is_list else ["distance", "probability"]
    columns = ("#", *(["lead"] if are_leads else []), *says, "identity", seen, "cameras", "crop")
    table = Table(*columns, box=SIMPLE, padding=(0, 0))
    several_models = len({hit.model for hit in hits}) > 1
    for hit in hits:
        table.add_row(
            str(hit.rank),
            *([str(hit.lead)[:8] if hit.lead else ""] if are_leads else []),
            *_said(hit, several_models),
            str(hit.identity)[:8],
            period_text(hit.first_seen, hit.last_seen, zone) if hit.first_seen and hit.last_seen else "",
            "\n".join(sorted({crop.camera for crop in hit.crops})),
            hit.crops[0].key[:8],
        )
    return table


def _said(hit: SearchHit, several_models: bool) -> list[str]:
    """What the table says of a hit: its distance and probability, or what it shows."""
    if hit.distance is None:
        return [", ".join(hit.attributes or ())]
    distance = f"{hit.distance:.3f}" + (f"\nby {shown(hit.model)}" if several_models else "")
    stated = "impossible" if hit.impossible else "" if hit.probability is None else f"{hit.probability:.2f}"
    return [distance, stated]
