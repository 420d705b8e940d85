import pytest
from pydantic import ValidationError

from schemas.city_file import City
from schemas.crops import ManifestLine
from schemas.settings import Frozen
from schemas.validation import fault_line

LINE = {"path": "1.jpg", "camera": "d1/s1/b1/c1", "time": "2026-01-01T08:00:00Z"}
UNIT = {"code": "d1"}


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        # A misspelt key, and so the right one is missing.
        (ManifestLine, {"path": "1.jpg", "camera": "d1/s1/b1/c1", "tiem": "x"},
         "unknown key 'tiem'; did you mean 'time'?"),
        (ManifestLine, {**LINE, "Track": "7"}, "unknown key 'Track'; did you mean 'track'?"),
        (ManifestLine, {**LINE, "zzz": 1}, "unknown key 'zzz'; known: box, camera, path, time, track, truth"),
        (ManifestLine, {"path": "1.jpg", "time": LINE["time"]}, "camera: Field required"),
        (ManifestLine, {**LINE, "time": "now"}, "time: 'now' is not a time: write 2026-01-01T08:00:00Z or +01:00"),
        (City, {"units": [UNIT], "wlaks": []}, "unknown key 'wlaks'; did you mean 'walks'?"),
        (City, {"units": [UNIT, {"cod": "d2"}]}, "units.1: unknown key 'cod'; did you mean 'code'?"),
        (City, {"units": [UNIT], "walks": [{"from": "d1", "too": "d2", "shortest_s": 1}]},
         "walks.0: unknown key 'too'; did you mean 'to'?"),
    ],
)  # fmt: skip
def test_the_fault_that_explains_the_others_comes_first(model: type[Frozen], data: object, expected: str) -> None:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(data)
    assert fault_line(raised.value, model) == expected
