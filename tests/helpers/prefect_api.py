"""Prefect's API, asked as its own pages ask it."""

from collections.abc import Callable
from typing import Any

import httpx

Ask = Callable[[str, dict[str, Any]], Any]


def ask(url: str, path: str, body: dict[str, Any]) -> Any:
    """POST to Prefect's API; its answer."""
    return httpx.post(f"{url}{path}", json=body, timeout=30, trust_env=False).raise_for_status().json()
