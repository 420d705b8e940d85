"""The features door: crops of a simulated city, which has features and no pictures.

They fill the same rows as crops with pictures that the given model embedded. A crop's `picture` is the hash of its
feature, so its key follows from its content as for all crops; no file belongs to it. Times come from the simulation and
may lie in the future.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from pipeline.city import watermarks
from pipeline.registry import ModelRow
from pipeline.store import Store
from pipeline.store.copy import copy_in, new_ids
from pipeline.store.partitions import ensure_partitions
from schemas.keys import crop_key
from schemas.times import from_us, utc_days
from synthetic.embedding_city import PassageBatch

SOURCE = "simulated"
#: Width and height in the rows of crops without a picture, pixels.
_SIZE_PX = (1, 1)


def take_in_features(
    store: Store, model: ModelRow, cameras: Sequence[str], batch: PassageBatch, *, people: str = "p"
) -> int:
    """Writes a batch's crops, their features and their truth in one transaction; returns how many crops.

    `model`: the model that the features are stored for. `cameras`: the codes of the batch's camera numbers. `people`:
    prefix of a person's number in the truth. Raises StoreError for a crop that is stored already.
    """
    if not len(batch):
        return 0
    times = batch.time_us.tolist()
    codes = [cameras[camera] for camera in batch.camera.tolist()]
    vectors = np.ascontiguousarray(batch.features, np.float32)
    pictures = [hashlib.sha256(vector.tobytes()).digest() for vector in vectors]
    moments = [from_us(us) for us in times]
    keys = [crop_key(*parts) for parts in zip(codes, moments, [SOURCE] * len(codes), pictures, strict=True)]
    with store.begin() as connection:
        ensure_partitions(connection, "crop_embedding", model.features_id, utc_days(times))
    with store.begin() as connection:
        ids = np.array(new_ids(connection, "crop", len(keys)))
        copy_in(
            connection,
            "crop",
            {
                "id": ("int8", ids),
                "key": ("bytea", keys),
                "camera": ("text", codes),
                "captured_at": ("timestamptz", batch.time_us),
                "timed": ("bool", np.ones(len(keys), bool)),
                "source": ("text", [SOURCE] * len(keys)),
                "track": ("text", [str(track) for track in batch.track.tolist()]),
                "picture": ("bytea", pictures),
                "width_px": ("int4", np.full(len(keys), _SIZE_PX[0])),
                "height_px": ("int4", np.full(len(keys), _SIZE_PX[1])),
                "quality": ("float4", batch.quality),
            },
        )
        truth = [f"{people}{person}" for person in batch.person.tolist()]
        copy_in(connection, "crop_truth", {"crop_id": ("int8", ids), "truth": ("text", truth)})
        copy_in(
            connection,
            "crop_embedding",
            {
                "model_id": ("int4", np.full(len(keys), model.features_id)),
                "day": ("date", batch.time_us.astype("datetime64[us]").astype("datetime64[D]")),
                "crop_id": ("int8", ids),
                "v": ("halfvec", vectors),
            },
        )
        watermarks.mark_crops(connection, zip(codes, moments, strict=True), store.settings.association.window_s)
    return len(keys)
