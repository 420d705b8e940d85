"""Logs of `up` and its processes: lines of text, or JSON objects a line (URBAN_REID_LOG=json)."""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

from schemas.errors import UrbanReidError
from schemas.text import one_line

_FAULT = logging.getLogger("urban_reid.fault")


class JsonLines(logging.Formatter):
    """{"time": ISO 8601 in UTC, "level", "process": whose log it is, "logger", "message": one line, "traceback"?}."""

    def __init__(self, *_: Any, process: str = "prefect", **__: Any) -> None:
        """Takes what `logging.config` gives a formatter, and uses none of it."""
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": one_line(record.getMessage()),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


def begin_logging(form: Literal["text", "json"], process: str) -> None:
    """Makes what this process logs lines on stderr, and what it dies of one of them where lines are JSON.

    Of libraries warnings are taken; Prefect has handlers of its own.
    """
    handler = logging.StreamHandler()
    handler.addFilter(_is_taken)
    handler.setFormatter(JsonLines(process=process) if form == "json" else logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    if form == "json":
        sys.excepthook = _log_fault
        threading.excepthook = lambda fault: _log_fault(fault.exc_type, fault.exc_value, fault.exc_traceback)


def in_words(error: Exception) -> str:
    """What a thread that goes on says of an error: its message; of one that nobody expected also its kind, and its
    traceback goes to the log.
    """
    if isinstance(error, UrbanReidError):
        return str(error)
    said = f"unexpected {type(error).__name__}: {error}"
    _FAULT.error("%s", one_line(said), exc_info=error)
    return said


def _is_taken(record: logging.LogRecord) -> bool:
    of_library = not record.name.startswith("urban_reid")
    return not of_library or (record.levelno >= logging.WARNING and not record.name.startswith("prefect"))


def _log_fault(kind: type[BaseException], fault: BaseException | None, traceback: TracebackType | None) -> None:
    if fault is not None and not issubclass(kind, (KeyboardInterrupt, SystemExit)):
        _FAULT.critical("unexpected %s: %s", kind.__name__, fault, exc_info=(kind, fault, traceback))
