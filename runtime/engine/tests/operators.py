"""Writes expected/operators.json: small graphs of one operator with onnxruntime's answers.

    python3 operators.py

Needs onnx, onnxruntime and numpy. `operators.rs` builds the same graphs and compares.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

NAMES = {
    "float32": ("f32", TensorProto.FLOAT),
    "float64": ("f64", TensorProto.DOUBLE),
    "int32": ("i32", TensorProto.INT32),
    "int64": ("i64", TensorProto.INT64),
    "bool": ("bool", TensorProto.BOOL),
    "uint8": ("u8", TensorProto.UINT8),
    "int8": ("i8", TensorProto.INT8),
    "object": ("bytes", TensorProto.STRING),
}
CASES = []


def f(*shape, start=-1.3, step=0.37):
    count = int(np.prod(shape))
    values = start + step * ((np.arange(count) * 7) % max(count, 1))
    return values.reshape(shape).astype(np.float32)


def i(*values, dtype=np.int64):
    return np.array(values, dtype=dtype)


def b(*values):
    return np.array(values, dtype=bool)


def number(v):
    if isinstance(v, float):
        return float(f"{v:.8g}") if np.isfinite(v) else str(v)
    return v


def plain(value):
    return None if value is None else {
        "dtype": NAMES[value.dtype.name][0],
        "shape": list(value.shape),
        "values": [number(v) for v in value.ravel().tolist()],
    }


def t(*texts):
    return np.array(texts, dtype=object)


def case(family, op, *inputs, opset=17, outputs=1, domain="", **attributes):
    """`outputs`: how many, or which of them are wanted; `opset`: of the domain."""
    wanted = [True] * outputs if isinstance(outputs, int) else outputs
    names = ["" if x is None else f"i{n}" for n, x in enumerate(inputs)]
    made = [f"o{n}" if wants else "" for n, wants in enumerate(wanted)]
    node = helper.make_node(op, names, made, domain=domain, **attributes)
    infos = [
        # Shape inference of contrib operators wants to know the sizes.
        helper.make_tensor_value_info(
            n, NAMES[x.dtype.name][1], x.shape if domain else [None] * x.ndim)
        for n, x in zip(names, inputs) if x is not None
    ]
    graph = helper.make_graph(
        [node], "g", infos,
        [helper.make_empty_tensor_value_info(name) for name in made if name])
    model = helper.make_model(
        graph, ir_version=8,
        opset_imports=[helper.make_opsetid(name, version)
                       for name, version in {"": 17, domain: opset}.items()])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = {n: x for n, x in zip(names, inputs) if x is not None}
    given = iter(session.run(None, feed))
    CASES.append({
        "family": family, "operator": op, "opset": opset, "domain": domain,
        "attributes": {
            name: [number(v) for v in value] if isinstance(value, list) else number(value)
            for name, value in attributes.items()
        },
        "inputs": [plain(x) for x in inputs],
        "outputs": [plain(next(given)) if wants else None for wants in wanted],
    })


def elementwise():
    for op in ["Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Neg", "Reciprocal",
               "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh",
               "Atan", "Sinh", "Cosh", "Asinh", "Elu", "Selu", "Celu", "LeakyRelu",
               "HardSigmoid", "ThresholdedRelu"]:
        case("elementwise", op, f(2, 3))
    case("elementwise", "Round", np.array([0.5, 1.5, -0.5, -2.5, 2.4], np.float32))
    for op in ["Sqrt", "Log", "Acosh"]:
        case("elementwise", op, f(2, 3, start=1.1))
    for op in ["Acos", "Asin", "Atanh"]:
        case("elementwise", op, f(5, start=-0.9, step=0.4))
    case("elementwise", "Elu", f(4), alpha=0.3)
    case("elementwise", "HardSigmoid", f(4), alpha=0.3, beta=0.1)
    for op in ["Add", "Sub", "Mul", "Div"]:
        case("elementwise", op, f(2, 1, 3), f(4, 1, start=0.7))
        case("elementwise", op, f(3), np.array(2.5, np.float32))
        case("elementwise", op, np.array(2.5, np.float32), f(2, 3))
        case("elementwise", op, i(7, -7, 9), i(2, 2, -4))
    case("elementwise", "Pow", f(4, start=0.2), f(4))
    case("elementwise", "Pow", f(4), np.array(2, np.int64))
    case("elementwise", "Pow", i(2, 3, -2), i(3, 2, 3))
    case("elementwise", "Mod", i(7, -7, 7, -7), i(3, 3, -3, -3))
    case("elementwise", "Mod", f(4), f(4, start=0.5), fmod=1)
    case("elementwise", "Mod", i(7, -7, 7, -7), i(3, 3, -3, -3), fmod=1)
    case("elementwise", "PRelu", f(2, 3), f(3, start=0.1))
    for op in ["Max", "Min", "Sum", "Mean"]:
        case("elementwise", op, f(2, 3), f(3, start=0.0), f(2, 1, start=0.4))
    case("elementwise", "Max", i(1, 5, -2), i(0, 9, -3))
    case("elementwise", "Clip", f(6), np.array(-0.5, np.float32), np.array(0.4, np.float32))
    case("elementwise", "Clip", f(6), None, np.array(0.4, np.float32))
    case("elementwise", "Clip", f(6), opset=6, min=-0.2, max=0.2)
    case("elementwise", "Clip", i(-5, 0, 5), np.array(-2), np.array(2))


def logic():
    for op in ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]:
        case("logic", op, f(2, 3), f(3))
        case("logic", op, i(1, 2, 3), i(3, 2, 1))
    case("logic", "Equal", b(True, False), b(True, True))
    for op in ["And", "Or", "Xor"]:
        case("logic", op, np.array([[True], [False]]), b(True, False))
    case("logic", "Not", b(True, False))
    case("logic", "Where", np.array([[True], [False]]), f(3), f(2, 3))
    case("logic", "Where", np.array(True), i(1, 2), i(3, 4))
    case("logic", "IsNaN", np.array([1, np.nan, np.inf], np.float32))
    case("logic", "IsInf", np.array([1, np.nan, np.inf, -np.inf], np.float32))
    case("logic", "IsInf", np.array([1, np.inf, -np.inf], np.float32), detect_negative=0)
    for to in [1, 6, 7, 9, 11]:
        case("logic", "Cast", np.array([-1.7, 0.0, 2.9], np.float32), to=to)
        case("logic", "Cast", i(-1, 0, 2), to=to)
        case("logic", "Cast", b(True, False), to=to)


def products():
    case("products", "MatMul", f(2, 3), f(3, 4))
    case("products", "MatMul", f(3), f(3))
    case("products", "MatMul", f(3), f(2, 3, 4))
    case("products", "MatMul", f(2, 3, 4), f(4))
    case("products", "MatMul", f(2, 1, 3, 4), f(5, 4, 2))
    case("products", "MatMul", f(2, 5, 3, 4), f(4, 2))
    case("products", "MatMul", i(1, 2, 3, 4).reshape(2, 2), i(5, 6, 7, 8).reshape(2, 2))
    case("products", "Gemm", f(3, 2), f(4, 3), f(4), alpha=0.5, beta=2.0, transA=1, transB=1)
    case("products", "Gemm", f(2, 3), f(3, 4))
    case("products", "Gemm", f(2, 3), f(3, 4), np.array(1.5, np.float32))
    case("products", "Conv", f(2, 3, 7), f(4, 3, 3), f(4), pads=[1, 2], strides=[2])
    case("products", "Conv", f(1, 4, 6, 5), f(6, 2, 3, 2), f(6), group=2, dilations=[2, 1])
    case("products", "Conv", f(1, 4, 6, 5), f(4, 1, 3, 3), group=4, pads=[1, 0, 2, 1])
    case("products", "Conv", f(1, 2, 6, 5), f(3, 2, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    case("products", "Conv", f(1, 2, 6, 5), f(3, 2, 2, 2), auto_pad="SAME_LOWER")
    case("products", "Conv", f(1, 2, 3, 4, 5), f(3, 2, 2, 2, 2))
    case("products", "Conv", f(1, 2, 6, 5), f(3, 2, 1, 1), f(3))
    case("products", "ConvTranspose", f(1, 2, 4), f(2, 3, 3), f(3), strides=[2], pads=[1, 1])
    case("products", "ConvTranspose", f(1, 4, 3, 3), f(4, 2, 3, 3), group=2, strides=[2, 2],
         output_padding=[1, 1], pads=[1, 0, 1, 0])
    case("products", "ConvTranspose", f(1, 2, 3, 3), f(2, 1, 3, 3), strides=[2, 2],
         output_shape=[6, 6])


def pools():
    case("pools", "MaxPool", f(1, 2, 7), kernel_shape=[3], strides=[2], pads=[1, 0])
    case("pools", "MaxPool", f(2, 2, 6, 5), kernel_shape=[2, 3])
    case("pools", "MaxPool", f(1, 1, 6, 5), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    case("pools", "MaxPool", f(1, 1, 7, 7), kernel_shape=[2, 2], dilations=[2, 3])
    case("pools", "MaxPool", f(1, 1, 5, 5), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    case("pools", "MaxPool", f(1, 1, 5, 5), kernel_shape=[3, 3], auto_pad="SAME_UPPER")
    case("pools", "AveragePool", f(1, 2, 7), kernel_shape=[3], pads=[1, 1])
    for include in [0, 1]:
        case("pools", "AveragePool", f(1, 1, 6, 5), kernel_shape=[3, 3], pads=[1, 1, 1, 1],
             count_include_pad=include)
        case("pools", "AveragePool", f(1, 1, 6, 5), kernel_shape=[3, 3], pads=[0, 1, 2, 1],
             count_include_pad=include)
    case("pools", "AveragePool", f(1, 1, 6, 6), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1,
         opset=19)
    case("pools", "GlobalMaxPool", f(2, 3, 4, 5))
    case("pools", "GlobalAveragePool", f(2, 3, 4, 5))


def norms():
    one = f(3, start=0.5)
    case("norms", "BatchNormalization", f(2, 3, 4), one, f(3), f(3), one, epsilon=1e-3)
    case("norms", "InstanceNormalization", f(2, 3, 4), one, f(3))
    case("norms", "LayerNormalization", f(2, 3, 4), f(4), f(4))
    case("norms", "LayerNormalization", f(2, 3, 4), f(3, 4), axis=1, epsilon=0.1)
    case("norms", "LpNormalization", f(2, 3), axis=1, p=1)
    case("norms", "LpNormalization", f(2, 3), axis=0)
    for op in ["Softmax", "LogSoftmax"]:
        case("norms", op, f(2, 3, 4))
        case("norms", op, f(2, 3, 4), axis=1)
        case("norms", op, f(2, 3, 4), axis=1, opset=11)


def reductions():
    for op in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]:
        x = f(2, 3, 4, start=0.2, step=0.1)
        for axes in [[1], [0, 2], [-1, 1]]:
            for keep in [0, 1]:
                case("reductions", "Reduce" + op, x, i(*axes), keepdims=keep, opset=18)
        case("reductions", "Reduce" + op, x, opset=18)
    case("reductions", "ReduceMean", f(2, 3), axes=[1], keepdims=0, opset=11)
    case("reductions", "ReduceSum", i(1, 2, 3, 4).reshape(2, 2), i(0))
    case("reductions", "ReduceSum", f(2, 2), noop_with_empty_axes=1)
    case("reductions", "ReduceMax", i(1, 9, 3, 4).reshape(2, 2), axes=[1])
    for op in ["ArgMax", "ArgMin"]:
        case("reductions", op, f(3, 4), axis=1)
        case("reductions", op, np.array([[2, 1, 2, 1]], np.float32), axis=-1, keepdims=0)
        case("reductions", op, np.array([[2, 1, 2, 1]], np.float32), axis=1, select_last_index=1)
    for reverse in [0, 1]:
        for exclusive in [0, 1]:
            case("reductions", "CumSum", f(2, 3), np.array(1), reverse=reverse, exclusive=exclusive)
    case("reductions", "TopK", f(3, 5), i(2), outputs=2, axis=1)
    case("reductions", "TopK", f(3, 5), i(3), outputs=2, axis=0, largest=0)


def shapes():
    x = f(2, 3, 4)
    case("shapes", "Shape", x)
    case("shapes", "Shape", x, start=-2, end=3)
    case("shapes", "Size", x)
    case("shapes", "Reshape", x, i(0, -1))
    case("shapes", "Reshape", x, i(4, 3, 2))
    case("shapes", "Flatten", x, axis=2)
    case("shapes", "Flatten", x, axis=-3)
    case("shapes", "Squeeze", f(1, 3, 1))
    case("shapes", "Squeeze", f(1, 3, 1), i(-1))
    case("shapes", "Squeeze", f(1, 3, 1), axes=[0], opset=11)
    case("shapes", "Unsqueeze", f(3), i(0, -1))
    case("shapes", "Transpose", x)
    case("shapes", "Transpose", x, perm=[1, 2, 0])
    case("shapes", "Concat", f(2, 3), f(1, 3), axis=0)
    case("shapes", "Concat", i(1), i(2, 3), axis=-1)
    case("shapes", "Split", f(5, 2), i(2, 3), outputs=2)
    case("shapes", "Split", f(2, 6), outputs=3, axis=1)
    case("shapes", "Slice", x, i(0, 1), i(2, 3), i(0, 2), i(1, 2))
    case("shapes", "Slice", x, i(-1, 10), i(-100, -100), i(2, 1), i(-2, -1))
    case("shapes", "Slice", x, i(1), i(2**62), i(1))
    case("shapes", "Slice", x, starts=[1], ends=[2], axes=[-1], opset=9)
    case("shapes", "Slice", x, i(3), i(1), i(1))
    case("shapes", "Expand", f(3, 1), i(2, 1, 4))
    case("shapes", "Expand", f(3, 1), i(1))
    case("shapes", "Tile", f(2, 3), i(2, 3))
    for mode in ["constant", "reflect", "edge"]:
        case("shapes", "Pad", f(3, 4), i(1, 2, 0, 1), mode=mode)
    case("shapes", "Pad", f(3, 4), i(-1, 1, 0, -2), np.array(9, np.float32))
    case("shapes", "Pad", f(2, 3), mode="constant", pads=[0, 1, 0, 1], value=0.5, opset=10)
    case("shapes", "Pad", f(2, 3), i(1, 2), None, i(1), opset=18)
    for mode in ["DCR", "CRD"]:
        case("shapes", "DepthToSpace", f(1, 8, 2, 3), blocksize=2, mode=mode)
    case("shapes", "SpaceToDepth", f(1, 2, 4, 6), blocksize=2)
    case("shapes", "Trilu", f(2, 3, 4))
    case("shapes", "Trilu", f(3, 4), np.array(-1), upper=0)
    case("shapes", "ConstantOfShape", i(2, 3))
    case("shapes", "Range", np.array(3), np.array(-4), np.array(-2))
    case("shapes", "Range", np.array(0.5, np.float32), np.array(2, np.float32),
         np.array(0.5, np.float32))
    case("shapes", "Identity", x)


def indexing():
    x = f(3, 4)
    case("indexing", "Gather", x, i(2, 0, -1))
    case("indexing", "Gather", x, np.array([[1, -1], [0, 2]]), axis=1)
    case("indexing", "Gather", x, np.array(1), axis=-1)
    case("indexing", "GatherElements", x, np.array([[0, 2], [-1, 1]]))
    case("indexing", "GatherElements", x, np.array([[0, 3], [-1, 1], [1, 1]]), axis=1)
    case("indexing", "GatherND", f(2, 3, 4), np.array([[0, 1], [1, -1]]))
    case("indexing", "GatherND", f(2, 3, 4), np.array([[[0, 1, 2]], [[1, 0, 3]]]))
    case("indexing", "ScatterElements", x, np.array([[2, 0], [0, -1]]), f(2, 2), axis=0)
    case("indexing", "ScatterElements", x, np.array([[1, 1]]), f(1, 2), axis=1, reduction="add")
    case("indexing", "ScatterND", f(4, 2), np.array([[3], [0]]), f(2, 2))
    case("indexing", "ScatterND", f(4, 2), np.array([[1, 0], [1, 1]]), f(2), reduction="mul")
    case("indexing", "NonZero", np.array([[1, 0, 2], [0, 0, 3]], np.float32))
    case("indexing", "OneHot", i(1, -1, 7), i(4), f(2))
    case("indexing", "OneHot", i(1, 0), i(3), f(2), axis=0)


def recurrent():
    def weights(gates, directions):
        return (f(directions, gates * 4, 3, step=0.011), f(directions, gates * 4, 4, step=0.009),
                f(directions, 2 * gates * 4, step=0.01))
    x = f(5, 2, 3, step=0.05)
    h = f(1, 2, 4, step=0.1)
    for op, gates, outputs in [("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)]:
        w, r, bias = weights(gates, 1)
        case("recurrent", op, x, w, r, outputs=outputs, hidden_size=4)
        case("recurrent", op, x, w, r, bias, None, h, outputs=outputs, hidden_size=4)
        case("recurrent", op, x, w, r, bias, i(5, 3, dtype=np.int32), outputs=outputs,
             hidden_size=4)
        case("recurrent", op, x, w, r, bias, outputs=outputs, hidden_size=4, direction="reverse")
        case("recurrent", op, x, *weights(gates, 2), i(5, 3, dtype=np.int32), outputs=outputs,
             hidden_size=4, direction="bidirectional")
    w, r, bias = weights(3, 1)
    case("recurrent", "GRU", x, w, r, bias, None, h, outputs=2, hidden_size=4,
         linear_before_reset=1)
    w, r, bias = weights(4, 1)
    case("recurrent", "LSTM", x, w, r, bias, None, h, h, f(1, 12, step=0.1), outputs=3,
         hidden_size=4)
    case("recurrent", "LSTM", x, w, r, bias, outputs=3, hidden_size=4, clip=0.3,
         activations=["HardSigmoid", "Softsign", "Relu"], activation_alpha=[0.3],
         activation_beta=[0.4])


def q(*shape, dtype=np.uint8):
    """Whole numbers over the range of a type of 8 bits."""
    values = (np.arange(int(np.prod(shape))) * 37 + 11) % 256
    return values.astype(np.uint8).view(dtype).reshape(shape)


def s(value):
    return np.array(value, np.float32)


def zero(value, dtype=np.uint8):
    return np.array(value, dtype)


def quantized():
    u8, i8 = np.uint8, np.int8
    case("quantized", "MatMulInteger", q(3, 5), q(5, 2), zero(12), zero(200), opset=13)
    case("quantized", "MatMulInteger", q(2, 3, 70), q(70, 40, dtype=i8), zero(12),
         q(40, dtype=i8), opset=13)
    case("quantized", "MatMulInteger", q(2, 1, 4, 9), q(3, 9, 33), opset=13)
    case("quantized", "ConvInteger", q(2, 3, 6, 5), q(4, 3, 3, 3), zero(7), zero(100),
         pads=[1, 0, 2, 1], strides=[2, 1])
    case("quantized", "ConvInteger", q(1, 4, 9, 8), q(4, 2, 3, 2, dtype=u8), zero(128),
         group=2, dilations=[2, 1], pads=[2, 1, 2, 0])
    case("quantized", "ConvInteger", q(1, 4, 7, 7), q(4, 1, 3, 3, dtype=u8), zero(3), zero(9),
         group=4, pads=[1, 1, 1, 1])
    x = f(3, 7)
    case("quantized", "QuantizeLinear", x, s(0.013), zero(120))
    case("quantized", "QuantizeLinear", x, s(0.013), zero(-5, i8))
    case("quantized", "QuantizeLinear", x, f(3, start=0.1, step=0.2), q(3), axis=0)
    case("quantized", "DequantizeLinear", q(3, 4), f(4, start=0.1), q(4), axis=1)
    case("quantized", "DynamicQuantizeLinear", x, outputs=3)
    case("quantized", "DynamicQuantizeLinear", f(4, start=0.5), outputs=3)
    scales = s(0.02), zero(120), s(0.05), zero(-3, i8), s(0.4), zero(100)
    xs, xz, ws, wz, ys, yz = scales
    case("quantized", "QLinearMatMul", q(2, 5), xs, xz, q(5, 4, dtype=i8), ws, wz, ys, yz)
    case("quantized", "QLinearConv", q(1, 2, 5, 5), xs, xz, q(3, 2, 3, 3, dtype=i8),
         f(3, start=0.02, step=0.01), np.zeros(3, i8), ys, yz, i(5, -900, 70, dtype=np.int32),
         pads=[1, 1, 1, 1])


def contrib():
    u8, i8 = np.uint8, np.int8

    def ms(op, *inputs, **more):
        case("contrib", op, *inputs, domain="com.microsoft", opset=1, **more)
    x = f(2, 3, 8, step=0.11)
    for op in ["Gelu", "QuickGelu", "FastGelu"]:
        ms(op, x)
    ms("FastGelu", x, f(8))
    ms("BiasGelu", x, f(8))
    ms("QuickGelu", x, alpha=1.0)
    ms("FusedMatMul", f(2, 3, 4), f(2, 5, 4), transB=1, alpha=0.5)
    ms("FusedMatMul", f(4, 2, 3), f(2, 4, 5), transA=1, transBatchA=1)
    ms("FusedMatMul", f(3, 2, 4), f(2, 4, 5), transBatchA=1)
    ms("FusedGemm", f(2, 3), f(4, 3), f(4), transB=1, activation="LeakyRelu",
       activation_alpha=0.2)
    ms("FusedConv", f(1, 2, 5, 5), f(3, 2, 3, 3), f(3), activation="Relu")
    ms("FusedConv", f(1, 2, 5, 5), f(3, 2, 3, 3), f(3), activation="Clip",
       activation_params=[-1.0, 2.5])
    case("contrib", "SimplifiedLayerNormalization", x, f(8))
    ms("SkipLayerNormalization", x, f(2, 3, 8), f(8), f(8, start=0.3), f(8, step=0.2))
    ms("SkipLayerNormalization", x, f(2, 3, 8), f(8), epsilon=0.01,
       outputs=[True, False, False, True])
    ms("SkipSimplifiedLayerNormalization", x, f(2, 3, 8), f(8), f(8, step=0.2),
       outputs=[True, False, False, True])
    ids = i(2, 0, 1, 3, 3, 1, dtype=np.int32).reshape(2, 3)
    kinds = i(0, 1, 1, 1, 0, 0, dtype=np.int32).reshape(2, 3)
    mask = i(1, 1, 0, 1, 1, 1, dtype=np.int32).reshape(2, 3)
    tables = f(4, 8), f(5, 8, step=0.2), f(2, 8, step=0.3)
    ms("EmbedLayerNormalization", ids, kinds, *tables, f(8), f(8, start=0.2), mask, outputs=3)
    ms("EmbedLayerNormalization", ids, None, *tables[:2], None, f(8), f(8, start=0.2),
       outputs=[True, True])
    ms("DynamicQuantizeMatMul", f(3, 6), q(6, 4, dtype=i8), s(0.03), zero(4, i8), f(4))
    ms("DynamicQuantizeMatMul", f(2, 3, 6), q(6, 4), f(4, start=0.01, step=0.01), q(4))
    ms("MatMulIntegerToFloat", q(3, 6), q(6, 4, dtype=i8), s(0.02), s(0.03), zero(9),
       zero(4, i8), f(4))
    weights = f(8, 24, start=-0.9, step=0.013), f(24)
    ms("Attention", x, *weights, num_heads=2)
    ms("Attention", x, *weights, num_heads=2, unidirectional=1, outputs=2)
    ms("Attention", x, *weights, mask, num_heads=2)
    ms("Attention", x, *weights, i(3, 2, dtype=np.int32), num_heads=4, scale=0.2)
    ms("Attention", x, *weights, None, f(2, 2, 2, 5, 4, step=0.05), num_heads=2,
       unidirectional=1, outputs=2)
    ms("Attention", x, *weights, None, None, f(2, 2, 3, 3), num_heads=2)
    ms("QAttention", q(2, 3, 8), q(8, 24, dtype=i8), f(24), s(0.01), s(0.02), mask, zero(100),
       zero(3, i8), num_heads=2)
    k = f(2, 5, 8, step=0.07)
    ms("MultiHeadAttention", x, k, f(2, 5, 8, step=0.03), num_heads=2)
    ms("MultiHeadAttention", x, k, f(2, 5, 8, step=0.03), f(24), num_heads=2, outputs=3)
    ms("MultiHeadAttention", x, k, f(2, 5, 8, step=0.03), None,
       i(1, 1, 0, 1, 1, 1, 1, 1, 1, 0, dtype=np.int32).reshape(2, 5), num_heads=4, scale=0.4)
    ms("MultiHeadAttention", x, x, f(2, 3, 8), None, None, f(2, 2, 3, 7), f(2, 2, 4, 4),
       f(2, 2, 4, 4, step=0.09), num_heads=2, outputs=3)
    scales = s(0.02), zero(120), s(0.05), zero(30), s(0.05), zero(100)
    xs, xz, ws, wz, ys, yz = scales
    ms("QLinearAdd", q(2, 3), xs, xz, q(3), ws, wz, ys, yz)
    ms("QLinearMul", q(2, 3), xs, xz, q(3), ws, wz, s(0.051), yz)
    ms("QLinearSigmoid", q(2, 5), xs, xz, s(1 / 256), zero(0))
    ms("QLinearLeakyRelu", q(2, 5), xs, xz, s(0.03), zero(50), alpha=0.1)
    ms("QLinearConcat", ys, yz, q(2, 3), xs, xz, q(2, 4), ws, wz, axis=1)
    ms("QLinearAveragePool", q(1, 2, 5, 5), xs, xz, s(0.021), zero(110), kernel_shape=[2, 2])
    ms("QLinearGlobalAveragePool", q(1, 2, 5, 5), xs, xz, s(0.021), zero(110))
    ms("Inverse", f(2, 3, 3))
    caches = f(7, 2, step=0.1), f(7, 2, step=0.13)
    positions = i(0, 3, 6, 2, 1, 5).reshape(2, 3)
    for interleaved in [0, 1]:
        ms("RotaryEmbedding", f(2, 2, 3, 4), positions, *caches, interleaved=interleaved)
    ms("RotaryEmbedding", x, i(2), *caches)
    ms("RotaryEmbedding", x, positions, *(f(7, 1), f(7, 1, step=0.2)), num_heads=2,
       rotary_embedding_dim=2)

    # onnxruntime has GroupNorm on GPUs only: the judge is ONNX's, of the same formula.
    images, scale, shift = f(2, 4, 2, 3), f(4, step=0.2), f(4, start=0.1)
    case("contrib", "GroupNormalization", images, scale, shift, opset=21, num_groups=2)
    CASES[-1] |= {"operator": "GroupNorm", "domain": "com.microsoft",
                  "attributes": {"groups": 2, "channels_last": 0}}

    # onnxruntime rounds the inputs of each step to 8 bits, the engine doesn't: the judge is
    # the LSTM whose weights are what the integers stand for.
    w, r, bias = q(1, 3, 16, dtype=i8), q(1, 4, 16, dtype=i8), f(1, 32, step=0.01)
    xs = f(5, 2, 3, step=0.05)
    case("contrib", "LSTM", xs, *((m.astype(np.float32) - 3).transpose(0, 2, 1) * s(0.004)
                                  for m in (w, r)), bias, outputs=3, hidden_size=4)
    scale, point = np.full(1, 0.004, np.float32), np.full(1, 3, i8)
    given = [xs, w, r, bias, None, None, None, None, scale, point, scale, point]
    CASES[-1] |= {"operator": "DynamicQuantizeLSTM", "domain": "com.microsoft",
                  "inputs": [plain(x) for x in given]}


def strings():
    names = t("Amy", "bob", "AMY", "", "the cat")
    case("strings", "Equal", names, t("bob"), opset=19)
    case("strings", "Where", b(True, False, True), t("a", "b", "c"), t("x"))
    case("strings", "Gather", names, i(4, 0, -1))
    case("strings", "Concat", t("a"), t("b", "c"), axis=0)
    case("strings", "StringConcat", names, t("!"), opset=20)
    case("strings", "StringSplit", t("a b  c", " x ", ""), opset=20, outputs=2)
    case("strings", "StringSplit", t("a,b,,c", ",", "x"), opset=20, outputs=2, delimiter=",")
    case("strings", "StringSplit", t("a,b,,c", "a", "x,y"), opset=20, outputs=2, delimiter=",",
         maxsplit=1)
    case("strings", "RegexFullMatch", names, opset=20, pattern="[Aa].*|b")
    for action in ["NONE", "LOWER", "UPPER"]:
        for sensitive in [0, 1]:
            case("strings", "StringNormalizer", names, stopwords=["Amy", "the"], locale="C.UTF-8",
                 case_change_action=action, is_case_sensitive=sensitive)
    for mode in ["TF", "IDF", "TFIDF"]:
        for skips in [0, 2]:
            case("strings", "TfIdfVectorizer", i(1, 2, 3, 1, 2, 1).reshape(2, 3), mode=mode,
                 min_gram_length=1, max_gram_length=2, max_skip_count=skips,
                 ngram_counts=[0, 2], ngram_indexes=[0, 1, 2, 3],
                 pool_int64s=[1, 2, 1, 2, 1, 3], weights=[0.5, 1.5, 2.0, 3.0])
    case("strings", "TfIdfVectorizer", t("a", "b", "a"), mode="TF", min_gram_length=2,
         max_gram_length=2, max_skip_count=0, ngram_counts=[0, 1], ngram_indexes=[0, 1],
         pool_strings=["a", "b", "a"])


def trees(votes, **more):
    """Two trees over three features, with votes for nodes of both as (tree, node, id, weight)."""
    kind = more.pop("kind")
    modes = more.pop("modes", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT"])
    names = ["treeids", "nodeids", "ids", "weights"]
    return {
        "nodes_treeids": [0, 0, 0, 0, 0, 1, 1, 1],
        "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
        "nodes_featureids": [0, 2, 0, 0, 0, 1, 0, 0],
        "nodes_values": [0.1, -0.4, 0.0, 0.0, 0.0, 0.6, 0.0, 0.0],
        "nodes_modes": [modes[0], modes[1], "LEAF", "LEAF", "LEAF", modes[2], "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 2, 0, 0, 0, 1, 0, 0],
        "nodes_falsenodeids": [4, 3, 0, 0, 0, 2, 0, 0],
        "nodes_missing_value_tracks_true": [1, 0, 0, 0, 0, 0, 0, 0],
        **{f"{kind}_{name}": list(column) for name, column in zip(names, zip(*votes))},
        **more,
    }


def classical():
    def ml(op, *inputs, version=3, **more):
        case("classical", op, *inputs, opset=version, domain="ai.onnx.ml", **more)

    x = f(5, 3, start=-1.0, step=0.17)
    x[3, 0] = np.nan
    leaves = [(0, 2), (0, 3), (0, 4), (1, 1), (1, 2)]
    one = [(*leaf, 0, weight) for leaf, weight in zip(leaves, [0.3, 0.1, 0.7, 0.2, 0.4])]
    three = [(*leaf, n % 3, 0.1 + 0.3 * n) for n, leaf in enumerate(leaves + leaves[:3])]
    for aggregate in ["SUM", "AVERAGE", "MIN", "MAX"]:
        ml("TreeEnsembleRegressor", x, **trees(one, kind="target", aggregate_function=aggregate,
                                               n_targets=1, base_values=[0.5]))
    for modes in [["BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"], ["BRANCH_EQ", "BRANCH_NEQ", "BRANCH_LEQ"],
                  ["BRANCH_LEQ"] * 3]:
        ml("TreeEnsembleRegressor", x, **trees(one, kind="target", modes=modes, n_targets=1))
    negative = [(*vote[:3], vote[3] - 0.35) for vote in one]
    for transform in ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]:
        ml("TreeEnsembleRegressor", x, **trees(three, kind="target", n_targets=3,
                                               post_transform=transform))
        ml("TreeEnsembleClassifier", x, outputs=2, **trees(
            three, kind="class", post_transform=transform, classlabels_int64s=[4, 6, 9],
            base_values=[0.1, -0.2, 0.3]))
        ml("TreeEnsembleClassifier", x, outputs=2, **trees(
            three, kind="class", post_transform=transform, classlabels_strings=["a", "b", "c"]))
        for votes in [one, negative]:
            ml("TreeEnsembleClassifier", x, outputs=2, **trees(
                votes, kind="class", post_transform=transform, classlabels_int64s=[0, 1]))
            ml("TreeEnsembleClassifier", x, outputs=2, **trees(
                votes, kind="class", post_transform=transform, classlabels_strings=["no", "yes"],
                base_values=[0.05]))

    x = f(4, 3, start=-1.0, step=0.21)
    ml("LinearRegressor", x, coefficients=[0.5, -1.0, 2.0], intercepts=[0.25])
    ml("LinearRegressor", x, coefficients=[0.5, -1.0, 2.0, 1.0, 0.0, -0.5], targets=2)
    for transform in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"]:
        weights = [0.5, -1.0, 2.0, 1.0, 0.1, -0.5, -1.0, 0.3, 0.2]
        ml("LinearClassifier", x, outputs=2, coefficients=weights, intercepts=[0.1, 0.2, -0.3],
           classlabels_ints=[3, 5, 7], post_transform=transform)
        ml("LinearClassifier", x, outputs=2, coefficients=weights[:3], intercepts=[0.1],
           classlabels_strings=["no", "yes"], post_transform=transform)
    vectors = f(5, 3, start=-0.8, step=0.13).ravel().tolist()
    for kernel in ["LINEAR", "POLY", "RBF", "SIGMOID"]:
        svm = {"kernel_type": kernel, "kernel_params": [0.4, 0.5, 3.0], "support_vectors": vectors}
        ml("SVMRegressor", x, **svm, n_supports=5, coefficients=[0.5, -0.3, 0.9, -1.0, 0.2],
           rho=[0.3])
        ml("SVMRegressor", x, **svm, n_supports=5, coefficients=[0.5, -0.3, 0.9, -1.0, 0.2],
           rho=[0.1], one_class=1)
        three = {**svm, "vectors_per_class": [2, 1, 2], "rho": [0.1, -0.2, 0.05],
                 "coefficients": [0.5, -0.3, 0.9, -1.0, 0.2, 0.4, 0.1, -0.6, 0.3, -0.7]}
        ml("SVMClassifier", x, outputs=2, **three, classlabels_ints=[2, 4, 8])
        ml("SVMClassifier", x, outputs=2, **three, classlabels_strings=["a", "b", "c"],
           prob_a=[-1.5, -1.2, -0.8], prob_b=[0.1, 0.0, -0.2])
        two = {**svm, "vectors_per_class": [2, 3], "rho": [0.1],
               "coefficients": [0.5, -0.3, 0.9, -1.0, 0.2]}
        ml("SVMClassifier", x, outputs=2, **two, classlabels_ints=[0, 1])
        ml("SVMClassifier", x, outputs=2, **two, classlabels_ints=[0, 1], prob_a=[-1.5],
           prob_b=[0.1])
    plain = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0]}
    ml("SVMRegressor", x, **plain, coefficients=[0.5, -0.3, 0.9], rho=[0.3])
    ml("SVMClassifier", x, outputs=2, **plain, classlabels_ints=[2, 4, 8], rho=[0.1],
       coefficients=[0.5, -1.0, 2.0, 1.0, 0.1, -0.5, -1.0, 0.3, 0.2])

    ml("Scaler", x, offset=[0.5], scale=[2.0])
    ml("Scaler", i(1, 2, 3, 4).reshape(2, 2), offset=[0.5, 1.0], scale=[2.0, 0.1])
    for norm in ["MAX", "L1", "L2"]:
        ml("Normalizer", x, norm=norm)
        ml("Normalizer", np.zeros((1, 3), np.float32), norm=norm)
    ml("OneHotEncoder", i(1, 7, 3).reshape(3, 1), cats_int64s=[3, 1])
    ml("OneHotEncoder", np.array([1.0, 3.0], np.float32), cats_int64s=[3, 1])
    ml("OneHotEncoder", t("b", "c", "a"), cats_strings=["a", "b"])
    ml("LabelEncoder", t("b", "x"), keys_strings=["a", "b"], values_int64s=[5, 6], default_int64=9)
    ml("LabelEncoder", t("b", "x"), keys_strings=["a", "b"], values_floats=[0.5, 6.5])
    ml("LabelEncoder", i(2, 3), keys_int64s=[1, 2], values_strings=["one", "two"])
    ml("LabelEncoder", np.array([np.nan, 2, 0.5], np.float32), keys_floats=[float("nan"), 0.5],
       values_strings=["none", "half"], version=4)
    ml("LabelEncoder", t("b", "x"), classes_strings=["a", "b"], version=1)
    ml("LabelEncoder", i(1, 3), classes_strings=["a", "b"], version=1)
    for x in [t("b", "x"), i(7, 0)]:
        ml("CategoryMapper", x, cats_strings=["a", "b"], cats_int64s=[5, 7])
    holes = np.array([[1, np.nan], [np.nan, 4]], np.float32)
    ml("Imputer", holes, imputed_value_floats=[0.5, 2.5], replaced_value_float=float("nan"))
    ml("Imputer", i(1, -1, -1, 4).reshape(2, 2), imputed_value_int64s=[8], replaced_value_int64=-1)
    ml("Binarizer", f(2, 3), threshold=0.2)
    ml("ArrayFeatureExtractor", f(2, 3), i(2, 0))
    ml("ArrayFeatureExtractor", t("a", "b", "c"), i(1).reshape(1, 1))
    ml("FeatureVectorizer", f(2, 3), f(2, 1), inputdimensions=[3, 1])


if __name__ == "__main__":
    for family in [elementwise, logic, products, pools, norms, reductions, shapes, indexing,
                   recurrent, quantized, contrib, strings, classical]:
        family()
    lines = ",\n".join(json.dumps(case) for case in CASES)
    path = Path(__file__).parent / "expected" / "operators.json"
    path.write_text(f"[\n{lines}\n]\n")
    print(len(CASES), "cases")
