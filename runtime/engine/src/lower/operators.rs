//! From an operator's name and attributes to an [`Op`], for all operator sets that differ.

use burn_dispatch::DispatchDevice;

use super::attributes::Attributes;
use crate::error::LoadError;
use crate::graph::*;
use crate::onnx;
use crate::tensor::{DType, Tensor};
use crate::value::Value;

/// What is wrong with a node, or with something inside it.
pub(super) enum ParseError {
    Here(String),
    Inside(LoadError),
}

impl ParseError {
    /// As an error of the node, which `here` names.
    pub fn at(self, here: impl FnOnce(String) -> LoadError) -> LoadError {
        match self {
            Self::Here(reason) => here(reason),
            Self::Inside(error) => error,
        }
    }
}

impl From<String> for ParseError {
    fn from(reason: String) -> Self {
        Self::Here(reason)
    }
}

impl From<&str> for ParseError {
    fn from(reason: &str) -> Self {
        Self::Here(reason.into())
    }
}

impl From<LoadError> for ParseError {
    fn from(error: LoadError) -> Self {
        Self::Inside(error)
    }
}

/// What a parser needs beside the attributes.
pub(super) struct Context<'a> {
    pub program: &'a mut Program,
    pub device: &'a DispatchDevice,
    pub node: &'a str,
    pub inputs: &'a mut Vec<Option<ValueId>>,
    pub outputs: usize,
    pub opset: i64,
}

impl Context<'_> {
    /// Gives what an older operator set has as an attribute as input `index`.
    fn as_input(&mut self, index: usize, tensor: Tensor) -> Result<(), ParseError> {
        let name = format!("{} input {index}", self.node);
        let value = super::upload(tensor, self.device).map_err(|error| error.to_string())?;
        let id = self.program.add_constant(&name, value);
        if self.inputs.len() <= index {
            self.inputs.resize(index + 1, None);
        }
        if let Some(slot) = self.inputs.get_mut(index) {
            *slot = Some(id);
        }
        Ok(())
    }

    fn ints_as_input(&mut self, index: usize, values: Option<Vec<i64>>) -> Result<(), ParseError> {
        let Some(values) = values else { return Ok(()) };
        let tensor = Tensor::from_i64(vec![values.len()], &values);
        self.as_input(index, tensor.map_err(|error| error.to_string())?)
    }

    fn float_as_input(&mut self, index: usize, value: Option<f32>) -> Result<(), ParseError> {
        let Some(value) = value else { return Ok(()) };
        self.as_input(
            index,
            Tensor::from_f32(vec![], &[value]).map_err(|error| error.to_string())?,
        )
    }
}

/// How many outputs an operator makes; `None` for as many as the node has.
pub(super) fn output_count(op: &Op) -> Option<usize> {
    match op {
        Op::Split { .. } | Op::If { .. } => None,
        Op::TopK { .. } | Op::Dropout => Some(2),
        Op::Recurrent(layer) => Some(if matches!(layer.cell, Cell::Lstm { .. }) {
            3
        } else {
            2
        }),
        _ => Some(1),
    }
}

/// The tensor of a `Constant` node.
pub(super) fn constant(attributes: &mut Attributes, node: &str) -> Result<Tensor, ParseError> {
    if let Some(proto) = attributes.tensor("value")? {
        return Ok(onnx::tensor(proto, node)?);
    }
    let made = if attributes.has("value_float") {
        Tensor::from_f32(vec![], &[attributes.float_or("value_float", 0.0)?])
    } else if attributes.has("value_int") {
        Tensor::from_i64(vec![], &[attributes.int_or("value_int", 0)?])
    } else if let Some(values) = attributes.floats("value_floats")? {
        Tensor::from_f32(vec![values.len()], &values)
    } else if let Some(values) = attributes.ints("value_ints")? {
        Tensor::from_i64(vec![values.len()], &values)
    } else {
        return Err("it holds no numbers (sparse tensors and strings are not supported)".into());
    };
    made.map_err(|error| error.to_string().into())
}

/// The operator, or nothing where it is not supported.
pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    if let Some(op) = unary(operator, a)? {
        return Ok(Some(Op::Unary(op)));
    }
    if let Some(op) = simple(operator) {
        return Ok(Some(op));
    }
    if let Some(op) = reduction(operator, a, context)? {
        return Ok(Some(op));
    }
    if let Some(op) = windowed(operator, a, context)? {
        return Ok(Some(op));
    }
    if let Some(op) = shaping(operator, a, context)? {
        return Ok(Some(op));
    }
    if let Some(op) = indexing(operator, a)? {
        return Ok(Some(op));
    }
    if let Some(op) = normalising(operator, a, context)? {
        return Ok(Some(op));
    }
    recurrent(operator, a)
}

fn unary(operator: &str, a: &mut Attributes) -> Result<Option<Unary>, ParseError> {
    Ok(Some(match operator {
        "Abs" => Unary::Abs,
        "Acos" => Unary::Acos,
        "Acosh" => Unary::Acosh,
        "Asin" => Unary::Asin,
        "Asinh" => Unary::Asinh,
        "Atan" => Unary::Atan,
        "Atanh" => Unary::Atanh,
        "BitwiseNot" => Unary::BitNot,
        "Ceil" => Unary::Ceil,
        "Celu" => Unary::Celu {
            alpha: a.float_or("alpha", 1.0)?,
        },
        "Cos" => Unary::Cos,
        "Cosh" => Unary::Cosh,
        "Elu" => Unary::Elu {
            alpha: a.float_or("alpha", 1.0)?,
        },
        "Erf" => Unary::Erf,
        "Exp" => Unary::Exp,
        "Floor" => Unary::Floor,
        "Gelu" => match a.text("approximate")?.as_deref() {
            None | Some("none" | "") => Unary::Gelu { tanh: false },
            Some("tanh") => Unary::Gelu { tanh: true },
            Some(other) => return Err(format!("unknown approximation `{other}`").into()),
        },
        "HardSigmoid" => Unary::HardSigmoid {
            alpha: a.float_or("alpha", 0.2)?,
            beta: a.float_or("beta", 0.5)?,
        },
        "HardSwish" => Unary::HardSwish,
        "IsInf" => Unary::IsInf {
            negative: a.flag("detect_negative", true)?,
            positive: a.flag("detect_positive", true)?,
        },
        "IsNaN" => Unary::IsNan,
        "LeakyRelu" => Unary::LeakyRelu {
            alpha: a.float_or("alpha", 0.01)?,
        },
        "Log" => Unary::Log,
        "Mish" => Unary::Mish,
        "Neg" => Unary::Neg,
        "Not" => Unary::Not,
        "Reciprocal" => Unary::Reciprocal,
        "Relu" => Unary::Relu,
        "Round" => Unary::Round,
        "Selu" => Unary::Selu {
            alpha: a.float_or("alpha", 1.673_263_2)?,
            gamma: a.float_or("gamma", 1.050_701)?,
        },
        "Sigmoid" => Unary::Sigmoid,
        "Sign" => Unary::Sign,
        "Sin" => Unary::Sin,
        "Sinh" => Unary::Sinh,
        "Softplus" => Unary::Softplus,
        "Softsign" => Unary::Softsign,
        "Sqrt" => Unary::Sqrt,
        "Tan" => Unary::Tan,
        "Tanh" => Unary::Tanh,
        "ThresholdedRelu" => Unary::ThresholdedRelu {
            alpha: a.float_or("alpha", 1.0)?,
        },
        _ => return Ok(None),
    }))
}

/// Operators without attributes that matter.
fn simple(operator: &str) -> Option<Op> {
    Some(match operator {
        "Add" => Op::Binary(Binary::Add),
        "Sub" => Op::Binary(Binary::Sub),
        "Mul" => Op::Binary(Binary::Mul),
        "Div" => Op::Binary(Binary::Div),
        "Pow" => Op::Binary(Binary::Pow),
        "PRelu" => Op::Binary(Binary::PRelu),
        "BitwiseAnd" => Op::Binary(Binary::BitAnd),
        "BitwiseOr" => Op::Binary(Binary::BitOr),
        "BitwiseXor" => Op::Binary(Binary::BitXor),
        "Max" => Op::Variadic(Variadic::Max),
        "Min" => Op::Variadic(Variadic::Min),
        "Sum" => Op::Variadic(Variadic::Sum),
        "Mean" => Op::Variadic(Variadic::Mean),
        "Equal" => Op::Compare(Compare::Equal),
        "Greater" => Op::Compare(Compare::Greater),
        "GreaterOrEqual" => Op::Compare(Compare::GreaterOrEqual),
        "Less" => Op::Compare(Compare::Less),
        "LessOrEqual" => Op::Compare(Compare::LessOrEqual),
        "And" => Op::Logic(Logic::And),
        "Or" => Op::Logic(Logic::Or),
        "Xor" => Op::Logic(Logic::Xor),
        "Where" => Op::Where,
        "CastLike" => Op::CastLike,
        "MatMul" => Op::MatMul,
        "GlobalMaxPool" => Op::GlobalMaxPool,
        "GlobalAveragePool" => Op::GlobalAveragePool,
        "Identity" => Op::Identity,
        "Dropout" => Op::Dropout,
        "Size" => Op::Size,
        "Expand" => Op::Expand,
        "Tile" => Op::Tile,
        "Range" => Op::Range,
        "NonZero" => Op::NonZero,
        _ => return None,
    })
}

fn reduction(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    let kind = match operator {
        "ReduceL1" => Reduce::L1,
        "ReduceL2" => Reduce::L2,
        "ReduceLogSum" => Reduce::LogSum,
        "ReduceLogSumExp" => Reduce::LogSumExp,
        "ReduceMax" => Reduce::Max,
        "ReduceMean" => Reduce::Mean,
        "ReduceMin" => Reduce::Min,
        "ReduceProd" => Reduce::Prod,
        "ReduceSum" => Reduce::Sum,
        "ReduceSumSquare" => Reduce::SumSquare,
        "ArgMax" | "ArgMin" => {
            return Ok(Some(Op::ArgExtreme {
                largest: operator == "ArgMax",
                axis: a.int_or("axis", 0)?,
                keep_dims: a.flag("keepdims", true)?,
                last: a.flag("select_last_index", false)?,
            }));
        }
        "CumSum" => {
            return Ok(Some(Op::CumSum {
                exclusive: a.flag("exclusive", false)?,
                reverse: a.flag("reverse", false)?,
            }));
        }
        "TopK" => {
            let k = a.int("k")?;
            context.ints_as_input(1, k.map(|k| vec![k]))?;
            return Ok(Some(Op::TopK {
                axis: a.int_or("axis", -1)?,
                largest: a.flag("largest", true)?,
            }));
        }
        _ => return Ok(None),
    };
    let axes = a.ints("axes")?;
    context.ints_as_input(1, axes)?;
    Ok(Some(Op::Reduce {
        kind,
        keep_dims: a.flag("keepdims", true)?,
        noop_with_empty_axes: a.flag("noop_with_empty_axes", false)?,
    }))
}

fn padding(a: &mut Attributes) -> Result<Padding, ParseError> {
    match a.text("auto_pad")?.as_deref() {
        None | Some("NOTSET" | "") => {
            if a.ints("pads")?
                .is_some_and(|pads| pads.iter().any(|&pad| pad < 0))
            {
                return Err("negative pads of a window are not supported".into());
            }
            Ok(Padding::Explicit(a.sizes("pads")?))
        }
        Some("VALID") => Ok(Padding::Explicit(Vec::new())),
        Some("SAME_UPPER") => Ok(Padding::Same { upper: true }),
        Some("SAME_LOWER") => Ok(Padding::Same { upper: false }),
        Some(other) => Err(format!("unknown auto_pad `{other}`").into()),
    }
}

fn conv(a: &mut Attributes) -> Result<Conv, ParseError> {
    let groups = usize::try_from(a.int_or("group", 1)?)
        .ok()
        .filter(|&groups| groups > 0);
    Ok(Conv {
        strides: a.positive_sizes("strides")?,
        dilations: a.positive_sizes("dilations")?,
        padding: padding(a)?,
        groups: groups.ok_or("attribute `group` is below 1")?,
        kernel: a.positive_sizes("kernel_shape")?,
    })
}

fn window(a: &mut Attributes) -> Result<Window, ParseError> {
    let kernel = a.positive_sizes("kernel_shape")?;
    if kernel.is_empty() {
        return Err("attribute `kernel_shape` is missing".into());
    }
    Ok(Window {
        kernel,
        strides: a.positive_sizes("strides")?,
        dilations: a.positive_sizes("dilations")?,
        padding: padding(a)?,
        ceil: a.flag("ceil_mode", false)?,
    })
}

fn windowed(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(match operator {
        "Conv" => Op::Conv(conv(a)?),
        "ConvTranspose" => Op::ConvTranspose {
            conv: conv(a)?,
            output_padding: a.sizes("output_padding")?,
            output_shape: a.sizes("output_shape")?,
        },
        "MaxPool" => {
            if a.int_or("storage_order", 0)? != 0 && context.outputs > 1 {
                return Err("column-major indices are not supported".into());
            }
            Op::MaxPool(window(a)?)
        }
        "AveragePool" => Op::AveragePool {
            count_padding: a.flag("count_include_pad", false)?,
            window: window(a)?,
        },
        "Gemm" => Op::Gemm {
            alpha: a.float_or("alpha", 1.0)?,
            beta: a.float_or("beta", 1.0)?,
            transpose_a: a.flag("transA", false)?,
            transpose_b: a.flag("transB", false)?,
        },
        _ => return Ok(None),
    }))
}

fn block_size(a: &mut Attributes) -> Result<usize, ParseError> {
    let size = usize::try_from(a.int_or("blocksize", 0)?)
        .ok()
        .filter(|&size| size > 0);
    size.ok_or_else(|| "attribute `blocksize` is below 1".into())
}

fn shaping(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(match operator {
        "Cast" => Op::Cast(cast_type(a, context.node)?),
        "Shape" => Op::Shape {
            start: a.int_or("start", 0)?,
            end: a.int_or("end", i64::MAX)?,
        },
        "Reshape" => {
            let shape = a.ints("shape")?;
            context.ints_as_input(1, shape)?;
            Op::Reshape {
                allow_zero: a.flag("allowzero", false)?,
            }
        }
        "Flatten" => Op::Flatten {
            axis: a.int_or("axis", 1)?,
        },
        "Squeeze" => {
            let axes = a.ints("axes")?;
            context.ints_as_input(1, axes)?;
            Op::Squeeze
        }
        "Unsqueeze" => {
            let axes = a.ints("axes")?;
            context.ints_as_input(1, axes)?;
            Op::Unsqueeze
        }
        "Transpose" => Op::Transpose(match a.has("perm") {
            true => Some(a.sizes("perm")?),
            false => None,
        }),
        "Concat" => Op::Concat {
            axis: a.int_or("axis", 1)?,
        },
        "Split" => {
            let sizes = a.ints("split")?;
            context.ints_as_input(1, sizes)?;
            let parts = a.int("num_outputs")?.map(usize::try_from);
            let parts = parts.unwrap_or(Ok(context.outputs)).unwrap_or(0);
            if parts != context.outputs || parts == 0 {
                return Err(format!("{parts} parts into {} outputs", context.outputs).into());
            }
            Op::Split {
                axis: a.int_or("axis", 0)?,
                parts,
            }
        }
        "Slice" => {
            for (index, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
                let values = a.ints(name)?;
                context.ints_as_input(index, values)?;
            }
            Op::Slice
        }
        "Pad" => {
            let pads = if a.has("pads") {
                a.ints("pads")?
            } else {
                a.ints("paddings")?
            };
            context.ints_as_input(1, pads)?;
            let value = a.float("value")?;
            context.float_as_input(2, value)?;
            Op::Pad(match a.text("mode")?.as_deref() {
                None | Some("constant") => PadMode::Constant,
                Some("reflect") => PadMode::Reflect,
                Some("edge") => PadMode::Edge,
                Some("wrap") => PadMode::Wrap,
                Some(other) => return Err(format!("unknown mode `{other}`").into()),
            })
        }
        "Clip" => {
            let (min, max) = (a.float("min")?, a.float("max")?);
            context.float_as_input(1, min)?;
            context.float_as_input(2, max)?;
            Op::Clip
        }
        "DepthToSpace" => Op::DepthToSpace {
            block: block_size(a)?,
            columns_first: match a.text("mode")?.as_deref() {
                None | Some("DCR") => false,
                Some("CRD") => true,
                Some(other) => return Err(format!("unknown mode `{other}`").into()),
            },
        },
        "SpaceToDepth" => Op::SpaceToDepth {
            block: block_size(a)?,
        },
        "Trilu" => Op::Trilu {
            upper: a.flag("upper", true)?,
        },
        "ConstantOfShape" => match a.tensor("value")? {
            None => Op::ConstantOfShape {
                dtype: DType::F32,
                value: 0.0,
            },
            Some(proto) => {
                let tensor = onnx::tensor(proto, context.node)?;
                let dtype = tensor.dtype();
                let value = Value::upload(tensor, &crate::device::cpu())
                    .and_then(|value| value.to_floats())
                    .map_err(|error| error.to_string())?;
                match value.as_slice() {
                    [value] => Op::ConstantOfShape {
                        dtype,
                        value: *value,
                    },
                    _ => return Err("attribute `value` holds not one element".into()),
                }
            }
        },
        "Mod" => Op::Binary(Binary::Mod {
            c_like: a.flag("fmod", false)?,
        }),
        "BitShift" => match a.text("direction")?.as_deref() {
            Some("LEFT") => Op::Binary(Binary::ShiftLeft),
            Some("RIGHT") => Op::Binary(Binary::ShiftRight),
            _ => return Err("attribute `direction` is neither LEFT nor RIGHT".into()),
        },
        _ => return Ok(None),
    }))
}

fn cast_type(a: &mut Attributes, node: &str) -> Result<DType, ParseError> {
    let to = a.int("to")?.ok_or("attribute `to` is missing")?;
    let to = i32::try_from(to).unwrap_or(0);
    Ok(onnx::dtype(Some(rten_onnx::onnx::DataType(to)), node)?)
}

fn indexing(operator: &str, a: &mut Attributes) -> Result<Option<Op>, ParseError> {
    let update = |a: &mut Attributes| -> Result<Update, ParseError> {
        Ok(match a.text("reduction")?.as_deref() {
            None | Some("none" | "") => Update::Assign,
            Some("add") => Update::Add,
            Some("mul") => Update::Mul,
            Some("max") => Update::Max,
            Some("min") => Update::Min,
            Some(other) => return Err(format!("unknown reduction `{other}`").into()),
        })
    };
    Ok(Some(match operator {
        "Gather" => Op::Gather {
            axis: a.int_or("axis", 0)?,
        },
        "GatherElements" => Op::GatherElements {
            axis: a.int_or("axis", 0)?,
        },
        "GatherND" => {
            if a.int_or("batch_dims", 0)? != 0 {
                return Err("batch_dims other than 0 are not supported".into());
            }
            Op::GatherNd
        }
        // Scatter is what ScatterElements was called before opset 11.
        "ScatterElements" | "Scatter" => Op::ScatterElements {
            axis: a.int_or("axis", 0)?,
            update: update(a)?,
        },
        "ScatterND" => Op::ScatterNd { update: update(a)? },
        "OneHot" => Op::OneHot {
            axis: a.int_or("axis", -1)?,
        },
        _ => return Ok(None),
    }))
}

fn normalising(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(match operator {
        "BatchNormalization" => {
            if a.flag("training_mode", false)? {
                return Err("training mode is not supported".into());
            }
            Op::BatchNorm {
                epsilon: a.float_or("epsilon", 1e-5)?,
            }
        }
        "InstanceNormalization" => Op::InstanceNorm {
            epsilon: a.float_or("epsilon", 1e-5)?,
        },
        "LayerNormalization" => Op::LayerNorm {
            axis: a.int_or("axis", -1)?,
            epsilon: a.float_or("epsilon", 1e-5)?,
        },
        "LpNormalization" => Op::LpNorm {
            axis: a.int_or("axis", -1)?,
            p: match a.int_or("p", 2)? {
                p @ (1 | 2) => p,
                other => return Err(format!("p is {other}, expected 1 or 2").into()),
            },
        },
        "Softmax" | "LogSoftmax" => {
            let flat = context.opset < 13;
            Op::Softmax {
                axis: a.int_or("axis", if flat { 1 } else { -1 })?,
                flat,
                log: operator == "LogSoftmax",
            }
        }
        _ => return Ok(None),
    }))
}

fn recurrent(operator: &str, a: &mut Attributes) -> Result<Option<Op>, ParseError> {
    let (cell, defaults): (_, &[Unary]) = match operator {
        "LSTM" => (
            Cell::Lstm {
                input_forget: a.flag("input_forget", false)?,
            },
            &[Unary::Sigmoid, Unary::Tanh, Unary::Tanh],
        ),
        "GRU" => (
            Cell::Gru {
                linear_before_reset: a.flag("linear_before_reset", false)?,
            },
            &[Unary::Sigmoid, Unary::Tanh],
        ),
        "RNN" => (Cell::Rnn, &[Unary::Tanh]),
        _ => return Ok(None),
    };
    let direction = match a.text("direction")?.as_deref() {
        None | Some("forward") => Direction::Forward,
        Some("reverse") => Direction::Reverse,
        Some("bidirectional") => Direction::Both,
        Some(other) => return Err(format!("unknown direction `{other}`").into()),
    };
    let hidden = a
        .int("hidden_size")?
        .and_then(|n| usize::try_from(n).ok())
        .filter(|&n| n > 0);
    let directions = if direction == Direction::Both { 2 } else { 1 };
    let activations = match a.texts("activations")? {
        None => defaults.repeat(directions),
        Some(names) => activations(&names, a)?,
    };
    if activations.len() != defaults.len() * directions {
        let expected = defaults.len() * directions;
        return Err(format!("{} activations, expected {expected}", activations.len()).into());
    }
    Ok(Some(Op::Recurrent(Recurrent {
        cell,
        direction,
        hidden: hidden.ok_or("attribute `hidden_size` is missing or below 1")?,
        activations,
        clip: a.float("clip")?,
        batch_major: a.flag("layout", false)?,
    })))
}

/// Activations of a recurrent cell, by name, with their numbers in order of use.
fn activations(names: &[String], a: &mut Attributes) -> Result<Vec<Unary>, ParseError> {
    let mut alphas = a
        .floats("activation_alpha")?
        .unwrap_or_default()
        .into_iter();
    let mut betas = a.floats("activation_beta")?.unwrap_or_default().into_iter();
    let mut alpha = |default: f32| alphas.next().unwrap_or(default);
    let mut beta = |default: f32| betas.next().unwrap_or(default);
    names
        .iter()
        .map(|name| {
            Ok(match name.to_ascii_lowercase().as_str() {
                "relu" => Unary::Relu,
                "tanh" => Unary::Tanh,
                "sigmoid" => Unary::Sigmoid,
                "hardsigmoid" => Unary::HardSigmoid {
                    alpha: alpha(0.2),
                    beta: beta(0.5),
                },
                "leakyrelu" => Unary::LeakyRelu { alpha: alpha(0.01) },
                "elu" => Unary::Elu { alpha: alpha(1.0) },
                "thresholdedrelu" => Unary::ThresholdedRelu { alpha: alpha(1.0) },
                "softsign" => Unary::Softsign,
                "softplus" => Unary::Softplus,
                other => return Err(format!("unknown activation `{other}`").into()),
            })
        })
        .collect()
}
