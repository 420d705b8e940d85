"""Optional modules: the engines that run models, and the tools that export to them."""

import importlib
import sys
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
