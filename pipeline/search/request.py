"""The record of a search before it starts: who searches for which person, where and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore, place_of_probe
from pipeline.crops.quality import decode
from pipeline.governance.deciding import actor_of, deciding
from pipeline.governance.doors import grant_of
from pipeline.registry import ModelRow
from pipeline.store import Store
from schemas.city_file import unknown_unit
from schemas.errors import InputError
from schemas.parameters import SearchParameters

_WHAT = "a search"

_PROBE = text("INSERT INTO probe (id, picture, uploaded_by, uploaded_at) VALUES (:id, :picture, :operator, :now)")
_EXAMPLES = text(
    "INSERT INTO search_example (request_id, crop_id, probe_id, is_person) SELECT :request, e.* FROM unnest("
    "CAST(:crops AS bigint[]), CAST(:probes AS uuid[]), CAST(:are_person AS boolean[])) AS e"
)
_MAY_LOOK = text("SELECT check_may_look(:what)")


def check_may_search(store: Store) -> None:
    """Raises NotAllowed, with its audit row, where whoever is signed in may not search."""
    with deciding(store, _WHAT) as connection:
        connection.execute(_MAY_LOOK, {"what": _WHAT})


def upload_probe(store: Store, crops: CropStore, data: bytes, operator: str) -> UUID:
    """Stores an encoded picture to search for, with its audit row. Returns its id, for `SearchParameters.probe_id`.

    Raises PictureError, HomeError, and NotAllowed in a live home without an authorization.
    """
    pictures = {uuid4(): data}
    with deciding(store, _WHAT) as connection:
        at = insert_probes(store, connection, pictures, operator)
        store_probes(crops, pictures, at)
    return next(iter(pictures))


def insert_probes(store: Store, connection: Connection, pictures: Mapping[UUID, bytes], operator: str) -> datetime:
    """Writes the rows of probes with these new ids, each with its audit row; returns when, for `store_probes`.

    Raises PictureError, NotAllowed.
    """
    now, operator = datetime.now(UTC), actor_of(store, connection, operator)
    for probe, data in pictures.items():
        decode(data)
        values = {"id": probe, "picture": sha256(data).digest(), "operator": operator, "now": now}
        connection.execute(_PROBE, values)
    return now


def store_probes(crops: CropStore, pictures: Mapping[UUID, bytes], at: datetime) -> None:
    """Stores the pictures of new probes: the last step of a transaction, so that what is refused leaves no file.

    Raises HomeError.
    """
    for data in pictures.values():
        crops.put(place_of_probe(at), data)


def request_search(
    store: Store,
    model: ModelRow,
    parameters: SearchParameters,
    again: UUID | None = None,
    *,
    pictures: Mapping[UUID, bytes] | None = None,
) -> UUID:
    """Writes the request, and with it the database its audit row; returns the request's id, for `read_request`.

    In a live home that is what the session's authorization allows: without a period, all of its. `again`: an unanswered
    request that this one stands for. pictures: encoded, by the new ids by which `parameters` name them as probes; they
    are stored with the request, each with its audit row. Raises CityError for a unit, InputError for a crop or probe
    that does not exist, PictureError, HomeError, and NotAllowed; then nothing is written.
    """
    units = {unit.code for unit in read_city(store).units}
    if parameters.unit not in units:
        raise unknown_unit(parameters.unit, units)
    with deciding(store, _WHAT, again) as connection:
        connection.execute(_MAY_LOOK, {"what": _WHAT})  # before it is said whether there is such a probe
        grant = grant_of(connection)
        if grant is not None and not grant.is_open:
            parameters = parameters.model_copy(
                update={
                    "operator": grant.name,
                    "from_time": parameters.from_time or grant.from_time,
                    "to_time": parameters.to_time or grant.to_time,
                }
            )
        at = insert_probes(store, connection, pictures or {}, parameters.operator)
        crops = _check_probes(connection, parameters, units)
        request: UUID = connection.execute(
            text(
                "INSERT INTO search_request (operator, reason, unit, from_time, to_time, crop_id, probe_id, top, "
                "model_id, places, day_from, day_to, attributes) VALUES (:operator, :reason, :unit, :from_time, "
                ":to_time, :crop, :probe, :top, :model, :places, :day_from, :day_to, :attributes) RETURNING id"
            ),
            {
                "operator": parameters.operator,
                "reason": parameters.reason,
                "unit": parameters.unit,
                "from_time": parameters.from_time,
                "to_time": parameters.to_time,
                "crop": crops.get(parameters.crop_key or ""),
                "probe": parameters.probe_id,
                "top": parameters.top,
                "model": model.id,
                "places": list(parameters.places),
                "day_from": parameters.day_from,
                "day_to": parameters.day_to,
                "attributes": list(parameters.attributes.terms) if parameters.attributes else [],
            },
        ).scalar_one()
        examples: list[tuple[int | None, UUID | None, bool]] = [
            *((crops[key], None, True) for key in parameters.more),
            *((crops[key], None, False) for key in parameters.unlike),
            *((None, probe, True) for probe in parameters.pictures),
        ]
        if examples:
            ids, probes, are_person = zip(*examples, strict=True)
            of = {"request": request, "crops": list(ids), "probes": list(probes), "are_person": list(are_person)}
            connection.execute(_EXAMPLES, of)
        if pictures:
            store_probes(CropStore(store.settings), pictures, at)
    return request


@dataclass(frozen=True)
class Request:
    """A written request that was not answered yet."""

    id: UUID
    model_id: int  # in use when it was written
    parameters: SearchParameters
    is_look: bool = False  # of a standing search: asked for by the database


def read_request(store: Store, request: UUID) -> Request:
    """The request of that id. Raises InputError if there is none, or if it was answered: a search is asked for once."""
    with store.signed_in(request) as connection:
        row = connection.execute(_REQUEST, {"id": request}).one_or_none()
    if row is None:
        raise InputError(f"no search was asked for as {request}", do="`urban-reid search` writes a request")
    if row.erased_at is not None:
        raise InputError(f"the search {request} was erased, or its crop was; ask for it anew")
    if row.finished_at is not None:
        raise InputError(f"the search {request} was answered at {row.finished_at:%Y-%m-%d %H:%M} UTC; ask for it anew")
    parameters = SearchParameters(
        unit=row.unit,
        from_time=row.from_time,
        to_time=row.to_time,
        crop_key=row.crop_key,
        probe_id=row.probe_id,
        reason=row.reason,
        operator=row.operator,
        top=row.top,
        more=[key for key, is_person in row.examples if is_person],
        unlike=[key for key, is_person in row.examples if not is_person],
        pictures=row.pictures,
        attributes=", ".join(row.attributes),
        places=row.places,
        day_from=row.day_from,
        day_to=row.day_to,
    )
    return Request(request, row.model_id, parameters, row.is_look)


_REQUEST = text(
    "SELECT r.unit, r.from_time, r.to_time, encode(c.key, 'hex') AS crop_key, r.probe_id, r.reason, r.operator, r.top, "
    "r.model_id, r.finished_at, r.erased_at, r.standing_id IS NOT NULL AS is_look, r.places, r.day_from, r.day_to, "
    "coalesce((SELECT jsonb_agg("
    "jsonb_build_array(encode(k.key, 'hex'), e.is_person) ORDER BY k.key) FROM search_example e "
    "JOIN crop k ON k.id = e.crop_id WHERE e.request_id = r.id), '[]') AS examples, r.attributes, ARRAY("
    "SELECT e.probe_id FROM search_example e WHERE e.request_id = r.id AND e.probe_id IS NOT NULL ORDER BY 1"
    ") AS pictures "
    "FROM search_request r LEFT JOIN crop c ON c.id = r.crop_id WHERE r.id = :id"
)


def check_uploaded(connection: Connection, probes: Sequence[UUID]) -> None:
    """Raises InputError for a probe that was not uploaded, or not for the case of whoever is signed in."""
    query = text("SELECT count(*) FROM probe WHERE id = :id")
    for probe in probes:
        if not connection.execute(query, {"id": probe}).scalar_one():
            raise InputError(f"no probe {probe} was uploaded", do="`urban-reid search --probe FILE` uploads one")


def _check_probes(connection: Connection, parameters: SearchParameters, units: set[str]) -> dict[str, int]:
    """The ids of the crops that the search is asked with, by key. Raises InputError and CityError."""
    for code in parameters.places:
        if code not in units:
            raise unknown_unit(code, units)
    check_uploaded(connection, [probe for probe in (parameters.probe_id, *parameters.pictures) if probe is not None])
    keys = [key for key in (parameters.crop_key, *parameters.more, *parameters.unlike) if key is not None]
    rows = connection.execute(_CROPS, {"keys": [bytes.fromhex(key) for key in keys]})
    found = {row.key: row for row in rows}
    for key in keys:
        if key not in found:
            raise InputError(f"no crop has the key {key}", do="`urban-reid resolve --export` lists keys")
        if found[key].withdrawn_at is not None:
            raise InputError(f"crop {key} was withdrawn when ingest batch {found[key].batch_id} was undone")
    return {key: int(row.id) for key, row in found.items()}


_CROPS = text("SELECT id, encode(key, 'hex') AS key, batch_id, withdrawn_at FROM crop WHERE key = ANY(:keys)")
