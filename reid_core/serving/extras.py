"""Optional modules: the engines that run models, and the tools that export to them."""

import importlib
import importlib.util
import sys
from functools import cache
from typing import Any

from schemas.errors import CoreError


def load_extra(module: str, extra: str | None = None) -> Any:
    """The imported module. Raises CoreError that names the extra of urban-reid to install, `module` if None."""
    # OpenVINO and nncf send usage statistics to their makers through this one package, and work without it.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(module)
    except ImportError:
        raise CoreError(f"this needs {module}: pip install 'urban-reid[{extra or module}]'") from None


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def openvino_core() -> Any:
    """The one `openvino.Core` of this process, kept to its end. Raises CoreError where OpenVINO is not installed.

    Its CPU plugin gives the creating thread a signal stack, and when it is destroyed it sets the thread's earlier stack
    again. With several cores that may be the freed stack of another one: the next Ctrl-C then ends the process with a
    segmentation fault.
    """
    return _core_of(load_extra("openvino"))


@cache
def _core_of(openvino: Any) -> Any:
    return openvino.Core()
