//! The smallest ONNX files that tests need, written by hand: one node between an input `x` and an
//! output `y`, both float32 `[n]`. The field numbers are those of `onnx.proto`.

const FLOAT: u64 = 1;

/// `y = x + 1`.
pub fn add_one() -> Vec<u8> {
    add(1.0)
}

/// `y = x + amount`.
pub fn add(amount: f32) -> Vec<u8> {
    let dims_none: Vec<u8> = Vec::new();
    let raw = amount.to_le_bytes().to_vec();
    let constant = [dims_none, int(2, FLOAT), text(8, "amount"), part(9, &raw)].concat();
    model(&node("Add", &["x", "amount"]), &[constant])
}

/// `y = x · weights`, weights `[size, size]`, row by row.
pub fn product(weights: &[f32], size: usize) -> Vec<u8> {
    let raw: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
    let dims = [int(1, size as u64), int(1, size as u64)].concat();
    let constant = [dims, int(2, FLOAT), text(8, "weights"), part(9, &raw)].concat();
    model(&node("MatMul", &["x", "weights"]), &[constant])
}

/// `y = weights[x]`, element by element, the weights being `pattern` so many times: a model as large
/// as wanted, with next to nothing to compute.
pub fn lookup(pattern: &[f32], times: usize) -> Vec<u8> {
    const INT64: u64 = 7;
    /// AttributeProto.type, whose number needs two bytes, is INT.
    const TYPE_INT: [u8; 3] = [0xA0, 0x01, 2];
    let attribute = [text(1, "to"), int(3, INT64), TYPE_INT.to_vec()].concat();
    let cast = [
        text(1, "x"),
        text(2, "at"),
        text(4, "Cast"),
        part(5, &attribute),
    ]
    .concat();
    let gather = [
        text(1, "weights"),
        text(1, "at"),
        text(2, "y"),
        text(4, "Gather"),
    ]
    .concat();
    let raw: Vec<u8> = pattern.iter().flat_map(|x| x.to_le_bytes()).collect();
    let raw = raw.repeat(times);
    let dims = int(1, (pattern.len() * times) as u64);
    let constant = [dims, int(2, FLOAT), text(8, "weights"), part(9, &raw)].concat();
    graph(&[cast, gather], &[constant])
}

/// A model whose one node, `strange`, is of an operator that ONNX doesn't have.
pub fn unknown_operator() -> Vec<u8> {
    model(&node("FrobnicateTwice", &["x"]), &[])
}

fn node(kind: &str, inputs: &[&str]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| text(1, name)).collect();
    [inputs, text(2, "y"), text(3, "strange"), text(4, kind)].concat()
}

fn model(node: &[u8], initializers: &[Vec<u8>]) -> Vec<u8> {
    graph(&[node.to_vec()], initializers)
}

fn graph(nodes: &[Vec<u8>], initializers: &[Vec<u8>]) -> Vec<u8> {
    let nodes: Vec<u8> = nodes.iter().flat_map(|node| part(1, node)).collect();
    let initializers: Vec<u8> = initializers
        .iter()
        .flat_map(|tensor| part(5, tensor))
        .collect();
    let (input, output) = (part(11, &float_vector("x")), part(12, &float_vector("y")));
    let graph = [nodes, text(2, "tiny"), initializers, input, output].concat();
    let opset = [text(1, ""), int(2, 17)].concat();
    [int(1, 8), part(7, &graph), part(8, &opset)].concat()
}

/// A ValueInfoProto: float32, one dimension called `n`.
fn float_vector(name: &str) -> Vec<u8> {
    let shape = part(1, &text(2, "n"));
    let tensor_type = [int(1, FLOAT), part(2, &shape)].concat();
    [text(1, name), part(2, &part(1, &tensor_type))].concat()
}

fn int(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

fn text(field: u8, value: &str) -> Vec<u8> {
    part(field, value.as_bytes())
}

fn part(field: u8, content: &[u8]) -> Vec<u8> {
    [
        vec![field << 3 | 2],
        varint(content.len() as u64),
        content.to_vec(),
    ]
    .concat()
}

/// A base-128 integer, least significant group first (protobuf's wire format).
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7F {
        bytes.push(value as u8 & 0x7F | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
