"""Prefect's API, asked as its own pages ask it."""

import fcntl
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

Ask = Callable[[str, dict[str, Any]], Any]


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
