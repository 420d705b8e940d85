"""What is written before a search begins: the picture, and who asks for whom, where and why."""

from uuid import UUID

from sqlalchemy import text

from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.crops.quality import decode
from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow
from pipeline.store import Store
from schemas.city_file import unknown_unit
from schemas.errors import InputError
from schemas.parameters import SearchParameters


def upload_probe(store: Store, crops: CropStore, data: bytes, operator: str) -> UUID:
    """Keeps an encoded picture to search for; the id to search with. Raises PictureError, HomeError."""
    decode(data)
    picture = crops.put(data)
    with store.begin() as connection:
        probe: UUID = connection.execute(
            text("INSERT INTO probe (picture, uploaded_by) VALUES (:picture, :operator) RETURNING id"),
            {"picture": picture, "operator": operator},
        ).scalar_one()
        audit(connection, operator, Action.PROBE_UPLOAD, details={"probe": str(probe), "picture": picture.hex()})
    return probe


def request_search(store: Store, model: ModelRow, parameters: SearchParameters) -> UUID:
    """Writes who searches for whom, where and why, and the audit's row, in one transaction; the request's id.

    Raises CityError and InputError for a unit, crop or probe that is not there; then nothing is written.
    """
    known = {unit.code for unit in read_city(store).units}
    if parameters.unit not in known:
        raise unknown_unit(parameters.unit, known)
    with store.begin() as connection:
        crop_id = None
        if parameters.crop_key is not None:
            crop_id = connection.execute(
                text("SELECT id FROM crop WHERE key = :key"), {"key": bytes.fromhex(parameters.crop_key)}
            ).scalar_one_or_none()
            if crop_id is None:
                raise InputError(f"no crop has the key {parameters.crop_key}; `urban-reid resolve --export` lists keys")
        elif not connection.execute(
            text("SELECT count(*) FROM probe WHERE id = :id"), {"id": parameters.probe_id}
        ).scalar_one():
            raise InputError(f"no probe {parameters.probe_id} was uploaded; `urban-reid search --probe FILE` does it")
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
                "crop": crop_id,
                "probe": parameters.probe_id,
                "top": parameters.top,
                "model": model.id,
            },
        ).scalar_one()
        details = parameters.model_dump(mode="json", include={"crop_key", "probe_id", "from_time", "to_time", "top"})
        audit(
            connection,
            parameters.operator,
            Action.SEARCH_START,
            unit=parameters.unit,
            reason=parameters.reason,
            details={"request": str(request)} | details,
        )
    return request
