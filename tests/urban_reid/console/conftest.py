from collections.abc import Iterator
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from pipeline.store import embedded
from tests.helpers.console import As
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of
from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.visitors import COOKIE


@pytest.fixture(scope="module", autouse=True)
def _pages_wait_for_counts() -> Iterator[None]:
    """Pages show the counts and curves of now, however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in (("_WITHIN_S", 60.0), ("_YOUNG_S", 0.0), ("_RESTS", 0.0)):
            patch.setattr(f"urban_reid.console.beside.{name}", seconds)
        yield


@pytest.fixture(scope="module")
def governed(server: embedded.EmbeddedServer, resolved: Town) -> Governed:
    """The home, live from here on, with people in every role."""
    made = Governed(resolved.store, superuser_of(server, resolved.store.settings))
    made.as_(None)
    return made


@pytest.fixture(scope="module")
def as_(governed: Governed, resolved: Town) -> Iterator[As]:
    """The console as somebody sees it, under an authorization or none."""
    with TestClient(make_app(resolved.store, ["testserver"]), follow_redirects=True) as client:

        def become(name: str, authorization: UUID | str | None = None) -> TestClient:
            governed.as_(name, UUID(str(authorization)) if authorization else None)
            token = resolved.store.settings.token
            governed.as_(None)
            assert token is not None
            client.cookies.clear()
            client.cookies.set(COOKIE, token.get_secret_value())
            return client

        yield become
