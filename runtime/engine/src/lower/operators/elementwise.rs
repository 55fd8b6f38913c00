//! Element by element.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;
use crate::narrow::{Power, Rounding};
use crate::onnx;
use crate::tensor::DType;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    if let Some(kind) = unary(operator, a)? {
        return Ok(Some(Op::Unary(kind)));
    }
    if context.opset < 7
        && let Some(op) = aligned(operator, a)?
    {
        return Ok(Some(op));
    }
    Ok(Some(match operator {
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
        "CastLike" => Op::CastLike(rounding(a)?),
        "Cast" => Op::Cast {
            to: cast_type(a, context.node)?,
            rounding: rounding(a)?,
        },
        "BitCast" => Op::BitCast(cast_type(a, context.node)?),
        "Clip" => {
            let (min, max) = (a.float("min")?, a.float("max")?);
            context.float_as_input(1, min)?;
            context.float_as_input(2, max)?;
            Op::Clip
        }
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

/// Operators whose right side could begin at an axis of the left one, where it does.
fn aligned(operator: &str, a: &mut Attributes) -> Result<Option<Op>, ParseError> {
    let kind = match operator {
        "PRelu" => {
            let kind = Binary::PRelu;
            return Ok(Some(Op::BinaryAt { kind, axis: 1 }));
        }
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        _ => return Ok(None),
    };
    if !a.flag("broadcast", false)? {
        return Ok(None);
    }
    Ok(a.int("axis")?.map(|axis| Op::BinaryAt { kind, axis }))
}

fn cast_type(a: &mut Attributes, node: &str) -> Result<DType, ParseError> {
    let to = a.int("to")?.ok_or("attribute `to` is missing")?;
    Ok(onnx::dtype(i32::try_from(to).unwrap_or(0), node)?)
}

pub(super) fn rounding(a: &mut Attributes) -> Result<Rounding, ParseError> {
    Ok(Rounding {
        saturate: a.flag("saturate", true)?,
        power: match a.text("round_mode")?.as_deref() {
            None | Some("up") => Power::Up,
            Some("down") => Power::Down,
            Some("nearest") => Power::Nearest,
            Some(other) => return Err(format!("unknown round_mode `{other}`").into()),
        },
    })
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
        "Shrink" => Unary::Shrink {
            bias: a.float_or("bias", 0.0)?,
            lambda: a.float_or("lambd", 0.5)?,
        },
        "Softplus" => Unary::Softplus,
        "Softsign" => Unary::Softsign,
        "Sqrt" => Unary::Sqrt,
        "Swish" => match a.float_or("alpha", 1.0)? {
            1.0 => Unary::Silu,
            alpha => Unary::Swish { alpha },
        },
        "Tan" => Unary::Tan,
        "Tanh" => Unary::Tanh,
        "ThresholdedRelu" => Unary::ThresholdedRelu {
            alpha: a.float_or("alpha", 1.0)?,
        },
        _ => return Ok(None),
    }))
}
