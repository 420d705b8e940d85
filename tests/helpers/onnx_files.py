"""Small ONNX files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from schemas.cards import InputConvention

Sizes = tuple[int | str, ...]
#: Operator, inputs, output and attributes.
Node = tuple[str, Sequence[str], str, Mapping[str, Any]]


def stated(convention: InputConvention) -> InputConvention:
    """The same convention with every field set, as a foreign file needs it."""
    return InputConvention(**convention.model_dump())


def onnx_file(path: Path, shape: Sizes, operator: str = "GlobalAveragePool") -> Path:
    """An ONNX file whose feature, (1, 3, 1, 1), is the mean of each color over the picture."""
    return onnx_graph(path, shape, [(operator, ("image",), "feature", {})])


def onnx_graph(
    path: Path,
    shape: Sizes,
    nodes: Sequence[Node],
    constants: Mapping[str, NDArray[np.float32]] | None = None,
    *,
    outputs: Sequence[str] = ("feature",),
    metadata: Mapping[str, str] | None = None,
    external: str | None = None,
) -> Path:
    """An ONNX file that computes `outputs` from the input `image` by `nodes`.

    `external`: name of the file that gets its constants.
    """
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, [output], **attributes) for operator, inputs, output, attributes in nodes],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    helper.set_model_props(model, dict(metadata or {}))
    if external is None:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    return path
