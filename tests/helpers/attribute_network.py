"""A network for attributes in the published one's layout, so small that it is made for each test."""

from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as ops

from reid_core.attributes import NAMES, OPENABLE


def keep_attribute_network(attributes: Path) -> str:
    """Writes the network into a home's folder of models for attributes; its name.

    The first of NAMES is the likelier, the brighter the picture; the others are constants. The points of the colors are
    those of a standing person.
    """
    [name] = OPENABLE
    picture = ops.parameter([1, 3, 160, 80], np.float32, name="picture")
    bright = ops.reduce_mean(picture, ops.constant(np.array([1, 2, 3])), keep_dims=False)
    weights = np.zeros((1, 1 + len(NAMES), 1, 1), np.float32)
    weights[0, 1] = 0.05
    biases = np.linspace(-2, 2, 1 + len(NAMES), dtype=np.float32).reshape(1, -1, 1, 1)
    biases[0, 1] = -0.05 * 110
    scores = ops.add(ops.multiply(ops.reshape(bright, ops.constant([1, 1, 1, 1]), False), weights), biases)
    points = [ops.constant(np.array([[0.5, y]], np.float32)) for y in (0.3, 0.7)]
    # A result needs an input that it follows from.
    moved = [
        ops.add(ops.multiply(ops.reshape(bright, ops.constant([1, 1]), False), np.float32(0)), at) for at in points
    ]
    model = openvino.Model([ops.sigmoid(scores), *moved], [picture], "attributes")
    (attributes / name).mkdir(parents=True)
    openvino.save_model(model, attributes / name / f"{name}.xml", compress_to_fp16=False)
    return name
