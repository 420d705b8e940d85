"""One line of the doctor's page."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    TO_DO = "to do"  # what an operator should do something about
    UNKNOWN = "unknown"  # could not be looked at, because of what another line says


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it (empty where nothing is to be done)."""

    name: str
    state: State
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    return Check(name, State.OK, found)


def to_do(name: str, found: str, remedy: str) -> Check:
    return Check(name, State.TO_DO, found, remedy)


def unknown(name: str, found: str) -> Check:
    return Check(name, State.UNKNOWN, found)
