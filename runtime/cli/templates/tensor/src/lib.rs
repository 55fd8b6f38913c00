//! Standardises values, as models want them: what comes out has mean 0 and
//! standard deviation 1.

use firebox_sdk::{Error, Result, Tensor, function};

/// What Firebox calls for each request. The input is the tensor `values`, of
/// any length, and the answer the tensor `output`.
#[function(output = [_])]
fn standardise(#[shape(_)] values: Tensor<f32>) -> Result<Tensor<f32>> {
    let shape = values.shape().to_vec();
    let mut values = values.into_data();
    if values.is_empty() {
        return Err(Error::invalid_input(
            "`values` is empty: there is nothing to standardise",
        ));
    }
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::invalid_input(format!(
            "value {at} of `values` isn't a finite number"
        )));
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let squares = values
        .iter()
        .map(|&value| (f64::from(value) - mean).powi(2))
        .sum::<f64>();
    let deviation = (squares / count).sqrt();
    for value in &mut values {
        // Equal values have no deviation; they stand at the mean.
        let distance = f64::from(*value) - mean;
        *value = if deviation > 0.0 {
            (distance / deviation) as f32
        } else {
            0.0
        };
    }
    Tensor::new(shape, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standardised(values: &[f32]) -> Result<Vec<f32>> {
        Ok(standardise(Tensor::new([values.len()], values)?)?.into_data())
    }

    #[test]
    fn values_come_out_with_mean_0_and_deviation_1() {
        let found = standardised(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!(found, [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn equal_values_become_zeros() {
        assert_eq!(standardised(&[3.0, 3.0]), Ok(vec![0.0, 0.0]));
    }

    #[test]
    fn what_cannot_be_standardised_is_refused() {
        assert!(standardised(&[]).is_err());
        assert!(standardised(&[1.0, f32::NAN]).is_err());
    }
}
