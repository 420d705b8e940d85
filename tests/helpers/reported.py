"""The city with hostile names and its report, as tests of the pages get it."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
from sqlalchemy import text

from pipeline.cameras.rows import came_up, went_down
from pipeline.crops.context_frames import ContextFrame, context_store, write_frames
from pipeline.crops.crop_store import place_of_crop
from pipeline.store import Store
from tests.helpers.town import Town

HOSTILE = (
    '<script>alert("name")</script>',
    '"><img src=x onerror=alert(1)>',
    "two\nlines\tand \u202eturned\u202c 🚶",
    "{{ 7 * 7 }} {% endraw %} &amp; '",
    "../../etc/passwd\x07",
    "https://elsewhere.example/x.js",
)
LINES = 260  # of the manifest, taken in


@dataclass(frozen=True)
class Reported:
    town: Town
    out: Path  # the report's folder


def give_context_frames(store: Store) -> None:
    """A context frame, of 640 x 480, to each track of the camera with the most crops."""
    done, picture = cv2.imencode(".jpg", np.full((480, 640, 3), 90, np.uint8))
    assert done
    with store.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT DISTINCT ON (track) camera, track, captured_at, batch_id FROM crop WHERE camera = "
                "(SELECT camera FROM crop GROUP BY camera ORDER BY count(*) DESC, camera LIMIT 1) "
                "ORDER BY track, captured_at"
            )
        ).all()
        for row in rows:
            place = place_of_crop(row.camera, row.captured_at)
            sha256 = context_store(store.settings).put(place, picture.tobytes())
            frame = ContextFrame(row.camera, row.track, row.captured_at, sha256, 640, 480)
            write_frames(connection, [frame], row.batch_id)


def blind_cameras(store: Store) -> None:
    """Two outages: one that ended, and one that lasts."""
    with store.begin() as connection:
        rows = connection.execute(
            text("SELECT camera, min(captured_at) AS first FROM crop GROUP BY camera ORDER BY count(*) DESC LIMIT 2")
        ).all()
        day = min(row.first for row in rows).replace(hour=8, minute=0, second=0, microsecond=0)
        for row, minutes in zip(rows, (29, None), strict=True):
            begun = day if minutes else day + timedelta(minutes=5)
            went_down(connection, row.camera, begun, f"no route {HOSTILE[0]}")
            if minutes:
                came_up(connection, row.camera, begun + timedelta(minutes=minutes))
