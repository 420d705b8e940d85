"""The core on a Ray cluster of three hosts, one of which dies or is cut off: calls are answered, with the same bits."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.store.silence import SILENCE_S
from tests.helpers.hosts import Network
from tests.helpers.ray_hosts import Calls, RayHosts, a_host_is_cut_off, a_host_loses_its_power

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(network: Network, disk: Callable[[str], Path]) -> RayHosts:
    return RayHosts(network, disk("ray"))


@pytest.mark.parametrize("fault", [a_host_loses_its_power, pytest.param(a_host_is_cut_off, marks=pytest.mark.slow)])
def test_each_call_is_answered_with_the_same_bits(cluster: RayHosts, fault: Callable[[RayHosts, float], Calls]) -> None:
    assert cluster.replicas() == [1, 1, 1]
    found = fault(cluster, SILENCE_S + 5.0)
    assert found.answered and not found.wrong and not found.failed, found
