//! What a function takes and gives, and whether given tensors fit.

use std::fmt;

use crate::request::BODY;
use crate::tensor::{AnyTensor, DType};
use crate::{Error, Result};

/// A declared shape: the sizes, outermost first; `None` may differ from call to call.
pub type Shape = Vec<Option<usize>>;

/// What one input or output looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its sizes.
    pub shape: Shape,
}

impl TensorSpec {
    /// A raw body.
    pub fn body() -> Self {
        Self {
            name: BODY.into(),
            dtype: DType::Bytes,
            shape: vec![Some(1)],
        }
    }

    /// Whether `tensor` fits; if not, what was expected and what was found.
    fn check(&self, tensor: &AnyTensor) -> std::result::Result<(), String> {
        if tensor.dtype != self.dtype {
            return Err(format!(
                "expected dtype {}, found {}",
                self.dtype, tensor.dtype
            ));
        }
        let same = self.shape.len() == tensor.shape.len()
            && self
                .shape
                .iter()
                .zip(&tensor.shape)
                .all(|(want, &size)| want.is_none_or(|n| n == size));
        // Some protocols can't say one of the two.
        let one_value = self.shape.is_empty() && tensor.shape == [1]
            || tensor.shape.is_empty() && matches!(self.shape.as_slice(), [None | Some(1)]);
        if same || one_value {
            return Ok(());
        }
        Err(format!(
            "expected shape {}, found {:?}",
            ShapeText(&self.shape),
            tensor.shape
        ))
    }
}

/// A shape as the attribute writes it: `[_, 2048]`.
struct ShapeText<'a>(&'a Shape);

impl fmt::Display for ShapeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<_> = self
            .0
            .iter()
            .map(|size| size.map_or("_".into(), |n| n.to_string()))
            .collect();
        write!(f, "[{}]", sizes.join(", "))
    }
}

/// The inputs and outputs of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// What it takes.
    pub inputs: Vec<TensorSpec>,
    /// What it gives.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Whether a request brings what is declared; `invalid-input` if not. A raw
    /// body that nobody asked for is let through: an HTTP request always has one.
    pub(crate) fn check_inputs(&self, given: &[(String, AnyTensor)]) -> Result<()> {
        check("input", &self.inputs, given).map_err(Error::invalid_input)
    }

    /// Whether an answer is what is declared; `internal` if not.
    pub(crate) fn check_outputs(&self, given: &[(String, AnyTensor)]) -> Result<()> {
        check("output", &self.outputs, given)
            .map_err(|why| Error::internal(format!("the function broke its declaration: {why}")))
    }
}

fn check(
    what: &str,
    declared: &[TensorSpec],
    given: &[(String, AnyTensor)],
) -> std::result::Result<(), String> {
    for spec in declared {
        let mut found = given.iter().filter(|(name, _)| *name == spec.name);
        let name = &spec.name;
        let Some((_, tensor)) = found.next() else {
            let names = names(given.iter().map(|(name, _)| name.as_str()));
            return Err(format!("{what} `{name}` is missing; found {names}"));
        };
        if found.next().is_some() {
            return Err(format!("{what} `{name}` is given more than once"));
        }
        spec.check(tensor)
            .map_err(|why| format!("{what} `{name}`: {why}"))?;
    }
    let unknown = given
        .iter()
        .find(|(name, _)| name != BODY && !declared.iter().any(|spec| spec.name == *name));
    match unknown {
        None => Ok(()),
        Some((name, _)) => {
            let names = names(declared.iter().map(|spec| spec.name.as_str()));
            Err(format!("there is no {what} `{name}`; expected {names}"))
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn each_misfit_says_expected_and_found() {
        let x = TensorSpec {
            name: "x".into(),
            dtype: DType::F32,
            shape: vec![None, Some(3)],
        };
        let signature = Signature {
            inputs: vec![x],
            outputs: vec![],
        };
        let given = |name: &str, tensor: AnyTensor| vec![(name.to_string(), tensor)];
        let said = |given: &[_]| {
            signature
                .check_inputs(given)
                .unwrap_err()
                .message()
                .to_string()
        };
        let f32s = |shape: [usize; 2]| {
            AnyTensor::from(Tensor::new(shape, vec![0f32; shape[0] * shape[1]]).unwrap())
        };
        assert_eq!(said(&[]), "input `x` is missing; found none");
        assert_eq!(
            said(&given("body", AnyTensor::blob(b""))),
            "input `x` is missing; found `body`"
        );
        assert_eq!(
            said(&given("x", AnyTensor::from(Tensor::scalar(1i64)))),
            "input `x`: expected dtype f32, found i64"
        );
        assert_eq!(
            said(&given("x", f32s([2, 4]))),
            "input `x`: expected shape [_, 3], found [2, 4]"
        );
        let mut two = given("x", f32s([2, 3]));
        assert_eq!(signature.check_inputs(&two), Ok(()));
        two.push(("y".into(), f32s([1, 1])));
        assert_eq!(said(&two), "there is no input `y`; expected `x`");
        two[1].0 = "x".into();
        assert_eq!(said(&two), "input `x` is given more than once");
    }
}
