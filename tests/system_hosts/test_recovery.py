"""A city resolved on several hosts while one of them dies or the network is cut: its decisions are as undisturbed."""

from collections.abc import Callable, Iterator

import pytest

from pipeline.store.silence import SILENCE_S
from tests.helpers.city_on_hosts import FAULTS, CityOnHosts, Recovery
from tests.helpers.hosts import why_not

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]
#: Longer than both sides of a connection wait, so that it is given up. `benchmarks/recovery.py` cuts for a minute.
CUT_S = SILENCE_S + 5.0
LOST_S = 15
#: The others are `make test-slow`, and all are `benchmarks/recovery.py`.
OFTEN = {
    "a_worker_of_prefect_loses_its_power",
    "the_database_is_cut_off",
}


@pytest.fixture(scope="module")
def whole() -> Iterator[CityOnHosts]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with CityOnHosts(LOST_S) as made:
        yield made


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.__name__, marks=() if fault.__name__ in OFTEN else pytest.mark.slow)
        for fault in FAULTS
    ],
)
def test_nothing_is_lost_or_twice_and_the_digest_is_the_same(
    whole: CityOnHosts, fault: Callable[[CityOnHosts, float], Recovery]
) -> None:
    found = fault(whole, CUT_S)
    assert found.state == whole.undisturbed, found
    assert found.state.pending == 0
    assert not [line for line in found.seen if line.startswith('{"error"')]
