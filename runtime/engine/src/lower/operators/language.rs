//! Operators of language models, and losses.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;
use crate::onnx;
use crate::value::is_float;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(match operator {
        "Attention" => Op::Attention(attention(a, context)?),
        "RotaryEmbedding" => Op::Rotary(Rotary {
            interleaved: a.flag("interleaved", false)?,
            size: positive(a, "rotary_embedding_dim")?,
            heads: positive(a, "num_heads")?,
        }),
        "LinearAttention" => Op::LinearAttention(linear(a)?),
        "CausalConvWithState" => Op::CausalConv {
            silu: match a.text("activation")?.as_deref() {
                None | Some("none") => false,
                Some("silu" | "swish") => true,
                Some(other) => return Err(format!("unknown activation `{other}`").into()),
            },
        },
        "SwiGLU" => Op::SwiGlu {
            alpha: a.float_or("alpha", 1.0)?,
        },
        "NegativeLogLikelihoodLoss" | "SoftmaxCrossEntropyLoss" => Op::Loss(Loss {
            softmax: operator == "SoftmaxCrossEntropyLoss",
            reduction: match a.text("reduction")?.as_deref() {
                Some("none") => Reduction::None,
                Some("sum") => Reduction::Sum,
                None | Some("mean") => Reduction::Mean,
                Some(other) => return Err(format!("unknown reduction `{other}`").into()),
            },
            ignored: a.int("ignore_index")?,
        }),
        _ => return Ok(None),
    }))
}

/// A size whose absence or zero leaves it to the tensors.
fn positive(a: &mut Attributes, name: &str) -> Result<Option<usize>, ParseError> {
    let found = a.int_or(name, 0)?;
    let size = usize::try_from(found);
    let size = size.map_err(|_| format!("attribute `{name}` is {found}, expected ≥ 0"))?;
    Ok(Some(size).filter(|&size| size > 0))
}

/// One side of a window; -1 leaves it open.
fn side(a: &mut Attributes, name: &str) -> Result<Option<usize>, ParseError> {
    match a.int_or(name, -1)? {
        -1 => Ok(None),
        size => match usize::try_from(size) {
            Ok(size) => Ok(Some(size)),
            Err(_) => Err(format!("attribute `{name}` is {size}, expected ≥ -1").into()),
        },
    }
}

fn attention(a: &mut Attributes, context: &Context) -> Result<Attention, ParseError> {
    let precision = match a.int_or("softmax_precision", 0)? {
        0 => None,
        number => {
            let dtype = onnx::dtype(i32::try_from(number).unwrap_or(0), context.node)?;
            if !is_float(dtype) {
                return Err(format!("softmax in {dtype}, expected a float type").into());
            }
            Some(dtype)
        }
    };
    let scores = match a.int_or("qk_matmul_output_mode", 0)? {
        0 => Scores::Product,
        1 => Scores::Capped,
        2 => Scores::Biased,
        3 => Scores::Softmax,
        other => return Err(format!("qk_matmul_output_mode is {other}, expected 0 to 3").into()),
    };
    let soft_cap = a.float_or("softcap", 0.0)?;
    if soft_cap.is_nan() || soft_cap < 0.0 {
        return Err(format!("softcap is {soft_cap}, expected ≥ 0").into());
    }
    Ok(Attention {
        heads: positive(a, "q_num_heads")?,
        kv_heads: positive(a, "kv_num_heads")?,
        scale: a.float("scale")?,
        causal: a.flag("is_causal", false)?,
        before: side(a, "left_window_size")?,
        after: side(a, "right_window_size")?,
        soft_cap: Some(soft_cap).filter(|&cap| cap > 0.0),
        precision,
        scores: (context.outputs > 3).then_some(scores),
    })
}

fn linear(a: &mut Attributes) -> Result<LinearAttention, ParseError> {
    let rule = a.text("update_rule")?;
    let (gated, delta) = match rule.as_deref() {
        Some("linear") => (false, false),
        Some("gated") => (true, false),
        Some("delta") => (false, true),
        None | Some("gated_delta") => (true, true),
        Some(other) => return Err(format!("unknown update rule `{other}`").into()),
    };
    let missing = |name: &str| format!("attribute `{name}` is missing");
    let heads = positive(a, "q_num_heads")?.ok_or_else(|| missing("q_num_heads"))?;
    let kv_heads = positive(a, "kv_num_heads")?.ok_or_else(|| missing("kv_num_heads"))?;
    if heads % kv_heads != 0 {
        return Err(format!("{heads} query heads for {kv_heads} heads").into());
    }
    Ok(LinearAttention {
        heads,
        kv_heads,
        scale: Some(a.float_or("scale", 0.0)?).filter(|&scale| scale != 0.0),
        gated,
        delta,
    })
}
