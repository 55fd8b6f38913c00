//! How far apart two engines' answers are.

use std::fmt;

use firebox_engine::{DType, Tensors, deviations};
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
            if tensor.dtype() == DType::Bytes {
                return Err(Failure::new(format!(
                    "output `{name}` is of texts, which are not compared"
                )));
            }
        }
        let mut largest = Difference::default();
        for one in deviations(ours, theirs) {
            largest.absolute = largest.absolute.max(one.max_absolute);
            largest.relative = largest.relative.max(one.max_relative);
        }
        Ok(largest)
    }
}

#[cfg(test)]
mod tests {
    use firebox_engine::Tensor;

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
