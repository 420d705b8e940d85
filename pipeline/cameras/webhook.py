"""The webhook: an address of the user's that is told when a camera goes down and when it comes up.

The outages in the database are the queue: what was told is marked there, so that nothing is lost when this process or
the receiver is away, and no camera waits. A message may come twice; its id is the same then.

    POST URL
    Content-Type: application/json
    X-Urban-Reid-Timestamp: 1767268800          seconds since 1970 when it was sent
    X-Urban-Reid-Signature: v1=HEX              HMAC-SHA256, with the secret, of TIMESTAMP.BODY

    {"id": "17-down", "event": "camera.down", "camera": "d1/s1/b1/c1", "at": "2026-01-01T12:00:00+00:00",
     "reason": "does not answer"}

An "up" has `down_at` too. A message holds no address of a camera and nothing about people.
"""

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import text

from pipeline.store import Store
from schemas.disk import write_whole
from schemas.errors import HomeError, StoreError, UsageError
from schemas.settings import Settings

FILE = "webhook-secret"
#: What is older was told by nobody in time, and is not told any more.
TELL_WITHIN = timedelta(days=1)
LOOK_EVERY_S = 2.0
ANSWER_WITHIN_S = 10.0
#: Pauses after a message that was not taken, the last one for as long as it is not.
PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)
_AT_A_TIME = 100

Say = Callable[[str], None]


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What X-Urban-Reid-Signature says of a message: v1=HEX."""
    return f"v1={hmac.new(secret.encode(), timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


@dataclass(frozen=True)
class Hook:
    url: str = field(repr=False)  # often holds a token
    secret: str = field(repr=False)


def hook_of(settings: Settings) -> Hook | None:
    """The webhook of the settings; None without an address. Makes the secret's file where there is no secret.

    Raises UsageError for an address that cannot be used, HomeError for a file that cannot be read or made.
    """
    if settings.webhook_url is None:
        return None
    url = settings.webhook_url.get_secret_value()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("URBAN_REID_WEBHOOK_URL: is no address; write https://host/path")
    if settings.webhook_secret is not None:
        return Hook(url, settings.webhook_secret.get_secret_value())
    path = settings.home / FILE
    try:
        if not path.exists():
            write_whole(path, secrets.token_urlsafe(32) + "\n", mode=0o600, sync=True)
        path.chmod(0o600)
        secret = path.read_text(errors="replace").strip()
    except OSError as error:
        raise HomeError(f"{path}: the webhook's secret cannot be read: {error.strerror}") from None
    if not secret:
        raise HomeError(f"{path}: is empty; remove it, and `urban-reid up` makes a new secret")
    return Hook(url, secret)


@dataclass(frozen=True)
class Message:
    outage: int
    column: str  # of camera_outage, that marks it as told
    content: dict[str, Any]


_UNTOLD = text(
    "SELECT id, camera, down_at, up_at, reason, down_told_at, "
    "down_told_at IS NULL AND down_at > :since AS tell_down, up_told_at IS NULL AND up_at > :since AS tell_up "
    "FROM camera_outage WHERE id > :after AND ((down_told_at IS NULL AND down_at > :since) "
    "OR (up_told_at IS NULL AND up_at > :since)) ORDER BY id LIMIT :many"
)


def untold(store: Store, now: datetime, after: int = 0) -> list[Message]:
    """The first messages that wait of outages after this one, in their order, each camera's "down" before its "up"."""
    with store.begin() as connection:
        rows = connection.execute(_UNTOLD, {"since": now - TELL_WITHIN, "many": _AT_A_TIME, "after": after}).all()
    messages = []
    for row in rows:
        of_camera = {"camera": row.camera, "reason": row.reason}
        if row.tell_down:
            down = {"id": f"{row.id}-down", "event": "camera.down", "at": row.down_at.isoformat()}
            messages.append(Message(row.id, "down_told_at", down | of_camera))
        if row.tell_up:
            up = {"id": f"{row.id}-up", "event": "camera.up", "at": row.up_at.isoformat()}
            messages.append(Message(row.id, "up_told_at", up | {"down_at": row.down_at.isoformat()} | of_camera))
    return messages


def tell(store: Store, hook: Hook, now: datetime) -> str | None:
    """Sends what waits. Returns why not all of it was taken, without the address; None if it was.

    A message that is refused holds up those of the same outage, so that "up" never comes before "down", and no others;
    a receiver that does not answer holds up all.
    """
    import httpx

    fault = None
    messages = untold(store, now)
    if not messages:
        return None
    try:
        with httpx.Client(timeout=ANSWER_WITHIN_S) as client:
            while messages:
                refused = 0
                for message in messages:
                    if message.outage == refused:
                        continue
                    status = client.post(hook.url, **_request(hook, message)).status_code
                    if 200 <= status < 300:
                        _mark(store, message)
                    else:
                        fault = f"answers with status {status}"
                        refused = message.outage
                messages = untold(store, now, messages[-1].outage)
    except httpx.TimeoutException:
        return f"does not answer within {ANSWER_WITHIN_S:.0f} s"
    except httpx.HTTPError as error:
        return f"cannot be reached ({type(error).__name__})"
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        return f"cannot be reached through the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names ({error})"
    return fault


def _request(hook: Hook, message: Message) -> dict[str, Any]:
    body, timestamp = json.dumps(message.content).encode(), str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "urban-reid",
        "X-Urban-Reid-Timestamp": timestamp,
        "X-Urban-Reid-Signature": signature(hook.secret, timestamp, body),
    }
    return {"content": body, "headers": headers}


def _mark(store: Store, message: Message) -> None:
    with store.begin() as connection:
        connection.execute(
            text(f"UPDATE camera_outage SET {message.column} = now() WHERE id = :id"), {"id": message.outage}
        )


@contextmanager
def telling(store: Store, say: Say, clock: Callable[[], datetime]) -> Iterator[None]:
    """Sends messages from a thread of its own until the block ends. Raises as `hook_of`.

    `say` gets a line when messages are no longer taken, and one when they are again.
    """
    hook = hook_of(store.settings)
    if hook is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_tell_always, args=(store, hook, ended, say, clock), name="webhook", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=ANSWER_WITHIN_S + 1)


def _tell_always(store: Store, hook: Hook, ended: threading.Event, say: Say, clock: Callable[[], datetime]) -> None:
    failures, pause_s, said = 0, LOOK_EVERY_S, ""
    while not ended.wait(pause_s):
        try:
            fault = tell(store, hook, clock())
        except StoreError:  # `up` says so, and starts the database again
            continue
        if fault is None:
            if failures:
                say("the webhook takes messages again")
            failures, pause_s, said = 0, LOOK_EVERY_S, ""
            continue
        if fault != said:
            said = fault
            say(f"the webhook {fault}; its messages wait, and are sent again for a day")
        pause_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
        failures += 1
    if not failures:  # what ended `up` has ended the cameras too, which wrote that they are blind now
        with suppress(StoreError):
            tell(store, hook, clock())
