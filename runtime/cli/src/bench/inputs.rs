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
    fill: Option<Fill>,
}

/// What fills a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    /// One number everywhere.
    Same(f64),
    /// Numbers from the first one up to, and without, the other.
    Between(f64, f64),
}

impl FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not NAME=SHAPE[:VALUE]; a shape is sizes with x between them, 2x3x4, \
                 and a value is a number or a range, 0..256"
            )
        };
        let number = |text: &str| text.parse::<f64>().map_err(|_| wrong());
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (shape, fill) = match rest.split_once(':') {
            Some((shape, fill)) => (shape, Some(fill)),
            None => (rest, None),
        };
        let fill = match fill {
            None => None,
            Some(fill) => Some(match fill.split_once("..") {
                Some((low, high)) => Fill::Between(number(low)?, number(high)?),
                None => Fill::Same(number(fill)?),
            }),
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
            fill,
        })
    }
}

/// Tensors for all inputs of a model; each `seed` gives others.
pub fn inputs(
    signature: &Signature,
    batch: usize,
    given: &[Input],
    seed: u64,
) -> Result<Vec<(String, Tensor)>> {
    let known = |input: &&Input| {
        let mut specs = signature.inputs.iter();
        !specs.any(|spec| spec.name == input.name)
    };
    if let Some(unknown) = given.iter().find(known) {
        let known = signature.inputs.iter().map(|spec| spec.name.as_str());
        let known: Vec<_> = known.collect();
        let what = format!("the model has no input `{}`", unknown.name);
        return Err(Failure::usage(what).hint(format!("its inputs are {}", known.join(", "))));
    }
    let mut series = Series(seed.wrapping_mul(2).wrapping_add(1));
    let specs = signature.inputs.iter();
    let made = specs.map(|spec| {
        let input = given.iter().find(|input| input.name == spec.name);
        Ok((spec.name.clone(), tensor(spec, batch, input, &mut series)?))
    });
    made.collect()
}

/// Numbers that look random and are the same each time.
struct Series(u64);

impl Series {
    /// From 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }
}

fn tensor(
    spec: &TensorSpec,
    batch: usize,
    input: Option<&Input>,
    series: &mut Series,
) -> Result<Tensor> {
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
        let name = &spec.name;
        Failure::usage(format!("input `{name}` of shape {shape:?} is too large"))
    })?;
    let floats = matches!(spec.dtype, DType::F32 | DType::F64);
    let fill = input.and_then(|input| input.fill).unwrap_or(if floats {
        Fill::Between(-0.5, 0.5)
    } else {
        Fill::Same(1.0)
    });
    let mut next = || match fill {
        Fill::Same(value) => value,
        Fill::Between(low, high) => low + series.next() * (high - low),
    };
    let values: Vec<f64> = (0..count).map(|_| next()).collect();
    let values = values.into_iter();
    let made = match spec.dtype {
        DType::F32 => Tensor::from_f32(shape, &values.map(|x| x as f32).collect::<Vec<_>>()),
        DType::F64 => Tensor::from_f64(shape, &values.collect::<Vec<_>>()),
        DType::I64 => Tensor::from_i64(shape, &values.map(|x| x as i64).collect::<Vec<_>>()),
        DType::I32 => Tensor::from_i32(shape, &values.map(|x| x as i32).collect::<Vec<_>>()),
        DType::I8 => {
            let bytes = values.map(|x| (x as i8).cast_unsigned());
            Tensor::new(DType::I8, shape, bytes.collect::<Vec<_>>())
        }
        dtype @ (DType::U8 | DType::Bool) => {
            Tensor::new(dtype, shape, values.map(|x| x as u8).collect::<Vec<_>>())
        }
        other => {
            let name = &spec.name;
            let what = format!("input `{name}` is of {other}, which bench does not make");
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
        let expected = (Some(vec![2, 128]), Some(Fill::Same(7.0)));
        assert_eq!((made.shape, made.fill), expected);
        let made = read("rate=:16000").unwrap();
        assert_eq!((made.shape, made.fill), (None, Some(Fill::Same(16000.0))));
        let made = read("bytes=:0..256").unwrap();
        assert_eq!(made.fill, Some(Fill::Between(0.0, 256.0)));
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
        let made = inputs(&signature, 4, &["n=:9".parse().unwrap()], 0).unwrap();
        assert_eq!(made[0].1.shape(), [4, 3, OPEN]);
        assert_eq!(made[1].1.to_i64().unwrap(), [9]);
        let error = inputs(&signature, 1, &["y=1".parse().unwrap()], 0).unwrap_err();
        assert_eq!(error.hint.unwrap(), "its inputs are x, n");
    }
}
