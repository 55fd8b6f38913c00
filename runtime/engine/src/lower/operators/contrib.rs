//! The domain `com.microsoft`: what exporters and onnxruntime's optimiser put into models.
//!
//! Source: onnxruntime's page of contrib operators.

use super::{Context, ParseError};
use super::{norm, quantize, rnn, window};
use crate::graph::*;
use crate::kernels::Activation;
use crate::lower::attributes::Attributes;

pub(super) const DOMAIN: &str = "com.microsoft";

pub(super) fn output_count(op: &Contrib) -> usize {
    match op {
        Contrib::SkipLayerNorm { .. } => 4,
        Contrib::EmbedLayerNorm { .. }
        | Contrib::DynamicQuantizeLstm(_)
        | Contrib::MultiHeadAttention(_) => 3,
        Contrib::Attention(_) | Contrib::QAttention(_) => 2,
        _ => 1,
    }
}

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    match operator {
        "Gelu" => return Ok(Some(Op::Unary(Unary::Gelu { tanh: false }))),
        "LayerNormalization" | "SimplifiedLayerNormalization" => {
            return norm::parse(operator, a, context);
        }
        "QuantizeLinear" | "DequantizeLinear" => return quantize::parse(operator, a, context),
        _ => {}
    }
    if let Some(kind) = fused(operator, a)? {
        return Ok(Some(Op::Contrib(kind)));
    }
    if let Some(kind) = q_linear(operator, a)? {
        return Ok(Some(Op::Contrib(Contrib::QLinear(kind))));
    }
    Ok(Some(Op::Contrib(match operator {
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => {
            if context.wanted.iter().skip(1).take(2).any(|&wanted| wanted) {
                return Err("its mean and deviation are not supported as outputs".into());
            }
            Contrib::SkipLayerNorm {
                epsilon: a.float_or("epsilon", 1e-12)?,
                simplified: operator == "SkipSimplifiedLayerNormalization",
            }
        }
        "EmbedLayerNormalization" => Contrib::EmbedLayerNorm {
            epsilon: a.float_or("epsilon", 1e-12)?,
        },
        "GroupNorm" => Contrib::GroupNorm {
            groups: positive(a, "groups")?,
            epsilon: a.float_or("epsilon", 1e-5)?,
            channels_last: a.flag("channels_last", true)?,
            silu: a.flag("activation", false)?,
        },
        "DynamicQuantizeMatMul" => Contrib::DynamicQuantizeMatMul,
        "MatMulIntegerToFloat" => Contrib::MatMulIntegerToFloat,
        "DynamicQuantizeLSTM" => {
            let layer = rnn::layer("LSTM", a)?;
            Contrib::DynamicQuantizeLstm(layer.ok_or("it is no recurrent layer")?)
        }
        "Attention" => Contrib::Attention(heads(a, context, 6)?),
        "QAttention" => Contrib::QAttention(heads(a, context, 9)?),
        "MultiHeadAttention" => Contrib::MultiHeadAttention(heads(a, context, 8)?),
        "RotaryEmbedding" => {
            if a.flag("is_packed_batching", false)? {
                return Err("packed batches are not supported".into());
            }
            Contrib::RotaryEmbedding {
                interleaved: a.flag("interleaved", false)?,
                heads: size(a, "num_heads")?,
                dim: size(a, "rotary_embedding_dim")?,
            }
        }
        "Inverse" => Contrib::Inverse,
        _ => return Ok(None),
    })))
}

fn fused(operator: &str, a: &mut Attributes) -> Result<Option<Contrib>, ParseError> {
    Ok(Some(match operator {
        "FusedMatMul" => Contrib::FusedMatMul {
            alpha: a.float_or("alpha", 1.0)?,
            a: Turned {
                transpose: a.flag("transA", false)?,
                rows_first: a.flag("transBatchA", false)?,
            },
            b: Turned {
                transpose: a.flag("transB", false)?,
                rows_first: a.flag("transBatchB", false)?,
            },
        },
        "FusedGemm" => Contrib::FusedGemm {
            alpha: a.float_or("alpha", 1.0)?,
            beta: a.float_or("beta", 1.0)?,
            transpose_a: a.flag("transA", false)?,
            transpose_b: a.flag("transB", false)?,
            activation: {
                let given = [a.float("activation_alpha")?, a.float("activation_beta")?];
                let given: Vec<_> = given.into_iter().map_while(|number| number).collect();
                activation(a, &given)?
            },
        },
        "FusedConv" => Contrib::FusedConv {
            conv: window::conv(a)?,
            activation: {
                let given = a.floats("activation_params")?.unwrap_or_default();
                activation(a, &given)?
            },
        },
        "FastGelu" => Contrib::BiasGelu { tanh: true },
        "BiasGelu" => Contrib::BiasGelu { tanh: false },
        "QuickGelu" => Contrib::QuickGelu {
            alpha: a.float_or("alpha", 1.702)?,
        },
        _ => return Ok(None),
    }))
}

/// The activation that attribute `activation` names, with its numbers.
fn activation(a: &mut Attributes, numbers: &[f32]) -> Result<Activation, ParseError> {
    let number = |at: usize, default: f32| numbers.get(at).copied().unwrap_or(default);
    Ok(match a.text("activation")?.as_deref() {
        None | Some("") => Activation::None,
        Some("Relu") => Activation::Relu,
        Some("Tanh") => Activation::Tanh,
        Some("Sigmoid") => Activation::Sigmoid,
        Some("LeakyRelu") => Activation::LeakyRelu {
            alpha: number(0, 0.01),
        },
        Some("HardSigmoid") => Activation::HardSigmoid {
            alpha: number(0, 0.2),
            beta: number(1, 0.5),
        },
        Some("Clip") => Activation::Clamp {
            low: number(0, f32::MIN),
            high: number(1, f32::MAX),
        },
        Some(other) => return Err(format!("unknown activation `{other}`").into()),
    })
}

fn q_linear(operator: &str, a: &mut Attributes) -> Result<Option<QLinear>, ParseError> {
    Ok(Some(match operator {
        "QLinearAdd" => QLinear::Binary(Binary::Add),
        "QLinearMul" => QLinear::Binary(Binary::Mul),
        "QLinearSigmoid" => QLinear::Unary(Unary::Sigmoid),
        "QLinearLeakyRelu" => QLinear::Unary(Unary::LeakyRelu {
            alpha: a.float_or("alpha", 0.01)?,
        }),
        "QLinearConcat" => QLinear::Concat {
            axis: a.int("axis")?.ok_or("attribute `axis` is missing")?,
        },
        "QLinearAveragePool" => QLinear::AveragePool {
            count_padding: a.flag("count_include_pad", false)?,
            channels_last: a.flag("channels_last", false)?,
            window: window::window(a)?,
        },
        "QLinearGlobalAveragePool" => QLinear::GlobalAveragePool {
            channels_last: a.flag("channels_last", false)?,
        },
        _ => return Ok(None),
    }))
}

/// Attributes of attention; inputs beyond `inputs` are caches and tables that are not
/// supported.
fn heads(a: &mut Attributes, context: &Context, inputs: usize) -> Result<Heads, ParseError> {
    if let Some(at) = context.inputs.iter().skip(inputs).position(Option::is_some) {
        return Err(format!("input {} is not supported", inputs + at).into());
    }
    for name in ["do_rotary", "past_present_share_buffer"] {
        if a.flag(name, false)? {
            return Err(format!("attribute `{name}` is not supported").into());
        }
    }
    Ok(Heads {
        count: positive(a, "num_heads")?,
        causal: a.flag("unidirectional", false)?,
        scale: a.float("scale")?.filter(|&scale| scale != 0.0),
        masked: a.float_or("mask_filter_value", -10_000.0)?,
        sizes: a.positive_sizes("qkv_hidden_sizes")?,
    })
}

fn size(a: &mut Attributes, name: &str) -> Result<usize, ParseError> {
    let found = a.int_or(name, 0)?;
    usize::try_from(found)
        .map_err(|_| format!("attribute `{name}` is {found}, expected ≥ 0").into())
}

fn positive(a: &mut Attributes, name: &str) -> Result<usize, ParseError> {
    match size(a, name)? {
        0 => Err(format!("attribute `{name}` is missing or 0").into()),
        found => Ok(found),
    }
}
