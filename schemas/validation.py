"""What pydantic found wrong with data from outside, in one line for the person who wrote them."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError


def first_fault(error: ValidationError, model: type[BaseModel]) -> tuple[tuple[str | int, ...], str]:
    """Place and description of the fault that explains the others best.

    An unknown key comes first, with the nearest key of `model` or of a model inside it: a misspelt key also makes the
    right one "missing". The place of an unknown key is that of its mapping, since the description names the key.
    """
    faults = error.errors(include_url=False)
    unknown = [fault for fault in faults if fault["type"] == "extra_forbidden"]
    if not unknown:
        return tuple(faults[0]["loc"]), faults[0]["msg"].removeprefix("Value error, ")
    *place, key = unknown[0]["loc"]
    missing = [
        str(fault["loc"][-1]) for fault in faults if fault["type"] == "missing" and [*fault["loc"][:-1]] == place
    ]
    return tuple(place), _unknown_key(str(key), missing, _keys(model.model_json_schema()))


def fault_line(error: ValidationError, model: type[BaseModel]) -> str:
    """`first_fault` in one line, such as "units.3.code: Field required"."""
    place, message = first_fault(error, model)
    return (f"{'.'.join(str(part) for part in place)}: " if place else "") + message


def _unknown_key(key: str, missing: list[str], known: Iterable[str]) -> str:
    names = sorted(set(known))
    close = get_close_matches(key, missing, n=1, cutoff=0.4) or get_close_matches(key, names, n=1)
    return f"unknown key {key[:80]!r}; " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}")


def _keys(schema: dict[str, Any]) -> set[str]:
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", {})}
