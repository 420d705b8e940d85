"""The console as somebody with a browser uses it."""

import re
from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

#: The console as somebody sees it: by name, under an authorization or none.
As = Callable[..., TestClient]


def send(client: TestClient, page: str, path: str, **fields: object) -> Any:
    """Sends a form as the page at `page` does."""
    found = re.search(r'name="form_key" value="(\w+)"', client.get(page).text)
    assert found is not None
    return client.post(path, data={"form_key": found[1], **fields})


def the(pattern: str, shown: str) -> str:
    found = re.search(pattern, shown)
    assert found is not None, shown
    return found[1]
