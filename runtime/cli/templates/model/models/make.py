#!/usr/bin/env python3
"""Writes colours.onnx and names.txt. Needs the packages `onnx` and `numpy`.

The model says which of some named colours is nearest. That is a linear classifier: of all
|x - c|^2 = |x|^2 - 2 x.c + |c|^2 the least is the largest of 2 x.c - |c|^2. A softmax makes
probabilities of it.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COLOURS = {
    "black": "#000000", "white": "#ffffff", "grey": "#808080", "red": "#e02020",
    "orange": "#ff8c00", "yellow": "#ffe620", "green": "#209030", "turquoise": "#30d0c8",
    "blue": "#2040e0", "navy": "#101c60", "purple": "#802090", "pink": "#ff90c0",
    "brown": "#7a4a20",
}
SHARPNESS = 20.0

centres = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS.values()])
weights = (SHARPNESS * 2 * centres.T).astype(np.float32)
bias = (SHARPNESS * -np.sum(centres**2, axis=1)).astype(np.float32)

graph = helper.make_graph(
    [
        helper.make_node("Gemm", ["rgb", "weights", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ],
    "colours",
    [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, ["n", 3])],
    [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(COLOURS)])],
    [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)

folder = Path(__file__).parent
onnx.save(model, folder / "colours.onnx")
(folder / "names.txt").write_text("\n".join(COLOURS) + "\n")
