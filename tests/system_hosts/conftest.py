"""Hosts for the tests of this folder, which skip where none can be made."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.homes import new_home, remove_home
from tests.helpers.hosts import Network, why_not


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with Network() as made:
        yield made


@pytest.fixture(scope="module")
def disk(network: Network) -> Iterator[Callable[[str], Path]]:
    """Makes a folder of a name; all are removed when the hosts' programs have ended."""
    root = new_home()

    def of(name: str) -> Path:
        folder = root / name
        folder.mkdir(mode=0o711)
        return folder

    yield of
    for host in network.hosts.values():
        host.kill()
    remove_home(root)
