"""The probe's feature: read where the probe is a stored crop, computed where it is an uploaded picture."""

from typing import Any

import numpy as np
from sqlalchemy import Connection, Result, Row, text

from pipeline.crops.crop_store import CropStore, place_of_crop, place_of_probe
from pipeline.crops.quality import decode
from pipeline.registry import ModelRow
from pipeline.resolve.features import read_features
from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore, compared_features
from schemas.arrays import Floats
from schemas.errors import StoreConflict
from schemas.parameters import SearchParameters

_CROP = text("SELECT id, camera, captured_at, picture FROM crop WHERE key = :key")
_PROBE = text("SELECT picture, uploaded_at FROM probe WHERE id = :id")
_STORED = "SELECT e.v FROM crop_embedding e WHERE e.model_id = :model AND e.crop_id = :crop"


def probe_feature(
    connection: Connection, core: ReIDCore, crops: CropStore, model: ModelRow, parameters: SearchParameters
) -> Floats:
    """(D,) float64, as the model compares it, from a raw feature rounded to half precision as stored ones are.

    To a feature space an uploaded picture is of no camera, but of the unit that is searched. Raises StoreConflict if
    the probe was erased after it was asked for.
    """
    if parameters.crop_key is not None:
        key = bytes.fromhex(parameters.crop_key)
        crop = _row(connection.execute(_CROP, {"key": key}))
        _, stored = read_features(connection, core, model, _STORED, {"crop": crop.id}, {}, crop.camera)
        if len(stored):
            return np.asarray(stored[0], np.float64)
        # a crop that came after the last resolve
        where, place, picture = crop.camera, place_of_crop(crop.camera, crop.captured_at), crop.picture
    else:
        probe = _row(connection.execute(_PROBE, {"id": parameters.probe_id}))
        where, place, picture = parameters.unit, place_of_probe(probe.uploaded_at), probe.picture
    prepared = prepare(decode(crops.get(place, bytes(picture))), core.card.input)
    return np.asarray(compared_features(core, core.embed(prepared[None]).astype(np.float16), [where])[0], np.float64)


def _row(found: Result[Any]) -> Row[Any]:
    row = found.one_or_none()
    if row is None:
        raise StoreConflict("the picture that is searched for was erased meanwhile; ask for another search")
    return row
