"""Prefect's API, asked as its own pages ask it."""

import fcntl
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.helpers.waiting import wait_until

Ask = Callable[[str, dict[str, Any]], Any]

#: A flow of somebody else's, which leaves a mark when it runs, and when it is only loaded.
EVIL = """
from pathlib import Path
from prefect import flow

Path(__file__).with_name("loaded").touch()

@flow
def evil():
    Path(__file__).with_name("ran").touch()
"""


def secret_of(home: Path) -> str:
    return (home / "prefect" / "secret").read_text().strip()


def send(method: str, url: str, secret: str, body: object = None) -> httpx.Response:
    """A request as the pages make it: signed in, with a token against forged requests."""
    user, _, password = secret.partition(":")
    with httpx.Client(auth=(user, password), timeout=30, trust_env=False) as client:
        me = str(uuid4())
        token = client.get(f"{url.partition('/api')[0]}/api/csrf-token?client={me}").raise_for_status().json()["token"]
        headers = {"Prefect-Csrf-Client": me, "Prefect-Csrf-Token": token}
        for _ in range(9):  # a busy SQLite is answered with 503, after which a client tries again
            answer = client.request(method, url, json=body, headers=headers)
            if answer.status_code != 503:
                break
            time.sleep(1)
        return answer


class Api:
    """Prefect's API, as somebody uses it who has the secret. within_s: how long it waits for a run's end."""

    def __init__(self, home: Path, url: str, within_s: float) -> None:
        self.url, self.secret, self.within_s = url, secret_of(home), within_s

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        answer = send(method, f"{self.url}{path}", self.secret, body)
        assert answer.is_success, (path, answer.text)
        return answer.json() if answer.content else None

    def start(self, deployment: str, parameters: object, **more: object) -> str:
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, **more}
        return str(self("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])

    def run(self, run: str) -> Any:
        return self("GET", f"/flow_runs/{run}")

    def end_of(self, run: str, said: Callable[[], object] = lambda: "") -> dict[str, Any]:
        """The run's state, once it is final."""

        def ended() -> dict[str, Any] | None:
            state: dict[str, Any] = self.run(run)["state"]
            return None if state["type"] in ("SCHEDULED", "PENDING", "RUNNING") else state

        found: dict[str, Any] = wait_until(ended, self.within_s, said)
        return found


def ask(url: str, path: str, body: dict[str, Any], secret: str) -> Any:
    """POST to Prefect's API; its answer."""
    answer = send("POST", f"{url}{path}", secret, body)
    return answer.raise_for_status().json()


def process_of(home: Path) -> int:
    """The server's process id, as soon as it is recorded."""
    record = home / "prefect" / "server.json"
    while not record.exists() or not record.read_bytes().endswith(b"}"):
        time.sleep(0.01)
    return int(json.loads(record.read_text())["pid"])


def wait_for_end(home: Path) -> None:
    with (home / "prefect" / "server.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
