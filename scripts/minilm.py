#!/usr/bin/env python3
"""Writes all-MiniLM-L6-v2 as ONNX, from its safetensors weights, with the standard library alone.

Usage: minilm.py model.safetensors model.onnx

The graph (opset 17) is BERT with 6 layers, 12 heads and a hidden size of 384:
  inputs   input_ids, attention_mask, token_type_ids   int64   [batch, sequence], sequence <= 512
  output   last_hidden_state                           float32 [batch, sequence, 384]

The plan: read the weights, write one operator after another into a `Graph`, and encode the graph
by the few lines of protobuf that ONNX needs. The same weights give the same bytes every time.
"""

import array
import json
import struct
import sys

LAYERS, HEADS, HIDDEN, POSITIONS = 6, 12, 384, 512
HEAD = HIDDEN // HEADS

# Numbers of onnx.proto: TensorProto.DataType and AttributeProto.AttributeType.
FLOAT, INT64 = 1, 7
ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS = 1, 2, 7


# --- protobuf -----------------------------------------------------------------------------------


def varint(value):
    """A base-128 integer, least significant group first; negative ones as 64-bit complements."""
    value &= 2**64 - 1
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def number(field, value):
    """An integer field."""
    return varint(field << 3) + varint(value)


def real(field, value):
    """A 32-bit float field."""
    return varint(field << 3 | 5) + struct.pack("<f", value)


def chunk(field, content):
    """A string, bytes or message field."""
    content = content.encode() if isinstance(content, str) else content
    return b"".join((varint(field << 3 | 2), varint(len(content)), content))


# --- ONNX messages ------------------------------------------------------------------------------


def tensor(name, kind, dims, raw):
    """A TensorProto; `raw` is little-endian, row after row."""
    shape = b"".join(number(1, dim) for dim in dims)
    return b"".join((shape, number(2, kind), chunk(8, name), chunk(9, raw)))


def attribute(name, value):
    """An AttributeProto of a float, an int or a list of ints."""
    if isinstance(value, float):
        body = real(2, value) + number(20, ATTRIBUTE_FLOAT)
    elif isinstance(value, int):
        body = number(3, value) + number(20, ATTRIBUTE_INT)
    else:
        body = b"".join(number(8, item) for item in value) + number(20, ATTRIBUTE_INTS)
    return chunk(1, name) + body


def value_info(name, kind, dims):
    """A ValueInfoProto; a dim given as a string is one that may differ from call to call."""
    sizes = (number(1, dim) if isinstance(dim, int) else chunk(2, dim) for dim in dims)
    shape = b"".join(chunk(1, size) for size in sizes)
    return chunk(1, name) + chunk(2, chunk(1, number(1, kind) + chunk(2, shape)))


class Graph:
    """A GraphProto in the making. Values are their names."""

    def __init__(self):
        self.nodes, self.initializers, self.known = [], [], set()

    def constant(self, name, kind, dims, raw):
        if name not in self.known:
            self.known.add(name)
            self.initializers.append(chunk(5, tensor(name, kind, dims, raw)))
        return name

    def ints(self, name, *items):
        return self.constant(name, INT64, [len(items)], struct.pack(f"<{len(items)}q", *items))

    def scalar(self, name, value):
        return self.constant(name, FLOAT, [], struct.pack("<f", value))

    def op(self, output, kind, *inputs, **attributes):
        """Adds a node, named like its one output, and returns that name."""
        parts = [chunk(1, name) for name in inputs]
        parts += [chunk(2, output), chunk(3, output), chunk(4, kind)]
        parts += [chunk(5, attribute(name, value)) for name, value in attributes.items()]
        self.nodes.append(chunk(1, b"".join(parts)))
        return output

    def encode(self, name, inputs, outputs):
        """The whole file: a ModelProto around this graph."""
        ends = [chunk(11, value_info(*one)) for one in inputs]
        ends += [chunk(12, value_info(*one)) for one in outputs]
        graph = b"".join([*self.nodes, chunk(2, name), *self.initializers, *ends])
        opset = chunk(8, chunk(1, "") + number(2, 17))
        return b"".join((number(1, 8), chunk(2, "firebox"), opset, chunk(7, graph)))


# --- weights ------------------------------------------------------------------------------------


class Weights:
    """A safetensors file: a JSON header after its length, then the tensors' bytes."""

    def __init__(self, path):
        with open(path, "rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            self.entries = json.loads(file.read(header_bytes))
            self.data = file.read()

    def floats(self, name, shape):
        """The raw bytes of a float32 tensor, which must have this shape."""
        entry = self.entries.get(name) or self.entries.get("bert." + name)
        if entry is None:
            raise SystemExit(f"minilm.py: the weights hold no tensor '{name}'")
        if entry["dtype"] != "F32" or entry["shape"] != shape:
            found = f"{entry['dtype']} {entry['shape']}"
            raise SystemExit(f"minilm.py: '{name}' should be F32 {shape}, but is {found}")
        begin, end = entry["data_offsets"]
        return self.data[begin:end]

    def transposed(self, name, rows, columns):
        """The bytes of a [rows, columns] tensor laid out as [columns, rows]."""
        source = array.array("f", self.floats(name, [rows, columns]))
        target = array.array("f")
        for column in range(columns):
            target.extend(source[column::columns])
        return target.tobytes()


# --- the model ----------------------------------------------------------------------------------


class MiniLM:
    """Writes the encoder's parts into `graph`, under the names of the weights."""

    def __init__(self, weights):
        self.weights, self.graph = weights, Graph()

    def table(self, name, rows):
        return self.graph.constant(
            name, FLOAT, [rows, HIDDEN], self.weights.floats(name, [rows, HIDDEN])
        )

    def vector(self, name, size):
        return self.graph.constant(name, FLOAT, [size], self.weights.floats(name, [size]))

    def dense(self, x, key, inner, outer):
        """x · Wᵀ + b: the weights are stored as [outer, inner]."""
        turned = self.weights.transposed(key + ".weight", outer, inner)
        weight = self.graph.constant(key + ".weight", FLOAT, [inner, outer], turned)
        product = self.graph.op(key + "/product", "MatMul", x, weight)
        return self.graph.op(key, "Add", product, self.vector(key + ".bias", outer))

    def norm(self, x, key):
        scale, bias = self.vector(key + ".weight", HIDDEN), self.vector(key + ".bias", HIDDEN)
        return self.graph.op(key, "LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)

    def embeddings(self):
        """Word, token type and position, summed and normalised."""
        op, ints = self.graph.op, self.graph.ints
        words = self.table("embeddings.word_embeddings.weight", 30522)
        types = self.table("embeddings.token_type_embeddings.weight", 2)
        places = self.table("embeddings.position_embeddings.weight", POSITIONS)
        word = op("word", "Gather", words, "input_ids", axis=0)
        kind = op("token_type", "Gather", types, "token_type_ids", axis=0)
        shape = op("shape", "Shape", "input_ids")
        length = op("length", "Slice", shape, ints("one", 1), ints("two", 2))
        # The first `length` rows of the position table, the same for each of the batch.
        place = op("position", "Slice", places, ints("zero", 0), length, ints("axis_0", 0))
        summed = op("word_and_position", "Add", word, place)
        return self.norm(op("embedding", "Add", summed, kind), "embeddings.LayerNorm")

    def mask(self):
        """0 where a token may be looked at and a huge negative number where it may not."""
        op, graph = self.graph.op, self.graph
        wide = op("mask/wide", "Unsqueeze", "attention_mask", graph.ints("axes_1_2", 1, 2))
        real_mask = op("mask/float", "Cast", wide, to=FLOAT)
        less_one = op("mask/less_one", "Sub", real_mask, graph.scalar("f_one", 1.0))
        return op("mask", "Mul", less_one, graph.scalar("f_huge", 3.4e38))

    def heads(self, x, key, order):
        """A dense layer, its result cut into heads and turned by `order`."""
        dense = self.dense(x, key, HIDDEN, HIDDEN)
        cut = self.graph.ints("cut", 0, 0, HEADS, HEAD)
        apart = self.graph.op(key + "/apart", "Reshape", dense, cut)
        return self.graph.op(key + "/heads", "Transpose", apart, perm=order)

    def attention(self, x, mask, key):
        op, inside = self.graph.op, key + ".self"
        query = self.heads(x, inside + ".query", [0, 2, 1, 3])
        keys = self.heads(x, inside + ".key", [0, 2, 3, 1])
        value = self.heads(x, inside + ".value", [0, 2, 1, 3])
        product = op(inside + "/product", "MatMul", query, keys)
        root = self.graph.scalar("root_head", HEAD**0.5)
        scores = op(inside + "/scores", "Div", product, root)
        masked = op(inside + "/masked", "Add", scores, mask)
        shares = op(inside + "/shares", "Softmax", masked, axis=-1)
        seen = op(inside + "/seen", "MatMul", shares, value)
        turned = op(inside + "/turned", "Transpose", seen, perm=[0, 2, 1, 3])
        joined = op(inside, "Reshape", turned, self.graph.ints("join", 0, 0, HIDDEN))
        dense = self.dense(joined, key + ".output.dense", HIDDEN, HIDDEN)
        return self.norm(op(key + "/sum", "Add", dense, x), key + ".output.LayerNorm")

    def gelu(self, x, key):
        """x · (1 + erf(x / √2)) / 2 (Hendrycks and Gimpel, 2016)."""
        op, scalar = self.graph.op, self.graph.scalar
        scaled = op(key + "/scaled", "Div", x, scalar("root_two", 2**0.5))
        erf = op(key + "/erf", "Erf", scaled)
        gate = op(key + "/gate", "Add", erf, scalar("f_one", 1.0))
        twice = op(key + "/twice", "Mul", x, gate)
        return op(key + "/gelu", "Mul", twice, scalar("f_half", 0.5))

    def layer(self, x, mask, key):
        x = self.attention(x, mask, key + ".attention")
        wide = self.dense(x, key + ".intermediate.dense", HIDDEN, 4 * HIDDEN)
        active = self.gelu(wide, key + ".intermediate")
        narrow = self.dense(active, key + ".output.dense", 4 * HIDDEN, HIDDEN)
        return self.norm(self.graph.op(key + "/sum", "Add", narrow, x), key + ".output.LayerNorm")

    def encode(self):
        x, mask = self.embeddings(), self.mask()
        for index in range(LAYERS):
            x = self.layer(x, mask, f"encoder.layer.{index}")
        self.graph.op("last_hidden_state", "Identity", x)
        dims = ["batch", "sequence"]
        names = ("input_ids", "attention_mask", "token_type_ids")
        return self.graph.encode(
            "all-MiniLM-L6-v2",
            [(name, INT64, dims) for name in names],
            [("last_hidden_state", FLOAT, [*dims, HIDDEN])],
        )


def convert(source, target):
    """Reads the safetensors file `source` and writes the ONNX file `target`."""
    content = MiniLM(Weights(source)).encode()
    with open(target, "wb") as file:
        file.write(content)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: minilm.py model.safetensors model.onnx")
    convert(sys.argv[1], sys.argv[2])
