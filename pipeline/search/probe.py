"""The probe's feature: read where the probe is a stored crop, computed where it is an uploaded picture."""

import numpy as np
from sqlalchemy import Connection, text

from pipeline.crops.crop_store import CropStore, place_of_crop, place_of_probe
from pipeline.crops.quality import decode
from pipeline.registry import ModelRow
from pipeline.store.copy import copy_out
from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore
from schemas.arrays import Floats
from schemas.parameters import SearchParameters

_CROP = text("SELECT id, camera, captured_at, picture FROM crop WHERE key = :key")
_PROBE = text("SELECT picture, uploaded_at FROM probe WHERE id = :id")
_STORED = "SELECT v FROM crop_embedding WHERE model_id = :model AND crop_id = :crop"


def probe_feature(
    connection: Connection, core: ReIDCore, crops: CropStore, model: ModelRow, parameters: SearchParameters
) -> Floats:
    """(D,) float64, rounded to half precision as stored features are."""
    if parameters.crop_key is not None:
        key = bytes.fromhex(parameters.crop_key)
        crop = connection.execute(_CROP, {"key": key}).one()
        stored = copy_out(connection, _STORED, {"model": model.id, "crop": crop.id}, {"v": "halfvec"})["v"]
        if len(stored):
            return np.asarray(stored[0], dtype=np.float64)
        place, picture = (
            place_of_crop(crop.camera, crop.captured_at),
            crop.picture,
        )  # a crop that came after the last resolve
    else:
        probe = connection.execute(_PROBE, {"id": parameters.probe_id}).one()
        place, picture = place_of_probe(probe.uploaded_at), probe.picture
    prepared = prepare(decode(crops.get(place, bytes(picture))), core.card.input)
    feature: Floats = core.embed(prepared[None])[0].astype(np.float16).astype(np.float64)
    return feature
