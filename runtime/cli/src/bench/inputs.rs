//! Tensors for a model to be timed on.

use std::str::FromStr;

use firebox_engine::{DType, Dim, Signature, Tensor, TensorSpec};

use crate::failure::{Context, Failure, Result};

/// The size of a dimension that neither the model nor the caller fixes.
const OPEN: usize = 32;

/// What the caller says of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    name: String,
    shape: Option<Vec<usize>>,
    value: Option<f64>,
}

impl FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not NAME=SHAPE[:VALUE]; a shape is sizes with x between them: 2x3x4"
            )
        };
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (shape, value) = match rest.split_once(':') {
            Some((shape, value)) => (shape, Some(value.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let sizes = shape
            .split('x')
            .map(|size| size.parse().map_err(|_| wrong()));
        let shape = match shape {
            "" => None,
            _ => Some(sizes.collect::<std::result::Result<_, _>>()?),
        };
        Ok(Self {
            name: name.to_owned(),
            shape,
            value,
        })
    }
}

/// Tensors for all inputs of a model.
pub fn inputs(
    signature: &Signature,
    batch: usize,
    given: &[Input],
) -> Result<Vec<(String, Tensor)>> {
    if let Some(unknown) = given
        .iter()
        .find(|input| !signature.inputs.iter().any(|spec| spec.name == input.name))
    {
        let known: Vec<_> = signature
            .inputs
            .iter()
            .map(|spec| spec.name.as_str())
            .collect();
        let what = format!("the model has no input `{}`", unknown.name);
        return Err(Failure::usage(what).hint(format!("its inputs are {}", known.join(", "))));
    }
    let specs = signature.inputs.iter();
    let made = specs.map(|spec| {
        let input = given.iter().find(|input| input.name == spec.name);
        Ok((spec.name.clone(), tensor(spec, batch, input)?))
    });
    made.collect()
}

fn tensor(spec: &TensorSpec, batch: usize, input: Option<&Input>) -> Result<Tensor> {
    let size = |(at, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => *size,
        Dim::Named(_) | Dim::Any if at == 0 => batch,
        Dim::Named(_) | Dim::Any => OPEN,
    };
    let declared = spec.shape.iter().flatten().enumerate().map(size);
    let shape = input.and_then(|input| input.shape.clone());
    let shape = shape.unwrap_or_else(|| declared.collect());
    let count = shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size));
    let count = count.filter(|&count| count <= 1 << 28).ok_or_else(|| {
        Failure::usage(format!(
            "input `{}` of shape {shape:?} is too large",
            spec.name
        ))
    })?;
    let value = input.and_then(|input| input.value);
    let whole = value.unwrap_or(1.0);
    let mut state = 1u64;
    let mut float = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let made = match spec.dtype {
        DType::F32 => {
            let values: Vec<f32> = (0..count)
                .map(|_| value.map_or_else(&mut float, |v| v as f32))
                .collect();
            Tensor::from_f32(shape, &values)
        }
        DType::F64 => {
            let values: Vec<f64> = (0..count)
                .map(|_| value.unwrap_or_else(|| float().into()))
                .collect();
            Tensor::from_f64(shape, &values)
        }
        DType::I64 => Tensor::from_i64(shape, &vec![whole as i64; count]),
        DType::I32 => Tensor::from_i32(shape, &vec![whole as i32; count]),
        dtype @ (DType::U8 | DType::I8 | DType::Bool) => {
            Tensor::new(dtype, shape, vec![whole as u8; count])
        }
        other => {
            let what = format!(
                "input `{}` is of {other}, which bench does not make",
                spec.name
            );
            return Err(Failure::new(what));
        }
    };
    made.context(|| format!("input `{}`", spec.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_shape_and_a_value() {
        let read = |text: &str| text.parse::<Input>();
        let made = read("ids=2x128:7").unwrap();
        assert_eq!((made.shape, made.value), (Some(vec![2, 128]), Some(7.0)));
        let made = read("rate=:16000").unwrap();
        assert_eq!((made.shape, made.value), (None, Some(16000.0)));
        assert!(read("ids").is_err() && read("ids=2y3").is_err() && read("ids=2:x").is_err());
    }

    #[test]
    fn open_sizes_are_filled_in_and_unknown_inputs_refused() {
        let spec = |name: &str, dtype, shape| TensorSpec {
            name: name.into(),
            dtype,
            shape: Some(shape),
        };
        let signature = Signature {
            inputs: vec![
                spec("x", DType::F32, vec![Dim::Any, Dim::Fixed(3), Dim::Any]),
                spec("n", DType::I64, vec![]),
            ],
            outputs: vec![],
        };
        let made = inputs(&signature, 4, &["n=:9".parse().unwrap()]).unwrap();
        assert_eq!(made[0].1.shape(), [4, 3, OPEN]);
        assert_eq!(made[1].1.to_i64().unwrap(), [9]);
        let error = inputs(&signature, 1, &["y=1".parse().unwrap()]).unwrap_err();
        assert_eq!(error.hint.unwrap(), "its inputs are x, n");
    }
}
