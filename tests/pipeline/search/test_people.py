"""What a search can begin with: one of the people in a picture, or an identity of any level."""

from uuid import uuid4

import cv2
import numpy as np
import pytest
from sqlalchemy import text

from pipeline.crops.quality import as_png
from pipeline.search.people import MOST_CROPS, crops_of_identity, people_in
from reid_core.decoding import decode
from schemas.errors import InputError
from tests.helpers.red_detector import RedDetector
from tests.helpers.town import Town

RED = (0, 0, 255)  # BGR


def test_people_are_cut_out_from_left_to_right() -> None:
    frame = np.full((120, 200, 3), 90, np.uint8)
    for left, blue in ((150, 30), (20, 0)):
        cv2.rectangle(frame, (left, 30), (left + 29, 99), RED, -1)
        cv2.rectangle(frame, (left + 10, 50), (left + 12, 52), (blue, 0, 200), -1)
    found = [decode(one) for one in people_in(RedDetector(), frame[:, :, ::-1])]
    assert len(found) == 2
    for one in found:
        height, width = one.shape[:2]
        assert abs(height - 70) <= 2 and abs(width - 30) <= 2
    assert people_in(RedDetector(), np.full((50, 50, 3), 90, np.uint8)) == []
    assert (decode(as_png(frame)) == frame).all()


def test_an_identity_stands_for_its_best_crops_of_each_passage(resolved: Town) -> None:
    query = (
        "SELECT persistent_id, cardinality(tracklets) AS passages FROM identity_now WHERE unit = :unit "
        "ORDER BY crops DESC, key"
    )
    for unit in ("d1", "d1/s1/b1/c1"):
        with resolved.store.begin() as connection:
            person = connection.execute(text(query), {"unit": unit}).first()
            assert person is not None
            keys = crops_of_identity(resolved.store, person.persistent_id)
            sql = (
                "SELECT encode(c.key, 'hex') AS key, m.identity_id AS passage, c.quality FROM crop c "
                "JOIN identity_member m ON m.crop_id = c.id JOIN identity_now n ON m.identity_id = ANY(n.tracklets) "
                "WHERE n.persistent_id = :id"
            )
            crops = {row.key: row for row in connection.execute(text(sql), {"id": person.persistent_id})}
        assert 1 <= len(keys) <= MOST_CROPS and set(keys) <= set(crops)
        assert crops[keys[0]].quality == max(crop.quality for crop in crops.values())
        passages = [crops[key].passage for key in keys]
        assert len(set(passages[: person.passages])) == min(person.passages, len(keys))  # one of each first
    with pytest.raises(InputError, match="no identity"):
        crops_of_identity(resolved.store, uuid4())
