//! How far the outputs of a model are from those of another.

use serde::Serialize;

use crate::device;
use crate::model::Tensors;
use crate::tensor::{DType, Tensor};
use crate::value::Value;

/// How far an output is from the expected one.
///
/// A number that isn't finite is as far as can be from any other one, and not at all from
/// itself; outputs of different shapes are as far apart as can be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deviation {
    /// The output's name.
    pub output: String,
    /// The largest difference of two elements.
    pub max_absolute: f64,
    /// The same as a part of the largest magnitude of the expected output.
    pub max_relative: f64,
    /// The mean difference of two elements.
    pub mean_absolute: f64,
    /// The cosine of the angle between the outputs, taken as vectors.
    pub cosine: f64,
}

/// How far outputs are from the expected ones, which are found by their names. Texts, which
/// have no difference, are left out.
pub fn deviations(found: &Tensors, expected: &Tensors) -> Vec<Deviation> {
    let each = expected.iter().filter(|(_, t)| t.dtype() != DType::Bytes);
    let one = |(name, expected): &(String, Tensor)| {
        let found = found.iter().find(|(found, _)| found == name);
        let found = found.filter(|(_, found)| found.shape() == expected.shape());
        let both = found.and_then(|(_, found)| Some((numbers(found)?, numbers(expected)?)));
        match both {
            Some((found, expected)) => between(name, &found, &expected),
            None => Deviation {
                output: name.clone(),
                max_absolute: f64::INFINITY,
                max_relative: f64::INFINITY,
                mean_absolute: f64::INFINITY,
                cosine: 0.0,
            },
        }
    };
    each.map(one).collect()
}

/// The elements of a tensor of numbers.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    let value = Value::upload(tensor.clone(), &device::cpu()).ok()?;
    value.to_floats().ok()
}

fn between(output: &str, found: &[f64], expected: &[f64]) -> Deviation {
    let (mut most, mut sum, mut magnitude) = (0.0f64, 0.0, 0.0f64);
    let (mut product, mut squares) = (0.0, [0.0; 2]);
    for (&found, &expected) in found.iter().zip(expected) {
        let same = found == expected || (found.is_nan() && expected.is_nan());
        let off = match (found - expected).abs() {
            _ if same => 0.0,
            off if off.is_nan() => f64::INFINITY,
            off => off,
        };
        most = most.max(off);
        sum += off;
        if expected.is_finite() {
            magnitude = magnitude.max(expected.abs());
        }
        if !same || expected.is_finite() {
            product += found * expected;
            squares = [squares[0] + found * found, squares[1] + expected * expected];
        }
    }
    let length = (squares[0] * squares[1]).sqrt();
    let cosine = match product / length {
        _ if squares == [0.0, 0.0] => 1.0,
        cosine if cosine.is_finite() => cosine.clamp(-1.0, 1.0),
        _ => 0.0,
    };
    Deviation {
        output: output.to_owned(),
        max_absolute: most,
        max_relative: if most == 0.0 { 0.0 } else { most / magnitude },
        mean_absolute: sum / found.len().max(1) as f64,
        cosine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(found: &[f64], expected: &[f64]) -> Deviation {
        between("y", found, expected)
    }

    #[test]
    fn a_deviation_says_how_far_and_in_which_direction() {
        let off = of(&[3.0, 0.0], &[3.0, 4.0]);
        assert_eq!((off.max_absolute, off.max_relative), (4.0, 1.0));
        assert_eq!((off.mean_absolute, off.cosine), (2.0, 0.6));
        let none = of(
            &[f64::NAN, f64::INFINITY, 0.0],
            &[f64::NAN, f64::INFINITY, 0.0],
        );
        assert_eq!((none.max_absolute, none.cosine), (0.0, 1.0));
    }

    #[test]
    fn what_is_not_finite_is_far_from_all_else() {
        for (found, expected) in [(f64::NAN, 1.0), (1.0, f64::INFINITY), (f64::INFINITY, 0.0)] {
            let off = of(&[found, 1.0], &[expected, 1.0]);
            assert_eq!((off.max_absolute, off.cosine), (f64::INFINITY, 0.0));
        }
    }

    #[test]
    fn outputs_of_other_shapes_are_far_off_and_texts_left_out() {
        let tensor = |shape: Vec<usize>| Tensor::from_f32(shape, &[1.0; 4]).unwrap();
        let text = ("t".to_owned(), Tensor::from_blob(b"text").unwrap());
        let expected = vec![("y".to_owned(), tensor(vec![4])), text];
        let all = deviations(&vec![("y".to_owned(), tensor(vec![2, 2]))], &expected);
        assert_eq!(all.len(), 1);
        assert!(all.iter().all(|one| one.max_absolute == f64::INFINITY));
    }
}
