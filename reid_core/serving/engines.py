"""Optional modules: the engines that run models, and what exports to them."""

import importlib
import sys
from typing import Any

from schemas.errors import CoreError


def load_engine(module: str, extra: str | None = None) -> Any:
    """The module. Raises CoreError naming the extra of urban-reid that brings it, `module` if None."""
    # OpenVINO and nncf report to their makers when they are imported and used, through this package alone, and do
    # without where it cannot be imported. A city's cameras tell nobody.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(module)
    except ImportError:
        raise CoreError(f"this needs {module}: pip install 'urban-reid[{extra or module}]'") from None
