//! How far apart two engines' answers are.

use std::fmt;

use firebox_engine::{DType, Tensor, Tensors};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// The largest difference between two answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Of two numbers.
    pub absolute: f64,
    /// The same as a part of the largest number of that output.
    pub relative: f64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1e}, {:.1e} of the largest number",
            self.absolute, self.relative
        )
    }
}

impl Difference {
    /// Of answers with the same outputs.
    pub fn of(ours: &Tensors, theirs: &Tensors) -> Result<Difference> {
        let mut largest = Difference::default();
        for (name, tensor) in ours {
            let other = theirs.iter().find(|(other, _)| other == name);
            let Some((_, other)) = other else {
                return Err(Failure::new(format!("the other engine gives no `{name}`")));
            };
            if tensor.shape() != other.shape() || tensor.dtype() != other.dtype() {
                let (a, b) = (tensor.shape(), other.shape());
                return Err(Failure::new(format!(
                    "output `{name}` is {} {a:?} here and {} {b:?} there",
                    tensor.dtype(),
                    other.dtype()
                )));
            }
            let (a, b) = (numbers(name, tensor)?, numbers(name, other)?);
            let size = b.iter().fold(0.0f64, |size, x| size.max(x.abs()));
            for (a, b) in a.iter().zip(&b) {
                let off = match (a.is_nan(), b.is_nan()) {
                    (true, true) => 0.0,
                    (false, false) if a == b => 0.0,
                    (false, false) => (a - b).abs(),
                    _ => f64::INFINITY,
                };
                largest.absolute = largest.absolute.max(off);
                largest.relative = largest.relative.max(off / size.max(f64::MIN_POSITIVE));
            }
        }
        Ok(largest)
    }
}

fn numbers(name: &str, tensor: &Tensor) -> Result<Vec<f64>> {
    let wide = |values: Option<Vec<f32>>| values.map(|v| v.into_iter().map(f64::from).collect());
    let found = match tensor.dtype() {
        DType::F32 => wide(tensor.to_f32()),
        DType::F64 => tensor.to_f64(),
        DType::I32 => tensor
            .to_i32()
            .map(|v| v.into_iter().map(f64::from).collect()),
        DType::I64 => tensor
            .to_i64()
            .map(|v| v.into_iter().map(|x| x as f64).collect()),
        DType::U8 | DType::Bool => Some(tensor.data().iter().map(|&x| f64::from(x)).collect()),
        _ => None,
    };
    let dtype = tensor.dtype();
    found.ok_or_else(|| {
        Failure::new(format!(
            "output `{name}` is of {dtype}, which is not compared"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_difference_counts_and_nan_equals_nan_only() {
        let answer = |values: &[f32]| -> Tensors {
            vec![(
                "y".into(),
                Tensor::from_f32(vec![values.len()], values).unwrap(),
            )]
        };
        let found = Difference::of(&answer(&[1.0, 4.5]), &answer(&[1.25, 4.0])).unwrap();
        assert_eq!((found.absolute, found.relative), (0.5, 0.125));
        let found = Difference::of(&answer(&[f32::NAN]), &answer(&[f32::NAN])).unwrap();
        assert_eq!(found, Difference::default());
        let found = Difference::of(&answer(&[f32::NAN]), &answer(&[1.0])).unwrap();
        assert_eq!(found.absolute, f64::INFINITY);
        assert!(Difference::of(&answer(&[1.0]), &answer(&[1.0, 2.0])).is_err());
    }
}
