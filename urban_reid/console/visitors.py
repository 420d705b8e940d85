"""Who asks for a page: a signed-in account, or in an open home whoever holds the link that the command printed."""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from threading import Lock

from pydantic import SecretStr
from starlette.datastructures import URL
from starlette.requests import Request

from pipeline.governance.doors import Grant, grant_of, is_live
from pipeline.store import Store

COOKIE = "urban_reid_session"
#: How long the printed link works, seconds, if nobody has used it.
LINK_S = 600.0


def cookie_name(url: URL) -> str:
    """What the cookie of the console at an address is called.

    Browsers send the cookies of a host to each of its ports, so the name tells two consoles on one machine apart.
    `__Host-`: browsers take it over TLS alone, and from this very host.
    """
    name = COOKIE if url.port is None else f"{COOKIE}_{url.port}"
    return f"__Host-{name}" if url.scheme == "https" else name


def cookie_of(request: Request) -> str:
    """The cookie that came with a request; empty without one."""
    return request.cookies.get(cookie_name(request.url), "")


def new_link(url: str, key: bytes) -> str:
    """A link to the console at `url` with this key: its first user is let in, within LINK_S, while the home is open."""
    said = f"{int(time.time() + LINK_S)}.{secrets.token_urlsafe(16)}"
    return f"{url}/enter/{said}.{_signed(said, key)}"


def _signed(said: str, key: bytes) -> str:
    return hmac.new(key, f"enter {said}".encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Visitor:
    """Somebody who may see pages. `store` works under their session."""

    token: str  # of the session in a live home; in an open one a secret of this process
    grant: Grant
    store: Store
    secret: bytes  # of this visitor, for links to pictures and for forms

    @property
    def name(self) -> str:
        return self.grant.name or self.store.settings.operator

    @property
    def form_key(self) -> str:
        """What each form must send back, so that no other site can send it."""
        return hmac.new(self.secret, b"form", hashlib.sha256).hexdigest()


@dataclass
class Visitors:
    """Knows visitors by their cookie."""

    store: Store
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _used: set[str] = field(default_factory=set)  # links that were followed
    _open: set[str] = field(default_factory=set)  # cookies of an open home
    _lock: Lock = field(default_factory=Lock)

    def is_open_home(self) -> bool:
        """Whether the home holds no people of real cameras, so that nobody needs an account."""
        return not is_live(self.store)

    def enter(self, link: str) -> str | None:
        """The cookie of whoever followed a link of `new_link`; None if it does not work, or not any more."""
        said, _, signature = link.rpartition(".")
        until, _, _ = said.partition(".")
        if not hmac.compare_digest(signature.encode(), _signed(said, self.key).encode()):
            return None
        if time.time() > int(until) or not self.is_open_home():
            return None
        with self._lock:  # of two who follow it at once the first one is let in
            if link in self._used:
                return None
            self._used.add(link)
        cookie = secrets.token_hex(32)
        self._open.add(cookie)
        return cookie

    def leave(self, cookie: str) -> None:
        self._open.discard(cookie)

    def find(self, cookie: str) -> Visitor | None:
        """The visitor with this cookie; None if nobody has it, or what it stood for has ended."""
        store = self.store.under(SecretStr(cookie) if cookie else None)
        with store.signed_in() as connection:
            grant = grant_of(connection)
        if grant is None or (grant.is_open and cookie not in self._open):
            return None
        return Visitor(cookie, grant, store, hmac.new(self.key, cookie.encode(), hashlib.sha256).digest())
