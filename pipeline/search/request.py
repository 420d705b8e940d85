"""The record of a search before it starts: who searches for which person, where and why."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

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


_MAY_LOOK = text("SELECT check_may_look(:what)")


def upload_probe(store: Store, crops: CropStore, data: bytes, operator: str) -> UUID:
    """Stores an encoded picture to search for, with its audit row. Returns its id, for `SearchParameters.probe_id`.

    Raises PictureError, HomeError, and NotAllowed in a live home without an authorization.
    """
    decode(data)
    with deciding(store, _WHAT) as connection:
        connection.execute(_MAY_LOOK, {"what": _WHAT})  # before the picture is stored
    now = datetime.now(UTC)
    picture = crops.put(place_of_probe(now), data)
    with deciding(store, _WHAT) as connection:
        operator = actor_of(store, connection, operator)
        probe: UUID = connection.execute(
            text(
                "INSERT INTO probe (picture, uploaded_by, uploaded_at) VALUES (:picture, :operator, :now) RETURNING id"
            ),
            {"picture": picture, "operator": operator, "now": now},
        ).scalar_one()
    return probe


def request_search(store: Store, model: ModelRow, parameters: SearchParameters, again: UUID | None = None) -> UUID:
    """Writes the request, and with it the database its audit row; returns the request's id, for `read_request`.

    In a live home that is what the session's authorization allows: without a period, all of its. `again`: an unanswered
    request that this one stands for. Raises CityError for a unit, InputError for a crop or probe that does not exist,
    and NotAllowed; then nothing is written.
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
        request: UUID = connection.execute(
            text(
                "INSERT INTO search_request (operator, reason, unit, from_time, to_time, crop_id, probe_id, top, "
                "model_id) VALUES (:operator, :reason, :unit, :from_time, :to_time, :crop, :probe, :top, :model) "
                "RETURNING id"
            ),
            {
                "operator": parameters.operator,
                "reason": parameters.reason,
                "unit": parameters.unit,
                "from_time": parameters.from_time,
                "to_time": parameters.to_time,
                "crop": _check_probe(connection, parameters),
                "probe": parameters.probe_id,
                "top": parameters.top,
                "model": model.id,
            },
        ).scalar_one()
    return request


@dataclass(frozen=True)
class Request:
    """A written request that was not answered yet."""

    id: UUID
    model_id: int  # in use when it was written
    parameters: SearchParameters


def read_request(store: Store, request: UUID) -> Request:
    """The request of that id. Raises InputError if there is none, or if it was answered: a search is asked for once."""
    with store.signed_in(request) as connection:
        row = connection.execute(_REQUEST, {"id": request}).one_or_none()
    if row is None:
        raise InputError(f"no search was asked for as {request}; `urban-reid search` writes a request")
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
    )
    return Request(request, row.model_id, parameters)


_REQUEST = text(
    "SELECT r.unit, r.from_time, r.to_time, encode(c.key, 'hex') AS crop_key, r.probe_id, r.reason, r.operator, r.top, "
    "r.model_id, r.finished_at, r.erased_at FROM search_request r LEFT JOIN crop c ON c.id = r.crop_id WHERE r.id = :id"
)


def _check_probe(connection: Connection, parameters: SearchParameters) -> int | None:
    """The id of the crop that is the probe; None for an uploaded picture. Raises InputError if there is no such one."""
    if parameters.crop_key is None:
        query = text("SELECT count(*) FROM probe WHERE id = :id")
        if not connection.execute(query, {"id": parameters.probe_id}).scalar_one():
            raise InputError(
                f"no probe {parameters.probe_id} was uploaded; `urban-reid search --probe FILE` uploads one"
            )
        return None
    crop = connection.execute(
        text("SELECT id, batch_id, withdrawn_at FROM crop WHERE key = :key"),
        {"key": bytes.fromhex(parameters.crop_key)},
    ).one_or_none()
    if crop is None:
        raise InputError(f"no crop has the key {parameters.crop_key}; `urban-reid resolve --export` lists keys")
    if crop.withdrawn_at is not None:
        raise InputError(f"crop {parameters.crop_key} was withdrawn when ingest batch {crop.batch_id} was undone")
    return int(crop.id)
