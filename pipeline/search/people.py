"""What a search can begin with: the people in a picture, or the crops of an identity."""

from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text

from pipeline.crops.quality import as_png
from pipeline.store import Store
from reid_core.detection import Detector
from schemas.errors import InputError

#: Crops that stand for an identity: the best ones, of as many of its passages as there are.
MOST_CROPS = 8

_CROPS = text(
    "SELECT encode(c.key, 'hex') AS key, c.quality, "
    "row_number() OVER (PARTITION BY m.identity_id ORDER BY c.quality DESC, c.key) AS place "
    "FROM identity_now n CROSS JOIN unnest(n.tracklets) AS t(id) "
    "JOIN identity_member m ON m.identity_id = t.id JOIN crop c ON c.id = m.crop_id "
    "WHERE n.persistent_id = :person AND c.withdrawn_at IS NULL ORDER BY place, c.quality DESC, c.key LIMIT :most"
)


def people_in(detector: Detector, picture: NDArray[np.uint8]) -> list[bytes]:
    """Each person whom the detector is sure of in a picture, uint8 RGB (h, w, 3), from left to right, as PNG."""
    frame = np.ascontiguousarray(picture[:, :, ::-1])
    height, width = picture.shape[:2]
    found = []
    for x, y, w, h, confidence in sorted(detector.detect([frame])[0].tolist()):
        left, top = max(int(x), 0), max(int(y), 0)
        right, bottom = min(int(np.ceil(x + w)), width), min(int(np.ceil(y + h)), height)
        if confidence >= detector.sure and right > left and bottom > top:
            found.append(as_png(picture[top:bottom, left:right]))
    return found


def crops_of_identity(store: Store, person: UUID) -> list[str]:
    """Keys of crops of an identity of any level, a tracklet too, as whoever is signed in sees it; the best one first.

    At most MOST_CROPS. Raises InputError where there is none.
    """
    with store.signed_in() as connection:
        keys = [str(row.key) for row in connection.execute(_CROPS, {"person": person, "most": MOST_CROPS})]
    if not keys:
        raise InputError(f"no identity {person} is shown to you; a search's hits and the report name them")
    return keys
