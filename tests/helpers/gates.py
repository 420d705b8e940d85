"""Two buildings with four cameras, and nodes seen at them."""

import numpy as np

from pipeline.association.geometry import unit_geometry
from pipeline.association.nodes import Nodes, Spans
from schemas.city_file import City
from schemas.settings import AssociationSettings

CITY = City.model_validate(
    {
        "units": [
            {"code": "d1"},
            {"code": "d1/s1"},
            {"code": "d1/s1/b1"},
            {"code": "d1/s1/b2"},
            {"code": "d1/s1/b1/c1", "position": [0, 0], "overlaps": ["d1/s1/b1/c2"], "clock_uncertainty_s": 1},
            {"code": "d1/s1/b1/c2", "position": [5, 0], "clock_uncertainty_s": 1},
            {"code": "d1/s1/b1/c3", "position": [90, 0], "clock_uncertainty_s": 1},
            {"code": "d1/s1/b2/c1", "clock_uncertainty_s": 1},
        ],
        "walks": [{"from": "d1/s1/b1", "to": "d1/s1/b2", "shortest_s": 30}],
    }
)
CAMERAS = ["d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b1/c3", "d1/s1/b2/c1"]


def nodes(*spans: list[tuple[int, float, float]], timed: bool = True) -> Nodes:
    """A node for each list of tracklets (camera, first second, last second)."""
    flat = [span for node in spans for span in node]
    n = len(spans)
    return Nodes(
        [bytes([i]) for i in range(n)],
        np.ones((n, 2)),
        np.ones(n),
        Spans(
            np.array([s[0] for s in flat]),
            np.array([round(s[1] * 1e6) for s in flat]),
            np.array([round(s[2] * 1e6) for s in flat]),
            np.cumsum([0] + [len(node) for node in spans]),
        ),
        np.full(n, timed),
        np.ones(n, bool),
    )


GEOMETRY = unit_geometry(CITY, "d1/s1", AssociationSettings(fastest_walk_m_s=6.0))
