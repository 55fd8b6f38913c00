//! What a model or function takes and gives, and whether given tensors fit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tensor::{DType, Tensor};

/// One dimension of a declared shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Any size; equal names need not be equal sizes across tensors.
    Named(String),
    /// Any size.
    Any,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Named(name) => f.write_str(name),
            Self::Any => f.write_str("?"),
        }
    }
}

/// One declared input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions; `None` where the rank is open.
    pub shape: Option<Vec<Dim>>,
}

impl TensorSpec {
    /// The shape as people write it: `[batch, 3, 224, 224]`, or `[...]`.
    pub fn shape_text(&self) -> String {
        match &self.shape {
            None => "[...]".into(),
            Some(dims) => {
                let dims: Vec<_> = dims.iter().map(Dim::to_string).collect();
                format!("[{}]", dims.join(", "))
            }
        }
    }

    /// Whether `tensor` has this dtype and a shape that this one allows.
    ///
    /// Codes in `u8` stand for elements that are narrower. A scalar and `[1]` stand for each other, as some protocols can't say one
    /// of the two.
    pub fn check(&self, tensor: &Tensor) -> Result<(), SignatureError> {
        let codes = matches!(self.dtype, DType::Narrow(_)) && tensor.dtype() == DType::U8;
        if tensor.dtype() != self.dtype && !codes {
            return Err(SignatureError::DType {
                name: self.name.clone(),
                expected: self.dtype,
                found: tensor.dtype(),
            });
        }
        let Some(dims) = &self.shape else {
            return Ok(());
        };
        let fits = |dim: &Dim, size: usize| !matches!(dim, Dim::Fixed(n) if *n != size);
        let found = tensor.shape();
        let same = dims.len() == found.len() && dims.iter().zip(found).all(|(d, &n)| fits(d, n));
        let one_value = dims.is_empty() && found == [1]
            || found.is_empty() && matches!(dims.as_slice(), [dim] if fits(dim, 1));
        if same || one_value {
            return Ok(());
        }
        Err(SignatureError::Shape {
            name: self.name.clone(),
            expected: self.shape_text(),
            found: found.to_vec(),
        })
    }
}

/// The inputs and outputs of a model or function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// What it takes.
    pub inputs: Vec<TensorSpec>,
    /// What it gives.
    pub outputs: Vec<TensorSpec>,
}

/// Given tensors do not fit a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A declared input was not given.
    #[error("input `{name}` is missing; expected {expected}")]
    Missing {
        /// The missing input.
        name: String,
        /// All declared inputs.
        expected: String,
    },
    /// An input that is not declared.
    #[error("there is no input `{name}`; expected {expected}")]
    Unknown {
        /// The given name.
        name: String,
        /// All declared inputs.
        expected: String,
    },
    /// An input given more than once.
    #[error("input `{name}` is given more than once")]
    Twice {
        /// The given name.
        name: String,
    },
    /// Another element type.
    #[error("input `{name}`: expected dtype {expected}, found {found}")]
    DType {
        /// The input.
        name: String,
        /// Declared.
        expected: DType,
        /// Given.
        found: DType,
    },
    /// A shape that the declaration does not allow.
    #[error("input `{name}`: expected shape {expected}, found {found:?}")]
    Shape {
        /// The input.
        name: String,
        /// Declared.
        expected: String,
        /// Given.
        found: Vec<usize>,
    },
}

impl Signature {
    /// Whether `inputs` are exactly the declared ones, each fitting.
    pub fn check_inputs(&self, inputs: &[(String, Tensor)]) -> Result<(), SignatureError> {
        for (at, (name, tensor)) in inputs.iter().enumerate() {
            let Some(spec) = self.inputs.iter().find(|spec| spec.name == *name) else {
                let expected = self.input_names();
                return Err(SignatureError::Unknown {
                    name: name.clone(),
                    expected,
                });
            };
            if inputs.iter().take(at).any(|(earlier, _)| earlier == name) {
                return Err(SignatureError::Twice { name: name.clone() });
            }
            spec.check(tensor)?;
        }
        for spec in &self.inputs {
            if !inputs.iter().any(|(name, _)| *name == spec.name) {
                let expected = self.input_names();
                return Err(SignatureError::Missing {
                    name: spec.name.clone(),
                    expected,
                });
            }
        }
        Ok(())
    }

    fn input_names(&self) -> String {
        let names: Vec<_> = self
            .inputs
            .iter()
            .map(|spec| format!("`{}`", spec.name))
            .collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Signature {
        let shape = Some(vec![Dim::Named("batch".into()), Dim::Fixed(3)]);
        let x = TensorSpec {
            name: "x".into(),
            dtype: DType::F32,
            shape,
        };
        Signature {
            inputs: vec![x],
            outputs: vec![],
        }
    }

    fn given(name: &str, tensor: Tensor) -> Vec<(String, Tensor)> {
        vec![(name.into(), tensor)]
    }

    #[test]
    fn each_misfit_says_expected_and_found() {
        let f32s = |shape: Vec<usize>| {
            let count = shape.iter().product();
            Tensor::from_f32(shape, &vec![0.0; count]).unwrap()
        };
        let said =
            |inputs: Vec<(String, Tensor)>| image().check_inputs(&inputs).unwrap_err().to_string();
        assert_eq!(said(vec![]), "input `x` is missing; expected `x`");
        assert_eq!(
            said(given("y", f32s(vec![1, 3]))),
            "there is no input `y`; expected `x`"
        );
        assert_eq!(
            said(given("x", f32s(vec![1, 4]))),
            "input `x`: expected shape [batch, 3], found [1, 4]"
        );
        let ints = Tensor::from_i64(vec![1, 3], &[1, 2, 3]).unwrap();
        assert_eq!(
            said(given("x", ints)),
            "input `x`: expected dtype f32, found i64"
        );
        assert_eq!(image().check_inputs(&given("x", f32s(vec![7, 3]))), Ok(()));
    }

    #[test]
    fn a_scalar_and_a_single_element_stand_for_each_other() {
        let spec = TensorSpec {
            name: "sr".into(),
            dtype: DType::I64,
            shape: Some(vec![]),
        };
        let one = Tensor::from_i64(vec![1], &[16000]).unwrap();
        assert_eq!(spec.check(&one), Ok(()));
        let two = Tensor::from_i64(vec![2], &[1, 2]).unwrap();
        assert!(spec.check(&two).is_err());
    }
}
