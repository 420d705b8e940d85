"""A small detector in a real file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.helpers.onnx_files import Node, onnx_graph

SIZE = 64
#: Sides of the boxes that it finds, pixels of its picture: of cells of the three strides.
SIDES = (8, 16, 32)


def red_detector(folder: Path) -> Path:
    """A file with YOLOX's outputs that takes each cell that is red for a person, in a folder of this home or any."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, bias = np.zeros((85, 3, 1, 1), np.float32), np.zeros(85, np.float32)
    bias[:2], bias[5] = 0.5, 1  # in the middle of the cell, as large as it, and a person
    weights[4, :, 0, 0], bias[4] = (-0.01, -0.01, 0.02), -2  # objectness from blue, green, red
    nodes: list[Node] = []
    for side in SIDES:
        nodes += [
            ("AveragePool", ("image",), f"mean{side}", {"kernel_shape": [side, side], "strides": [side, side]}),
            ("Conv", (f"mean{side}", "weights", "bias"), f"linear{side}", {}),
            ("Clip", (f"linear{side}", "zero", "one"), f"cells{side}", {}),
            ("Flatten", (f"cells{side}",), f"flat{side}", {"axis": 2}),
        ]
    nodes.append(("Concat", [f"flat{side}" for side in SIDES], "all", {"axis": 1}))
    nodes.append(("Unsqueeze", ("all", "axis"), "batch", {}))
    nodes.append(("Transpose", ("batch",), "feature", {"perm": [0, 2, 1]}))
    constants = {"weights": weights, "bias": bias, "zero": np.float32(0), "one": np.float32(1), "axis": np.array([0])}
    return onnx_graph(folder / "red.onnx", ("n", 3, SIZE, SIZE), nodes, constants)  # type: ignore[arg-type]


def red_frame(x: int, y: int, side: int, height: int = SIZE, width: int = SIZE) -> NDArray[np.uint8]:
    """A gray frame with a red square."""
    frame = np.full((height, width, 3), 90, np.uint8)
    frame[y : y + side, x : x + side] = (0, 0, 255)
    return frame
