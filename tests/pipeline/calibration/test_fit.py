import re

import pytest

from pipeline.calibration.fit import calibrate
from schemas.errors import InputError
from schemas.settings import Settings
from tests.helpers.town import PACKAGED


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "'': calibrate on rendered:SEED"),
        ("rendered:", "'rendered:': calibrate on rendered:SEED"),
        ("elsewhere:1", "'elsewhere:1': calibrate on rendered:SEED"),
        ("rendered:one", "rendered:one: seeds must be different whole numbers, as in rendered:101,102"),
        ("simulated:7,7", "simulated:7,7: seeds must be different whole numbers, as in simulated:101,102"),
        ("market1501:/nowhere/at/all", "/nowhere/at/all"),
    ],
)
def test_a_bad_source_is_refused_with_what_to_write(settings: Settings, source: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        calibrate(settings, PACKAGED, source)
