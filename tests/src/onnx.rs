//! The smallest ONNX files that tests need, written by hand: nodes between an input `x` and an
//! output `y` of float32. The field numbers are those of `onnx.proto`.

const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// What `x` and `y` are where nothing else is said.
const VECTOR: [&str; 1] = ["n"];

/// `y = x + 1`.
pub fn add_one() -> Vec<u8> {
    add(1.0)
}

/// `y = x + amount`.
pub fn add(amount: f32) -> Vec<u8> {
    let dims_none: Vec<u8> = Vec::new();
    let raw = amount.to_le_bytes().to_vec();
    let constant = [dims_none, int(2, FLOAT), text(8, "amount"), part(9, &raw)].concat();
    model(&node("Add", &["x", "amount"]), &[constant], &VECTOR)
}

/// `y = x · weights`, weights `[size, size]`, row by row.
pub fn product(weights: &[f32], size: usize) -> Vec<u8> {
    let raw: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
    let dims = [int(1, size as u64), int(1, size as u64)].concat();
    let constant = [dims, int(2, FLOAT), text(8, "weights"), part(9, &raw)].concat();
    model(&node("MatMul", &["x", "weights"]), &[constant], &VECTOR)
}

/// Layers of a ranker: `x [batch, sizes[0]]` through a product and a ReLU for each further size to
/// `y [batch, …]`. The weights are the same for the same sizes.
pub fn ranker(sizes: &[usize]) -> Vec<u8> {
    let (mut nodes, mut weights) = (Vec::new(), Vec::new());
    let mut from = "x".to_owned();
    for (at, pair) in sizes.windows(2).enumerate() {
        let &[inputs, outputs] = pair else { continue };
        let scale = (inputs as f32).sqrt();
        let values = (0..inputs * outputs).map(|i| ((i * 37 + at) % 101) as f32 / 50.0 - 1.0);
        let raw: Vec<u8> = values.flat_map(|x| (x / scale).to_le_bytes()).collect();
        let dims = [int(1, inputs as u64), int(1, outputs as u64)].concat();
        let name = format!("weights-{at}");
        weights.push([dims, int(2, FLOAT), text(8, &name), part(9, &raw)].concat());
        let last = at + 2 == sizes.len();
        let (product, to) = (format!("product-{at}"), format!("layer-{at}"));
        let to = if last { "y".to_owned() } else { to };
        nodes.push(operator("MatMul", &[&from, &name], &product));
        nodes.push(operator("Relu", &[&product], &to));
        from = to;
    }
    let (input, output) = (sizes.first(), sizes.last());
    let dims = |size: Option<&usize>| ["batch".to_owned(), size.map_or(0, |n| *n).to_string()];
    graph(&nodes, &weights, &dims(input), &dims(output))
}

/// `y [batch, n]` is the sum of the rows of `x [batch, n]` up to each: no row stands for itself.
pub fn running_sum() -> Vec<u8> {
    let axis = [int(2, INT64), text(8, "axis"), part(9, &0i64.to_le_bytes())].concat();
    model(&node("CumSum", &["x", "axis"]), &[axis], &["batch", "n"])
}

/// `y = weights[x]`, element by element, the weights being `pattern` so many times: a model as large
/// as wanted, with next to nothing to compute.
pub fn lookup(pattern: &[f32], times: usize) -> Vec<u8> {
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
    let vector = VECTOR.map(str::to_owned);
    graph(&[cast, gather], &[constant], &vector, &vector)
}

/// `y = x`, vectors of an element type of ONNX: 1 is float32, 7 is int64.
pub fn identity(element: u64) -> Vec<u8> {
    let dims = VECTOR.map(str::to_owned);
    let (input, output) = (values("x", element, &dims), values("y", element, &dims));
    let ends = [part(11, &input), part(12, &output)].concat();
    let node = part(1, &node("Identity", &["x"]));
    whole(&[node, text(2, "tiny"), ends].concat())
}

/// A model whose one node, `strange`, is of an operator that ONNX doesn't have.
pub fn unknown_operator() -> Vec<u8> {
    model(&node("FrobnicateTwice", &["x"]), &[], &VECTOR)
}

fn node(kind: &str, inputs: &[&str]) -> Vec<u8> {
    operator(kind, inputs, "y")
}

fn operator(kind: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| text(1, name)).collect();
    [inputs, text(2, output), text(3, "strange"), text(4, kind)].concat()
}

/// One node between `x` and `y` of the same dimensions.
fn model(node: &[u8], initializers: &[Vec<u8>], dims: &[&str]) -> Vec<u8> {
    let dims: Vec<String> = dims.iter().map(|&dim| dim.to_owned()).collect();
    graph(&[node.to_vec()], initializers, &dims, &dims)
}

/// A dimension that is a number has that size, any other that name.
fn graph(nodes: &[Vec<u8>], initializers: &[Vec<u8>], x: &[String], y: &[String]) -> Vec<u8> {
    let parts = |field: u8, each: &[Vec<u8>]| -> Vec<u8> {
        each.iter()
            .flat_map(|content| part(field, content))
            .collect()
    };
    let (nodes, initializers) = (parts(1, nodes), parts(5, initializers));
    let (input, output) = (values("x", FLOAT, x), values("y", FLOAT, y));
    let ends = [part(11, &input), part(12, &output)].concat();
    whole(&[nodes, text(2, "tiny"), initializers, ends].concat())
}

/// A ModelProto around a graph.
fn whole(graph: &[u8]) -> Vec<u8> {
    let opset = [text(1, ""), int(2, 17)].concat();
    [int(1, 8), part(7, graph), part(8, &opset)].concat()
}

/// A ValueInfoProto.
fn values(name: &str, element: u64, dims: &[String]) -> Vec<u8> {
    let dims = dims.iter().flat_map(|dim| match dim.parse() {
        Ok(size) => part(1, &int(1, size)),
        Err(_) => part(1, &text(2, dim)),
    });
    let shape: Vec<u8> = dims.collect();
    let tensor_type = [int(1, element), part(2, &shape)].concat();
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
