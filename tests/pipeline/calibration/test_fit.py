import pytest

from pipeline.calibration.fit import calibrate
from schemas.errors import InputError
from tests.helpers.town import PACKAGED


@pytest.mark.parametrize("source", ["", "rendered:", "rendered:one", "elsewhere:1", "market1501:/nowhere/at/all"])
def test_bad_sources_say_what_to_write(settings, source: str) -> None:
    with pytest.raises(InputError):
        calibrate(settings, PACKAGED, source)
