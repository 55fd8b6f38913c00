//! Named tensors: what a model takes, what it gives, what a function answers.

use crate::tensor::{AnyTensor, Element, Tensor};
use crate::{Error, Result};

/// Named tensors in any form that one may write them: an array or `Vec` of
/// pairs where all have one type, a tuple of pairs where they differ, or the
/// [`Outputs`] of a model.
///
/// ```
/// use firebox_sdk::{Outputs, Tensor};
///
/// let one = Outputs::new([("bytes", Tensor::scalar(1u8))]);
/// let two = Outputs::new((("audio", Tensor::scalar(0.5f32)), ("rate", Tensor::scalar(16_000i64))));
/// # assert_eq!((one.names().count(), two.names().count()), (1, 2));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not named tensors",
    label = "expected named tensors",
    note = "write `[(\"name\", tensor)]`, or `((\"a\", tensor), (\"b\", other))` where the element types differ"
)]
pub trait Tensors {
    /// The pairs, in order.
    fn into_pairs(self) -> Vec<(String, AnyTensor)>;
}

impl<N: Into<String>, T: Into<AnyTensor>, const COUNT: usize> Tensors for [(N, T); COUNT] {
    fn into_pairs(self) -> Vec<(String, AnyTensor)> {
        self.into_iter()
            .map(|(name, tensor)| (name.into(), tensor.into()))
            .collect()
    }
}

impl<N: Into<String>, T: Into<AnyTensor>> Tensors for Vec<(N, T)> {
    fn into_pairs(self) -> Vec<(String, AnyTensor)> {
        self.into_iter()
            .map(|(name, tensor)| (name.into(), tensor.into()))
            .collect()
    }
}

macro_rules! tuples {
    ($(($($name:ident $tensor:ident),*);)*) => {$(
        impl<$($name: Into<String>, $tensor: Into<AnyTensor>),*> Tensors for ($(($name, $tensor),)*) {
            #[allow(non_snake_case, reason = "type parameters name their values")]
            fn into_pairs(self) -> Vec<(String, AnyTensor)> {
                let ($(($name, $tensor),)*) = self;
                vec![$(($name.into(), $tensor.into())),*]
            }
        }
    )*};
}
tuples! {
    (N1 T1);
    (N1 T1, N2 T2);
    (N1 T1, N2 T2, N3 T3);
    (N1 T1, N2 T2, N3 T3, N4 T4);
    (N1 T1, N2 T2, N3 T3, N4 T4, N5 T5);
    (N1 T1, N2 T2, N3 T3, N4 T4, N5 T5, N6 T6);
}

/// Named tensors that a model gave, or that a function answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    pairs: Vec<(String, AnyTensor)>,
}

impl Outputs {
    /// Outputs in this order.
    pub fn new(tensors: impl Tensors) -> Self {
        Self {
            pairs: tensors.into_pairs(),
        }
    }

    /// These and one more.
    pub fn with(mut self, name: impl Into<String>, tensor: impl Into<AnyTensor>) -> Self {
        self.pairs.push((name.into(), tensor.into()));
        self
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| name.as_str())
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&AnyTensor> {
        self.pairs
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, tensor)| tensor)
    }

    pub(crate) fn pairs(&self) -> &[(String, AnyTensor)] {
        &self.pairs
    }

    /// Takes one out.
    ///
    /// # Errors
    /// An internal one where there is no `name`, naming those there are, or
    /// where its elements are not `T`.
    pub fn take<T: Element>(&mut self, name: &str) -> Result<Tensor<T>> {
        let Some(at) = self.pairs.iter().position(|(given, _)| given == name) else {
            let names: Vec<_> = self.names().map(|name| format!("`{name}`")).collect();
            let names = if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            };
            return Err(Error::internal(format!(
                "there is no output `{name}`; there is {names}"
            )));
        };
        let (_, tensor) = self.pairs.remove(at);
        tensor
            .typed()
            .map_err(|why| Error::internal(format!("output `{name}`: {why}")))
    }
}

impl Tensors for Outputs {
    fn into_pairs(self) -> Vec<(String, AnyTensor)> {
        self.pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_output_is_answered_with_those_there_are() {
        let mut outputs = Outputs::new((
            ("label", Tensor::scalar(1i64)),
            ("score", Tensor::scalar(0.5f32)),
        ));
        assert_eq!(
            outputs.take::<f32>("scores").unwrap_err().message(),
            "there is no output `scores`; there is `label`, `score`"
        );
        assert_eq!(
            outputs.clone().take::<f32>("label").unwrap_err().message(),
            "output `label`: expected dtype f32, found i64"
        );
        assert_eq!(outputs.take::<f32>("score").unwrap().data(), [0.5]);
    }
}
