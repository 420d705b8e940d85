"""A small client of the console's API, for scripts.

    from urban_reid.client import Client

    with Client("http://127.0.0.1:8420", token) as city:
        for person in city.people("d1"):
            print(person["identity"], person["last_seen"])
        hits = city.search("d1", Path("child.jpg").read_bytes(), reason="case 17")["hits"]

The token is one of `urban-reid tokens add`; in an open home `Client.from_link` takes the link that `urban-reid console`
prints. What the answers hold is described at /api/openapi.json.
"""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from schemas.errors import InputError, NotAllowed, UrbanReidError

#: Times that a request is sent again after a 429, each when the answer said.
_TRIES = 5


class Client:
    """The console's API under one token. Raises NotAllowed, InputError for what was asked, UrbanReidError."""

    def __init__(self, url: str, token: str, timeout_s: float = 60.0) -> None:
        self.token = token
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s, trust_env=False)

    @classmethod
    def from_link(cls, link: str) -> Self:
        """A client of an open home, by a link that opens it signed in; the link is used up. Raises NotAllowed."""
        answer = httpx.get(link, trust_env=False)
        token = next(iter(answer.cookies.jar), None)
        if token is None or not token.value:
            raise NotAllowed("the link was used, or is older than ten minutes; `urban-reid console` prints a new one")
        parts = urlsplit(link)
        return cls(f"{parts.scheme}://{parts.netloc}", token.value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def me(self) -> Any:
        return self._ask("GET", "/api/me").json()

    def city(self) -> Any:
        return self._ask("GET", "/api/city").json()

    def cameras(self) -> Any:
        return self._ask("GET", "/api/cameras").json()

    def leads(self) -> Any:
        return self._ask("GET", "/api/leads").json()

    def people(self, unit: str) -> Iterator[Any]:
        """All people of a unit, the last seen first, asked for a page at a time."""
        asked: dict[str, Any] = {"unit": unit}
        while True:
            page = self._ask("GET", "/api/people", params=asked).json()
            yield from page["people"]
            if page["next_at"] is None:
                return
            asked = {"unit": unit, "at": page["next_at"], "after": page["next_after"]}

    def journey(self, identity: str | UUID) -> Any:
        return self._ask("GET", f"/api/people/{identity}").json()

    def picture(self, path: str) -> bytes:
        """The JPEG behind a path of an answer."""
        return self._ask("GET", path).content

    def search(self, unit: str, *pictures: bytes, reason: str, attributes: str = "", evidence: bool = False) -> Any:
        """Who looks most like the person in picture files; or, without one, who shows the attributes.

        evidence: whether to state what `pipeline.search.several` merges with answers of other databases.
        """
        fields = {"unit": unit, "reason": reason, "attributes": attributes, "evidence": evidence}
        files = [("picture", ("picture", one)) for one in pictures]
        return self._ask("POST", "/api/searches", data=fields, files=files).json()

    def _ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        for last in (*[False] * (_TRIES - 1), True):
            answer = self._http.request(method, path, **what)
            if answer.status_code != 429 or last:
                break
            time.sleep(float(answer.headers.get("Retry-After", "1")))
        if answer.is_success:
            return answer
        try:
            message = str(answer.json()["error"])
        except (ValueError, KeyError, TypeError):
            message = f"the console answers with status {answer.status_code}"
        if answer.status_code in (401, 403):
            raise NotAllowed(message)
        raise InputError(message) if answer.status_code < 429 else UrbanReidError(message)
