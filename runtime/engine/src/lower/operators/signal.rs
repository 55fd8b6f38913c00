//! Signals, and drawn numbers.

use super::{Context, ParseError, dtype};
use crate::graph::*;
use crate::lower::attributes::Attributes;
use crate::tensor::DType;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    if let Some(draw) = draw(operator, a, context)? {
        return Ok(Some(Op::Draw(draw)));
    }
    let taper = match operator {
        "HannWindow" => Taper::Hann,
        "HammingWindow" => Taper::Hamming,
        "BlackmanWindow" => Taper::Blackman,
        "DFT" => {
            if context.opset < 20 {
                let axis = a.int_or("axis", 1)?;
                context.ints_as_input(2, Some(vec![axis]))?;
            }
            return Ok(Some(Op::Signal(Signal::Dft {
                inverse: a.flag("inverse", false)?,
                one_sided: a.flag("onesided", false)?,
            })));
        }
        "STFT" => {
            return Ok(Some(Op::Signal(Signal::Stft {
                one_sided: a.flag("onesided", true)?,
            })));
        }
        "MelWeightMatrix" => {
            let dtype = dtype(a, "output_datatype", context)?.unwrap_or(DType::F32);
            return Ok(Some(Op::Signal(Signal::MelWeights { dtype })));
        }
        _ => return Ok(None),
    };
    Ok(Some(Op::Signal(Signal::Window {
        kind: taper,
        periodic: a.flag("periodic", true)?,
        dtype: dtype(a, "output_datatype", context)?.unwrap_or(DType::F32),
    })))
}

fn draw(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Draw>, ParseError> {
    let like = operator.ends_with("Like");
    let shape = |a: &mut Attributes| match (like, a.has("shape")) {
        (true, _) => Ok(None),
        (false, true) => a.sizes("shape").map(Some),
        (false, false) => Err("attribute `shape` is missing".to_owned()),
    };
    // What has no input has a type of its own.
    let (kind, default) = match operator {
        "RandomNormal" | "RandomNormalLike" => (
            DrawKind::Normal {
                mean: a.float_or("mean", 0.0)?,
                scale: a.float_or("scale", 1.0)?,
                shape: shape(a)?,
            },
            (!like).then_some(DType::F32),
        ),
        "RandomUniform" | "RandomUniformLike" => (
            DrawKind::Uniform {
                low: a.float_or("low", 0.0)?,
                high: a.float_or("high", 1.0)?,
                shape: shape(a)?,
            },
            (!like).then_some(DType::F32),
        ),
        "Bernoulli" => (DrawKind::Bernoulli, None),
        "Multinomial" => (
            DrawKind::Multinomial {
                samples: usize::try_from(a.int_or("sample_size", 1)?)
                    .map_err(|_| "attribute `sample_size` is below 0")?,
            },
            Some(DType::I32),
        ),
        _ => return Ok(None),
    };
    Ok(Some(Draw {
        kind,
        dtype: dtype(a, "dtype", context)?.or(default),
        seed: a.float("seed")?,
    }))
}
