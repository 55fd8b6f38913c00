//! When two requests are equal: the same version gets the same tensors, and the same parameters.
//!
//! The order in which tensors and parameters of different names come doesn't matter, their bits do:
//! 0 and -0 are different inputs, and so are two NaNs of different bits. The request's id is no part
//! of it, nor is anything else that the function doesn't get.

use std::io::{Sink, Write as _, sink};

use firebox_engine::Tensor;
use firebox_registry::{Digest, Digesting, VersionRecord};
use firebox_sandbox::Parameter;

/// Names the answers of one version. Numbers are never used twice, so no other version ever has
/// this name.
pub fn owner(record: &VersionRecord) -> Digest {
    let mut hash = Hash::new();
    hash.bytes(record.function.as_str().as_bytes());
    hash.number(u64::from(record.number.get()));
    hash.bytes(record.digest.as_bytes());
    hash.finish()
}

/// Names a request to a version.
pub fn key(
    owner: &Digest,
    inputs: &[(String, Tensor)],
    parameters: &[(String, Parameter)],
) -> Digest {
    let mut hash = Hash::new();
    hash.bytes(owner.as_bytes());
    let inputs = by_name(inputs);
    hash.number(inputs.len() as u64);
    for (name, tensor) in inputs {
        hash.bytes(name.as_bytes());
        hash.bytes(tensor.dtype().name().as_bytes());
        hash.number(tensor.shape().len() as u64);
        for size in tensor.shape() {
            hash.number(*size as u64);
        }
        hash.bytes(tensor.data());
    }
    for (name, value) in by_name(parameters) {
        hash.bytes(name.as_bytes());
        match value {
            Parameter::Bool(value) => hash.bytes(&[0, u8::from(*value)]),
            Parameter::Int64(value) => hash.tagged(1, &value.to_le_bytes()),
            Parameter::Double(value) => hash.tagged(2, &value.to_bits().to_le_bytes()),
            Parameter::Text(value) => hash.tagged(3, value.as_bytes()),
        }
    }
    hash.finish()
}

/// Those of one name stay in their order, which may mean something.
fn by_name<T>(named: &[(String, T)]) -> Vec<&(String, T)> {
    let mut sorted: Vec<_> = named.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    sorted
}

/// A digest in the making. Each part goes in with its length, so that no two lists of parts give
/// the same bytes.
struct Hash(Digesting<Sink>);

impl Hash {
    fn new() -> Self {
        Self(Digesting::new(sink()))
    }

    fn raw(&mut self, bytes: &[u8]) {
        // A sink takes everything.
        let _ = self.0.write_all(bytes);
    }

    fn number(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.number(bytes.len() as u64 + 1);
        self.raw(&[tag]);
        self.raw(bytes);
    }

    fn finish(self) -> Digest {
        self.0.finish().0
    }
}

#[cfg(test)]
mod tests {
    use firebox_engine::DType;

    use super::*;

    fn f32s(name: &str, values: &[f32]) -> (String, Tensor) {
        let tensor = Tensor::from_f32(vec![values.len()], values).unwrap();
        (name.to_owned(), tensor)
    }

    fn text(name: &str, value: &str) -> (String, Parameter) {
        (name.to_owned(), Parameter::Text(value.to_owned()))
    }

    fn of(inputs: &[(String, Tensor)], parameters: &[(String, Parameter)]) -> Digest {
        key(&Digest::of(b"version"), inputs, parameters)
    }

    #[test]
    fn the_order_of_names_is_nothing_and_that_of_equal_names_is_something() {
        let (a, b) = (f32s("a", &[1.0]), f32s("b", &[2.0]));
        assert_eq!(of(&[a.clone(), b.clone()], &[]), of(&[b, a], &[]));
        let (x, y, again) = (text("x", "1"), text("y", "2"), text("x", "3"));
        let first = of(&[], &[x.clone(), y.clone(), again.clone()]);
        assert_eq!(first, of(&[], &[y.clone(), x.clone(), again.clone()]));
        assert_ne!(first, of(&[], &[again, y, x]));
    }

    #[test]
    fn each_part_makes_a_difference() {
        let bits = |bits: u32| f32s("x", &[f32::from_bits(bits)]);
        let raw = vec![0_u8; 8];
        let tensor = |dtype, shape: &[usize]| {
            let tensor = Tensor::new(dtype, shape.to_vec(), raw.clone()).unwrap();
            vec![("x".to_owned(), tensor)]
        };
        let one = |parameter| vec![("p".to_owned(), parameter)];
        let keys = [
            key(&Digest::of(b"another version"), &[], &[]),
            of(&[], &[]),
            of(&[f32s("x", &[])], &[]),
            of(&[f32s("x", &[0.0])], &[]),
            of(&[f32s("x", &[-0.0])], &[]),
            of(&[f32s("y", &[0.0])], &[]),
            of(&[bits(0x7fc0_0000)], &[]),
            of(&[bits(0x7fc0_0001)], &[]),
            of(&tensor(DType::F32, &[2]), &[]),
            of(&tensor(DType::I32, &[2]), &[]),
            of(&tensor(DType::F32, &[1, 2]), &[]),
            of(&tensor(DType::F32, &[2, 1]), &[]),
            of(&tensor(DType::I64, &[1]), &[]),
            of(&[], &[text("p", "1")]),
            of(&[], &[text("p", "1"), text("p", "1")]),
            of(&[], &[text("p1", "")]),
            of(&[], &one(Parameter::Int64(1))),
            of(&[], &one(Parameter::Double(1.0))),
            of(&[], &one(Parameter::Double(-0.0))),
            of(&[], &one(Parameter::Double(0.0))),
            of(&[], &one(Parameter::Bool(true))),
            of(&[], &one(Parameter::Bool(false))),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }
}
