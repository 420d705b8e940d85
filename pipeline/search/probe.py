"""The probe's feature: read where the probe is a stored crop, computed where it is an uploaded picture.

Several pictures of the person count as the mean of their features, as the crops of an identity do.
"""

import numpy as np
from sqlalchemy import Connection, text

from pipeline.crops.crop_store import CropStore, place_of_crop, place_of_probe
from pipeline.crops.quality import decode
from pipeline.registry import ModelRow
from pipeline.resolve.features import read_features
from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore, compared_features
from schemas.arrays import Floats
from schemas.parameters import SearchParameters

_CROP = text("SELECT id, camera, captured_at, picture FROM crop WHERE key = :key")
_PROBE = text("SELECT picture, uploaded_at FROM probe WHERE id = :id")
_STORED = "SELECT e.v FROM crop_embedding e WHERE e.model_id = :model AND e.crop_id = :crop"


def probe_feature(
    connection: Connection, core: ReIDCore, crops: CropStore, model: ModelRow, parameters: SearchParameters
) -> Floats:
    """(D,) float64, as the model compares it, from raw features rounded to half precision as stored ones are.

    To a feature space an uploaded picture is of no camera, but of the unit that is searched.
    """
    keys = [key for key in (parameters.crop_key, *parameters.more) if key is not None]
    features = [crop_feature(connection, core, crops, model, key) for key in keys]
    for uploaded in (parameters.probe_id, *parameters.pictures):
        if uploaded is not None:
            probe = connection.execute(_PROBE, {"id": uploaded}).one()
            picture = crops.get(place_of_probe(probe.uploaded_at), bytes(probe.picture))
            features.append(_embedded(core, picture, parameters.unit))
    return np.asarray(np.mean(features, axis=0), np.float64)


def crop_feature(connection: Connection, core: ReIDCore, crops: CropStore, model: ModelRow, key: str) -> Floats:
    """(D,) The same of a stored crop, by its key."""
    crop = connection.execute(_CROP, {"key": bytes.fromhex(key)}).one()
    _, stored = read_features(connection, core, model, _STORED, {"crop": crop.id}, {}, crop.camera)
    if len(stored):
        return np.asarray(stored[0], np.float64)
    # a crop that came after the last resolve
    return _embedded(core, crops.get(place_of_crop(crop.camera, crop.captured_at), bytes(crop.picture)), crop.camera)


def _embedded(core: ReIDCore, picture: bytes, where: str) -> Floats:
    prepared = prepare(decode(picture), core.card.input)
    return np.asarray(compared_features(core, core.embed(prepared[None]).astype(np.float16), [where])[0], np.float64)
