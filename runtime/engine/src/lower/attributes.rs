//! Typed reading of a node's attributes.

use rten_onnx::onnx::{AttributeProto, AttributeType, GraphProto, TensorProto};

/// The attributes of a node; each getter says what is wrong as a sentence.
pub(super) struct Attributes<'a> {
    all: &'a mut [AttributeProto],
}

impl<'a> Attributes<'a> {
    pub fn new(all: &'a mut [AttributeProto]) -> Self {
        Self { all }
    }

    fn find(&mut self, name: &str) -> Option<&mut AttributeProto> {
        self.all
            .iter_mut()
            .find(|attribute| attribute.name.as_deref() == Some(name))
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
        match attribute.r#type {
            // Writers before IR version 2 left the type out.
            Some(found) if found != expected && found != AttributeType::UNDEFINED => Err(format!(
                "attribute `{name}` is of type {}, expected {}",
                type_name(found),
                type_name(expected)
            )),
            _ => Ok(Some(attribute)),
        }
    }

    pub fn int(&mut self, name: &str) -> Result<Option<i64>, String> {
        // A zero may be left out on the wire.
        let found = self.typed(name, AttributeType::INT)?;
        Ok(found.map(|attribute| attribute.i.unwrap_or(0)))
    }

    pub fn int_or(&mut self, name: &str, default: i64) -> Result<i64, String> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, String> {
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    pub fn float_or(&mut self, name: &str, default: f32) -> Result<f32, String> {
        let found = self.typed(name, AttributeType::FLOAT)?;
        Ok(found.map_or(default, |attribute| attribute.f.unwrap_or(0.0)))
    }

    pub fn float(&mut self, name: &str) -> Result<Option<f32>, String> {
        let found = self.typed(name, AttributeType::FLOAT)?;
        Ok(found.map(|attribute| attribute.f.unwrap_or(0.0)))
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        let found = self.typed(name, AttributeType::STRING)?;
        Ok(found.map(|attribute| attribute.s.clone().unwrap_or_default()))
    }

    pub fn ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, String> {
        let found = self.typed(name, AttributeType::INTS)?;
        Ok(found.map(|attribute| attribute.ints.clone()))
    }

    pub fn floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, String> {
        let found = self.typed(name, AttributeType::FLOATS)?;
        Ok(found.map(|attribute| attribute.floats.clone()))
    }

    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, String> {
        let found = self.typed(name, AttributeType::STRINGS)?;
        Ok(found.map(|attribute| attribute.strings.clone()))
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

    pub fn tensor(&mut self, name: &str) -> Result<Option<&mut TensorProto>, String> {
        Ok(self
            .typed(name, AttributeType::TENSOR)?
            .and_then(|attribute| attribute.t.as_mut()))
    }

    /// A graph, taken out.
    pub fn graph(&mut self, name: &str) -> Result<GraphProto, String> {
        let found = self.typed(name, AttributeType::GRAPH)?;
        found
            .and_then(|attribute| attribute.g.take())
            .ok_or_else(|| format!("attribute `{name}` is missing"))
    }
}

fn type_name(found: AttributeType) -> String {
    let name = match found {
        AttributeType::FLOAT => "float",
        AttributeType::INT => "int",
        AttributeType::STRING => "string",
        AttributeType::TENSOR => "tensor",
        AttributeType::GRAPH => "graph",
        AttributeType::FLOATS => "floats",
        AttributeType::INTS => "ints",
        AttributeType::STRINGS => "strings",
        AttributeType(number) => return format!("number {number}"),
    };
    name.into()
}
