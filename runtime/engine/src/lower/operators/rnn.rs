//! Recurrent layers.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    _: &mut Context,
) -> Result<Option<Op>, ParseError> {
    layer(operator, a).map(|layer| layer.map(Op::Recurrent))
}

pub(super) fn layer(operator: &str, a: &mut Attributes) -> Result<Option<Recurrent>, ParseError> {
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
    Ok(Some(Recurrent {
        cell,
        direction,
        hidden: hidden.ok_or("attribute `hidden_size` is missing or below 1")?,
        activations,
        clip: a.float("clip")?,
        batch_major: a.flag("layout", false)?,
    }))
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
