"""Six tracklets in two buildings, with truth, and identities whose errors can be counted by eye."""

import numpy as np

from schemas.city_file import City

C1, C2, C3 = "d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b2/c1"
CITY = City.model_validate(
    {
        "units": [
            *({"code": code} for code in ("d1", "d1/s1", "d1/s1/b1", "d1/s1/b2")),
            *({"code": code, "clock_uncertainty_s": 0} for code in (C1, C2, C3)),
        ],
        "walks": [{"from": "d1/s1/b1", "to": "d1/s1/b2", "shortest_s": 30}],
    }
)
#: Of each tracklet: camera, first and last second, number of crops, person.
CAMERA = [C1, C2, C1, C3, C3, C2]
START, END = np.array([0, 20, 5, 100, 40, 200]), np.array([10, 30, 15, 110, 45, 210])
CROPS = np.array([3, 2, 4, 1, 1, 2])
TRUTH = ["anna", "anna", "bert", "bert", None, "cleo"]
#: In the first building, anna and bert are in one identity, though both are at one camera at once; cleo is alone.
BUILDING, STREET = np.array([1, 1, 1, 2, 3, 4]), np.array([1, 1, 1, 1, 3, 4])
