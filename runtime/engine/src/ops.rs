//! Operators on values, one module per family.
//!
//! Each checks dtypes, shapes and sizes before it calls burn, whose kernels panic on a misfit.

mod attention;
mod contrib;
mod conv;
mod deform;
mod draw;
mod einsum;
mod elementwise;
mod fourier;
mod grid;
mod image;
mod index;
mod language;
mod loss;
mod lrn;
mod matmul;
mod ml;
mod norm;
mod pool;
mod quantize;
mod reduce;
mod region;
mod resize;
mod rnn;
mod scores;
mod select;
mod sequence;
mod shape;
mod signal;
mod svm;
mod taps;
mod text;
mod trees;
mod unpool;

use burn_dispatch::DispatchDevice;

use crate::error::OpError;
use crate::graph::{Op, Reduce};
use crate::tensor::DType;
use crate::value::{Item, Value};

pub(crate) use norm::fold_batch_norm;
pub(crate) use sequence::stacked;

pub(crate) type Result<T> = std::result::Result<T, OpError>;

/// The inputs of a node. Taking one out gives its memory to the operator where it was the
/// last reader, so that burn can compute in place.
pub(crate) struct Args(Vec<Option<Item>>);

impl Args {
    pub fn new(items: Vec<Option<Item>>) -> Self {
        Self(items)
    }

    pub fn take(&mut self, index: usize) -> Result<Value> {
        self.item(index)?.tensor()
    }

    pub fn optional(&mut self, index: usize) -> Result<Option<Value>> {
        let item = self.0.get_mut(index).and_then(Option::take);
        item.map(Item::tensor).transpose()
    }

    /// An input that may be a sequence.
    pub fn item(&mut self, index: usize) -> Result<Item> {
        let item = self.0.get_mut(index).and_then(Option::take);
        item.ok_or(OpError::MissingInput { index })
    }

    /// The type of an input that is a tensor.
    pub fn dtype(&self, index: usize) -> Option<DType> {
        match self.0.get(index)? {
            Some(Item::Tensor(value)) => Some(value.dtype()),
            _ => None,
        }
    }

    /// All of them, as a variadic operator wants them.
    pub fn all(&mut self) -> Result<Vec<Value>> {
        self.all_from(0)
    }

    /// The same from `index` on.
    pub fn all_from(&mut self, index: usize) -> Result<Vec<Value>> {
        let missing = |(at, item): (usize, Option<Item>)| {
            item.ok_or(OpError::MissingInput { index: at })?.tensor()
        };
        let from = index.min(self.0.len());
        let rest = (from..).zip(self.0.drain(from..));
        rest.map(missing).collect()
    }

    /// A list of integers: a shape, axes, pads.
    pub fn ints(&mut self, index: usize) -> Result<Vec<i64>> {
        ints(&self.take(index)?)
    }

    pub fn optional_ints(&mut self, index: usize) -> Result<Option<Vec<i64>>> {
        self.optional(index)?.as_ref().map(ints).transpose()
    }
}

fn ints(value: &Value) -> Result<Vec<i64>> {
    if !matches!(value, Value::Int(_)) {
        return Err(OpError::DType {
            expected: "integers".into(),
            found: value.dtype(),
        });
    }
    value.to_ints()
}

/// Runs one operator that is not control flow.
pub(crate) fn run(op: &Op, mut args: Args, device: &DispatchDevice) -> Result<Vec<Item>> {
    match op {
        Op::Identity => Ok(vec![args.item(0)?]),
        Op::Sequence(kind) => Ok(vec![sequence::run(*kind, &mut args)?]),
        _ => {
            let made = compute(op, &mut args, device)?;
            Ok(made.into_iter().map(Item::from).collect())
        }
    }
}

/// Runs an operator on tensors.
fn compute(op: &Op, args: &mut Args, device: &DispatchDevice) -> Result<Vec<Value>> {
    let one = match op {
        Op::Unary(kind) => elementwise::unary(*kind, args.take(0)?)?,
        Op::Binary(kind) => elementwise::binary(*kind, args.take(0)?, args.take(1)?)?,
        Op::BinaryAt { kind, axis } => {
            elementwise::binary_at(*kind, args.take(0)?, args.take(1)?, *axis)?
        }
        Op::Variadic(kind) => elementwise::variadic(*kind, args.all()?)?,
        Op::Compare(kind) => elementwise::compare(*kind, args.take(0)?, args.take(1)?)?,
        Op::Logic(kind) => elementwise::logic(*kind, args.take(0)?, args.take(1)?)?,
        Op::Where => elementwise::choose(args.take(0)?, args.take(1)?, args.take(2)?)?,
        Op::Clip => elementwise::clip(args.take(0)?, args.optional(1)?, args.optional(2)?)?,
        Op::Cast { to, rounding } => args.take(0)?.cast_by(*to, *rounding)?,
        Op::CastLike(rounding) => {
            let to = args.take(1)?.dtype();
            args.take(0)?.cast_by(to, *rounding)?
        }
        Op::BitCast(to) => args.take(0)?.bit_cast(*to)?,

        Op::MatMul => matmul::matmul(args.take(0)?, args.take(1)?)?,
        Op::Linear { activation } => {
            let (x, weights, bias) = (args.take(0)?, args.take(1)?, args.optional(2)?);
            matmul::linear(x, weights, bias, *activation)?
        }
        Op::Packed {
            weights,
            activation,
            matrix,
        } => {
            let (x, bias) = (args.take(0)?, args.optional(1)?);
            matmul::packed(x, matmul::Laid::F32(weights), bias, *activation, *matrix)?
        }
        Op::PackedInt8 {
            weights,
            activation,
            matrix,
        } => {
            let (x, bias) = (args.take(0)?, args.optional(1)?);
            matmul::packed(x, matmul::Laid::Int8(weights), bias, *activation, *matrix)?
        }
        Op::Gemm {
            alpha,
            beta,
            transpose_a,
            transpose_b,
        } => {
            let (a, b, c) = (args.take(0)?, args.take(1)?, args.optional(2)?);
            matmul::gemm(a, b, c, *alpha, *beta, *transpose_a, *transpose_b)?
        }
        Op::Conv(conv) => conv::conv(conv, args.take(0)?, args.take(1)?, args.optional(2)?)?,
        Op::Filter {
            conv,
            filters,
            shape,
        } => conv::filter(conv, args.take(0)?, filters, shape, args.optional(1)?)?,
        Op::ConvTranspose {
            conv,
            output_padding,
            output_shape,
        } => {
            let (x, weights, bias) = (args.take(0)?, args.take(1)?, args.optional(2)?);
            conv::conv_transpose(conv, output_padding, output_shape, x, weights, bias)?
        }

        Op::Contrib(kind) => return contrib::run(kind, args),
        Op::Quantized(kind) => return quantize::run(kind, args),

        Op::DeformConv {
            conv,
            offset_groups,
        } => {
            let inputs = [args.take(0)?, args.take(1)?, args.take(2)?];
            let (bias, mask) = (args.optional(3)?, args.optional(4)?);
            deform::deform_conv(conv, *offset_groups, inputs, bias, mask)?
        }
        Op::Einsum(equation) => einsum::run(equation, args.all()?)?,

        Op::MaxPool {
            window,
            indices,
            column_major,
        } => return pool::max(window, *indices, *column_major, args.take(0)?),
        Op::MaxUnpool(window) => {
            let (places, shape) = (args.take(1)?, args.optional_ints(2)?);
            unpool::unpool(window, args.take(0)?, &places, shape)?
        }
        Op::LpPool { window, p } => pool::lp(window, *p, args.take(0)?)?,
        Op::GlobalLpPool { p } => pool::global_lp(*p, args.take(0)?)?,
        Op::Col2Im {
            strides,
            dilations,
            pads,
        } => {
            let (image, block) = (args.ints(1)?, args.ints(2)?);
            unpool::col2im(args.take(0)?, &image, &block, strides, dilations, pads)?
        }
        Op::AveragePool {
            window,
            count_padding,
        } => pool::average(window, *count_padding, args.take(0)?)?,
        Op::GlobalMaxPool => pool::global(Reduce::Max, args.take(0)?)?,
        Op::GlobalAveragePool => pool::global(Reduce::Mean, args.take(0)?)?,

        Op::BatchNorm { epsilon } => norm::batch(args, *epsilon)?,
        Op::InstanceNorm { epsilon } => norm::instance(args, *epsilon)?,
        Op::BatchNormTraining { epsilon, momentum } => {
            return norm::batch_training(args, *epsilon, *momentum);
        }
        Op::GroupNorm { groups, epsilon } => norm::group(args, *groups, *epsilon)?,
        Op::LayerNorm {
            axis,
            epsilon,
            statistics,
        } => return norm::layer(args, *axis, *epsilon, *statistics),
        Op::RmsNorm { axis, epsilon } => norm::rms(args.take(0)?, args.take(1)?, *axis, *epsilon)?,
        Op::MeanVarianceNorm(axes) => norm::mean_variance(args.take(0)?, axes)?,
        Op::LpNorm { axis, p } => norm::lp(args.take(0)?, *axis, *p)?,
        Op::LocalResponseNorm {
            size,
            alpha,
            beta,
            bias,
        } => lrn::local_response(args.take(0)?, *size, *alpha, *beta, *bias)?,
        Op::Softmax { axis, flat, log } => norm::softmax(args.take(0)?, *axis, *flat, *log)?,

        Op::Attention(of) => return attention::run(of, args),
        Op::Rotary(of) => language::rotary(of, args)?,
        Op::LinearAttention(of) => return language::linear(of, args),
        Op::CausalConv { silu } => return language::causal_conv(*silu, args),
        Op::SwiGlu { alpha } => language::gated(*alpha, args.take(0)?, args.take(1)?)?,
        Op::Loss(of) => return loss::run(of, args),

        Op::Text(of) => return text::run(of, args),
        Op::Ml(of) => return ml::run(of, args),
        Op::TfIdf(of) => text::tf_idf(of, args.take(0)?)?,

        Op::Reduce {
            kind,
            keep_dims,
            noop_with_empty_axes,
        } => {
            let axes = args.optional_ints(1)?.unwrap_or_default();
            let x = args.take(0)?;
            if axes.is_empty() && *noop_with_empty_axes {
                x
            } else {
                reduce::reduce(*kind, x, &axes, *keep_dims)?
            }
        }
        Op::ArgExtreme {
            largest,
            axis,
            keep_dims,
            last,
        } => reduce::arg_extreme(args.take(0)?, *largest, *axis, *keep_dims, *last)?,
        Op::CumSum { exclusive, reverse } => {
            let axis = args.ints(1)?;
            reduce::cumulative(Reduce::Sum, args.take(0)?, &axis, *exclusive, *reverse)?
        }
        Op::CumProd { exclusive, reverse } => {
            let axis = args.ints(1)?;
            reduce::cumulative(Reduce::Prod, args.take(0)?, &axis, *exclusive, *reverse)?
        }
        Op::Hardmax { axis, flat } => reduce::hardmax(args.take(0)?, *axis, *flat)?,
        Op::Det => reduce::determinant(args.take(0)?)?,
        Op::TopK { axis, largest } => {
            let k = args.ints(1)?;
            return reduce::top_k(args.take(0)?, &k, *axis, *largest);
        }

        Op::Dropout { seed } => {
            let one = |value: Value| Ok(value.to_floats()?.first().copied());
            let ratio = args.optional(1)?.and_then(|value| one(value).transpose());
            let training = args.optional(2)?.and_then(|value| one(value).transpose());
            let training = training.transpose()?.unwrap_or(0.0) != 0.0;
            let ratio = ratio.transpose()?.unwrap_or(0.5);
            return draw::dropout(args.take(0)?, ratio, training, *seed);
        }
        Op::Shape { start, end } => shape::shape(&args.take(0)?, *start, *end),
        Op::Size => shape::size(&args.take(0)?),
        Op::Reshape { allow_zero } => {
            let shape = args.ints(1)?;
            shape::reshape(args.take(0)?, &shape, *allow_zero)?
        }
        Op::Flatten { axis } => shape::flatten(args.take(0)?, *axis)?,
        Op::Squeeze => {
            let axes = args.optional_ints(1)?;
            shape::squeeze(args.take(0)?, axes.as_deref())?
        }
        Op::Unsqueeze => {
            let axes = args.ints(1)?;
            shape::unsqueeze(args.take(0)?, &axes)?
        }
        Op::Transpose(axes) => shape::transpose(args.take(0)?, axes.as_deref())?,
        Op::Concat { axis } => shape::concat(args.all()?, *axis)?,
        Op::Split { axis, parts } => {
            let sizes = args.optional_ints(1)?;
            return shape::split(args.take(0)?, *axis, *parts, sizes);
        }
        Op::Slice => {
            let (starts, ends) = (args.ints(1)?, args.ints(2)?);
            let (axes, steps) = (args.optional_ints(3)?, args.optional_ints(4)?);
            shape::slice(args.take(0)?, &starts, &ends, axes, steps)?
        }
        Op::Expand => {
            let shape = args.ints(1)?;
            shape::expand(args.take(0)?, &shape)?
        }
        Op::Tile => {
            let repeats = args.ints(1)?;
            shape::tile(args.take(0)?, &repeats)?
        }
        Op::Pad(mode) => {
            let (pads, axes) = (args.ints(1)?, args.optional_ints(3)?);
            let value = args.optional(2)?;
            shape::pad(args.take(0)?, *mode, &pads, axes, value)?
        }
        Op::DepthToSpace {
            block,
            columns_first,
        } => shape::depth_to_space(args.take(0)?, *block, *columns_first)?,
        Op::SpaceToDepth {
            block,
            columns_first,
        } => shape::space_to_depth(args.take(0)?, *block, *columns_first)?,
        Op::Trilu { upper } => {
            let diagonal = args
                .optional_ints(1)?
                .and_then(|k| k.first().copied())
                .unwrap_or(0);
            shape::trilu(args.take(0)?, *upper, diagonal)?
        }
        Op::ConstantOfShape { dtype, value } => {
            shape::constant_of_shape(&args.ints(0)?, *dtype, *value, device)?
        }
        Op::Range => shape::arange(&args.take(0)?, &args.take(1)?, &args.take(2)?, device)?,

        Op::Gather { axis } => index::gather(args.take(0)?, &args.take(1)?, *axis)?,
        Op::GatherElements { axis } => {
            index::gather_elements(args.take(0)?, &args.take(1)?, *axis)?
        }
        Op::GatherNd { batch_dims } => {
            index::gather_nd(args.take(0)?, &args.take(1)?, *batch_dims)?
        }
        Op::ScatterElements { axis, update } => {
            let (x, indices, updates) = (args.take(0)?, args.take(1)?, args.take(2)?);
            index::scatter_elements(x, &indices, &updates, *axis, *update)?
        }
        Op::ScatterNd { update } => {
            let (x, indices, updates) = (args.take(0)?, args.take(1)?, args.take(2)?);
            index::scatter_nd(x, &indices, &updates, *update)?
        }
        Op::Compress { axis } => select::compress(args.take(0)?, args.take(1)?, *axis)?,
        Op::Unique { axis, sorted } => return select::unique(args.take(0)?, *axis, *sorted),
        Op::ReverseSequence {
            batch_axis,
            time_axis,
        } => {
            let lengths = args.ints(1)?;
            select::reverse_sequence(args.take(0)?, &lengths, *batch_axis, *time_axis)?
        }
        Op::TensorScatter { axis, circular } => {
            let places = args.optional_ints(2)?;
            select::tensor_scatter(args.take(0)?, args.take(1)?, places, *axis, *circular)?
        }
        Op::EyeLike { dtype, diagonal } => select::eye_like(&args.take(0)?, *dtype, *diagonal)?,
        Op::Draw(draw) => draw::run(draw, args, device)?,
        Op::Image(kind) => image::run(kind, args)?,
        Op::Signal(kind) => signal::run(*kind, args, device)?,
        Op::NonZero => index::non_zero(&args.take(0)?)?,
        Op::OneHot { axis } => {
            let (indices, depth, values) = (args.take(0)?, args.take(1)?, args.take(2)?);
            index::one_hot(indices, &depth, values, *axis)?
        }

        Op::Recurrent(layer) => return rnn::run(layer, args),
        Op::Lstm {
            weights,
            batch_major,
        } => return rnn::lstm(weights, *batch_major, args),
        Op::Identity
        | Op::Sequence(_)
        | Op::If { .. }
        | Op::Loop { .. }
        | Op::Scan { .. }
        | Op::SequenceMap { .. } => {
            return Err(OpError::Value(
                "it is not run as an operator on tensors".into(),
            ));
        }
    };
    Ok(vec![one])
}

/// The tensors of which one is made by joining along a new axis.
pub(crate) fn rows(x: Value, along: i64) -> Result<Vec<Value>> {
    let at = axis(along, x.rank())?;
    let size = x.shape().get(at).copied().unwrap_or(0);
    let row = |i| shape::squeeze(x.clone().narrow(at, i, i + 1), Some(&[at as i64]));
    (0..size).map(row).collect()
}

/// An axis counted from the front.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 {
        axis.checked_add_unsigned(rank as u64)
    } else {
        Some(axis)
    };
    from_front
        .and_then(|at| usize::try_from(at).ok())
        .filter(|&at| at < rank)
        .ok_or(OpError::Axis { axis, rank })
}

/// Several axes counted from the front, each at most once, in order.
pub(crate) fn axes(given: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut found = given
        .iter()
        .map(|&at| axis(at, rank))
        .collect::<Result<Vec<_>>>()?;
    found.sort_unstable();
    if found.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(OpError::Value(format!("an axis is given twice: {given:?}")));
    }
    Ok(found)
}

/// The shape that two shapes are repeated to, as NumPy does.
pub(crate) fn broadcast(left: &[usize], right: &[usize]) -> Result<Vec<usize>> {
    let rank = left.len().max(right.len());
    let size = |shape: &[usize], at: usize| match (at + shape.len()).checked_sub(rank) {
        Some(at) => shape.get(at).copied().unwrap_or(1),
        None => 1,
    };
    (0..rank)
        .map(|at| match (size(left, at), size(right, at)) {
            (a, b) if a == b => Ok(a),
            (1, b) => Ok(b),
            (a, 1) => Ok(a),
            _ => Err(OpError::Shape(format!(
                "shapes {left:?} and {right:?} do not broadcast"
            ))),
        })
        .collect()
}

/// The value with ones in front of its shape until it has this rank.
pub(crate) fn with_rank(value: Value, rank: usize) -> Value {
    let shape = value.shape();
    if shape.len() >= rank {
        return value;
    }
    let mut wide = vec![1; rank - shape.len()];
    wide.extend(shape);
    value.reshape(&wide)
}

/// The value repeated to a shape that it broadcasts to.
pub(crate) fn broadcast_to(value: Value, shape: &[usize]) -> Value {
    if value.shape() == shape {
        return value;
    }
    with_rank(value, shape.len()).expand(shape)
}

/// The type that sums and functions of half-precision floats are computed in.
pub(crate) fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        dtype => dtype,
    }
}

pub(crate) fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}
