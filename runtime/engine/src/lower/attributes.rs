//! Typed reading of a node's attributes.

use bytes::Bytes;

use crate::onnx::proto::{
    AttributeProto, AttributeType, GraphProto, SparseTensorProto, TensorProto,
};

/// The attributes of a node; each getter says what is wrong as a sentence.
pub(super) struct Attributes<'a> {
    all: &'a mut [AttributeProto],
}

impl<'a> Attributes<'a> {
    pub fn new(all: &'a mut [AttributeProto]) -> Self {
        Self { all }
    }

    fn find(&mut self, name: &str) -> Option<&mut AttributeProto> {
        self.all.iter_mut().find(|attribute| attribute.name == name)
    }

    pub fn has(&mut self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The attribute, where it is there and of this type.
    fn typed(
        &mut self,
        name: &str,
        expected: AttributeType,
    ) -> Result<Option<&mut AttributeProto>, String> {
        let Some(attribute) = self.find(name) else {
            return Ok(None);
        };
        match AttributeType::try_from(attribute.r#type) {
            // Writers before IR version 2 left the type out.
            Ok(AttributeType::Undefined) => Ok(Some(attribute)),
            Ok(found) if found == expected => Ok(Some(attribute)),
            found => Err(format!(
                "attribute `{name}` is of type {}, expected {}",
                found.map_or_else(|_| format!("number {}", attribute.r#type), type_name),
                type_name(expected)
            )),
        }
    }

    pub fn int(&mut self, name: &str) -> Result<Option<i64>, String> {
        let found = self.typed(name, AttributeType::Int)?;
        Ok(found.map(|attribute| attribute.i))
    }

    pub fn int_or(&mut self, name: &str, default: i64) -> Result<i64, String> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, String> {
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    pub fn float_or(&mut self, name: &str, default: f32) -> Result<f32, String> {
        let found = self.typed(name, AttributeType::Float)?;
        Ok(found.map_or(default, |attribute| attribute.f))
    }

    pub fn float(&mut self, name: &str) -> Result<Option<f32>, String> {
        let found = self.typed(name, AttributeType::Float)?;
        Ok(found.map(|attribute| attribute.f))
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        let found = self.typed(name, AttributeType::String)?;
        found.map(|attribute| utf8(name, &attribute.s)).transpose()
    }

    pub fn ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, String> {
        let found = self.typed(name, AttributeType::Ints)?;
        Ok(found.map(|attribute| attribute.ints.clone()))
    }

    pub fn floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, String> {
        let found = self.typed(name, AttributeType::Floats)?;
        Ok(found.map(|attribute| attribute.floats.clone()))
    }

    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, String> {
        let found = self.typed(name, AttributeType::Strings)?;
        let Some(attribute) = found else {
            return Ok(None);
        };
        let texts = attribute.strings.iter().map(|text| utf8(name, text));
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// Sizes, strides and the like: a list of numbers from zero on.
    pub fn sizes(&mut self, name: &str) -> Result<Vec<usize>, String> {
        let sizes = self.ints(name)?.unwrap_or_default();
        let size = |n: i64| {
            usize::try_from(n).map_err(|_| format!("attribute `{name}` holds {n}, expected ≥ 0"))
        };
        sizes.into_iter().map(size).collect()
    }

    /// The same, from one on.
    pub fn positive_sizes(&mut self, name: &str) -> Result<Vec<usize>, String> {
        let sizes = self.sizes(name)?;
        if sizes.contains(&0) {
            return Err(format!("attribute `{name}` holds 0, expected ≥ 1"));
        }
        Ok(sizes)
    }

    pub fn tensor(&mut self, name: &str) -> Result<Option<&TensorProto>, String> {
        Ok(self
            .typed(name, AttributeType::Tensor)?
            .and_then(|attribute| attribute.t.as_ref()))
    }

    pub fn sparse_tensor(&mut self, name: &str) -> Result<Option<&SparseTensorProto>, String> {
        Ok(self
            .typed(name, AttributeType::SparseTensor)?
            .and_then(|attribute| attribute.sparse_tensor.as_ref()))
    }

    /// A graph, taken out.
    pub fn graph(&mut self, name: &str) -> Result<GraphProto, String> {
        let found = self.typed(name, AttributeType::Graph)?;
        found
            .and_then(|attribute| attribute.g.take())
            .ok_or_else(|| format!("attribute `{name}` is missing"))
    }
}

fn type_name(found: AttributeType) -> String {
    format!("{found:?}").to_lowercase()
}

fn utf8(name: &str, text: &Bytes) -> Result<String, String> {
    let text = std::str::from_utf8(text);
    text.map(str::to_owned)
        .map_err(|_| format!("attribute `{name}` is not UTF-8 text"))
}
