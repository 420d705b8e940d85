"""What trials found on this machine: a file of the data directory, or of the user's cache where there is none.

The file holds the processor's name and the versions that were measured. Where one of them changes, trials are made
again when something is next chosen. What was chosen for a registered model stands in its card, and stays
(docs/decisions/measured-arithmetic.md).
"""

import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from reid_core.speed.trial import speeds
from schemas.disk import write_whole
from schemas.settings import Frozen, Settings

FILE = "speeds.json"
#: Forms of a computation by name; each computes once when it is called.
Forms = Mapping[str, Callable[[], object]]


class Machine(Frozen):
    """What a measured speed depends on."""

    processor: str
    torch: str
    openvino: str | None  # None: not installed


class Measured(Frozen):
    """Trials of one machine: how many times as fast as the first form each is, by what was computed."""

    machine: Machine
    speeds: dict[str, dict[str, float]] = {}


def this_machine() -> Machine:
    return Machine(processor=processor_name(), torch=version("torch"), openvino=_version("openvino"))


def processor_name() -> str:
    """As Linux names it, with family and model, which tell processors of one name apart; else what Python knows."""
    said: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if not line:
                break  # the next core
            said[name.strip()] = value.strip()
    if "model name" not in said:
        return platform.processor() or platform.machine()
    return f"{said['model name']} (family {said.get('cpu family', '?')}, model {said.get('model', '?')})"


def is_measured(settings: Settings) -> bool:
    """Whether `auto` is what trials find: on a processor, where neither engine nor precision is set."""
    return settings.engine == "auto" and settings.precision == "auto"


def measured(settings: Settings, what: str, forms: Callable[[], Forms]) -> dict[str, float]:
    """The speeds of the forms of `what`, as kept, or after a trial. `forms` makes them; it is called for a trial alone.

    Where the file cannot be written, the next process makes the trial again.
    """
    machine = this_machine()
    known = read(settings)
    if known is None or known.machine != machine:
        known = Measured(machine=machine)
    if what not in known.speeds:
        from reid_core.serving.devices import one_thread  # loads torch, which most commands do without

        with one_thread():
            found = {name: round(speed, 3) for name, speed in speeds(forms()).items()}
        known = known.model_copy(update={"speeds": known.speeds | {what: found}})
        with suppress(OSError):
            place = _place(settings)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, known.model_dump_json(indent=1) + "\n", mode=0o600)
    return known.speeds[what]


def read(settings: Settings) -> Measured | None:
    """What is kept, on whichever machine it was measured; None where nothing is, or nothing that can be read."""
    try:
        return Measured.model_validate_json(_place(settings).read_bytes())
    except (OSError, ValidationError):
        return None


def _place(settings: Settings) -> Path:
    if settings.home.is_dir():
        return settings.home / FILE
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache) / "urban-reid" / FILE


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
