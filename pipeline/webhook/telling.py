"""Sends the webhook's messages until they are taken.

Rows of the database are the queue: what was told is marked there, so that nothing is lost when this process or the
receiver is away, and nobody waits for it. A message may come twice; its id is the same then.

    POST URL
    Content-Type: application/json
    X-Urban-Reid-Timestamp: 1767268800          seconds since 1970 when it was sent
    X-Urban-Reid-Signature: v1=HEX              HMAC-SHA256, with the secret, of TIMESTAMP.BODY

    {"id": "17-down", "event": "camera.down", ...}
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause

from pipeline.store import Store
from pipeline.webhook.hook import Hook, hook_of, signature
from schemas.errors import StoreError
from schemas.logs import in_words

LOOK_EVERY_S = 2.0
ANSWER_WITHIN_S = 10.0
#: Pauses after a message that was not taken, the last one for as long as it is not.
PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Message:
    """A message that waits. Of one `group` none is sent before those ahead of it were taken."""

    group: str
    content: dict[str, Any]  # with an "id" that no other message has
    taken: tuple[TextClause, dict[str, Any]]  # marks it as told


#: Reads what waits now, in the order in which it is sent.
Queue = Callable[[Store, datetime], Sequence[Message]]


def tell(store: Store, hook: Hook, queues: Sequence[Queue], now: datetime) -> str | None:
    """Sends what waits. Returns why not all of it was taken, without the address; None if it was.

    A message that is refused holds up those of its group alone; a receiver that does not answer holds up all.
    """
    import httpx

    fault, refused = None, set[str]()
    messages = [message for queue in queues for message in queue(store, now)]
    if not messages:
        return None
    try:
        with httpx.Client(timeout=ANSWER_WITHIN_S) as client:
            for message in messages:
                if message.group in refused:
                    continue
                status = client.post(hook.url, **_request(hook, message)).status_code
                if 200 <= status < 300:
                    with store.begin() as connection:
                        connection.execute(*message.taken)
                else:
                    fault = f"answers with status {status}"
                    refused.add(message.group)
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


@contextmanager
def telling(store: Store, queues: Sequence[Queue], say: Say, clock: Callable[[], datetime]) -> Iterator[None]:
    """Sends messages from a thread of its own until the block ends. Raises as `hook_of`.

    `say` gets a line when messages are no longer taken, and one when they are again.
    """
    hook = hook_of(store.settings)
    if hook is None:
        yield
        return
    ended = threading.Event()
    work = (store, hook, queues, ended, say, clock)
    thread = threading.Thread(target=_tell_always, args=work, name="webhook", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=ANSWER_WITHIN_S + 1)


def _tell_always(
    store: Store,
    hook: Hook,
    queues: Sequence[Queue],
    ended: threading.Event,
    say: Say,
    clock: Callable[[], datetime],
) -> None:
    failures, pause_s, said = 0, LOOK_EVERY_S, ""
    while not ended.wait(pause_s):
        try:
            fault = tell(store, hook, queues, clock())
        except StoreError:  # `up` says so, and starts the database again
            continue
        except Exception as error:  # the thread must not end
            fault = f"failed: {in_words(error)}"
        if fault is None:
            if failures:
                say("the webhook takes messages again")
            failures, pause_s, said = 0, LOOK_EVERY_S, ""
            continue
        if fault != said:
            said = fault
            say(f"the webhook {fault}; its messages wait, and are sent again")
        pause_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
        failures += 1
    if not failures:  # what ended `up` has ended the cameras too, which wrote that they are blind now
        with suppress(StoreError):
            tell(store, hook, queues, clock())
