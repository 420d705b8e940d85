"""What files of `deploy/` say to the program: its commands and its settings."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from schemas.settings import AssociationSettings, Settings
from urban_reid.cli import app

DEPLOY = Path(__file__).parents[2] / "deploy"
_KNOWN = {f"URBAN_REID_{name.upper()}" for name in Settings.model_fields} | {
    f"URBAN_REID_ASSOCIATION__{name.upper()}" for name in AssociationSettings.model_fields
}


def unknown_settings(text: str) -> set[str]:
    """The variables of the program that a text names, and that are no settings."""
    return set(re.findall(r"\bURBAN_REID_[A-Z_]+\b", text)) - _KNOWN


def parse(words: Sequence[str]) -> None:
    """Reads a command as the program does, without running it. Raises typer.TyperException if it cannot be read."""
    assert words[0] == "urban-reid", words
    found: Any = typer.main.get_command(app)
    context, rest = None, [os.path.expandvars(word) for word in words[1:]]
    while hasattr(found, "commands"):
        context = found.context_class(found, parent=context, info_name=found.name)
        found, rest = found.commands[rest[0]], rest[1:]
    found.make_context(found.name, list(rest), parent=context)
