//! How far two versions' answers to one question are apart.
//!
//! Answers *agree* where they decide alike: equal integers, booleans and strings; in rows of two or
//! more floating-point numbers (scores of classes), the highest at the same place; a single
//! floating-point number within 0.1 %. A body that is JSON agrees where everything in it but
//! fractions is equal, and lone fractions are within 0.1 %; any other body where it is equal byte
//! by byte. Beside that stands how far numbers are apart at most, absolutely and relatively.

use firebox_engine::{DType, Tensor};
use serde_json::Value;

use crate::scheduler::Named;

/// How far a lone number may be off and still agree, relative to the larger.
const CLOSE: f64 = 1e-3;

/// Nesting of JSON that is walked; `serde_json` reads no deeper.
const DEEPEST: usize = 128;

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Whether both decide alike.
    pub agrees: bool,
    /// The largest absolute difference of two numbers; none where no numbers stand side by side.
    pub max_abs: Option<f64>,
    /// The largest relative difference: absolute, by the larger magnitude.
    pub max_rel: Option<f64>,
}

impl Difference {
    fn none() -> Self {
        Self {
            agrees: true,
            max_abs: None,
            max_rel: None,
        }
    }

    fn disagree(&mut self) {
        self.agrees = false;
    }

    /// Notes two numbers that stand side by side; says whether they are close.
    fn numbers(&mut self, a: f64, b: f64) -> bool {
        if a == b || (a.is_nan() && b.is_nan()) {
            self.widen(0.0, 0.0);
            return true;
        }
        let abs = (a - b).abs();
        if !abs.is_finite() {
            // Infinities and NaN have no distance that could be told.
            self.disagree();
            return false;
        }
        let rel = abs / a.abs().max(b.abs());
        self.widen(abs, rel);
        rel <= CLOSE
    }

    fn widen(&mut self, abs: f64, rel: f64) {
        self.max_abs = Some(self.max_abs.unwrap_or(0.0).max(abs));
        self.max_rel = Some(self.max_rel.unwrap_or(0.0).max(rel));
    }
}

/// Compares two answers, output by output.
pub fn compare(primary: &Named, shadow: &Named) -> Difference {
    let mut difference = Difference::none();
    if primary.len() != shadow.len() {
        difference.disagree();
    }
    for (name, tensor) in primary {
        match shadow.iter().find(|(other, _)| other == name) {
            Some((_, other)) => tensors(&mut difference, tensor, other),
            None => difference.disagree(),
        }
    }
    difference
}

fn tensors(difference: &mut Difference, a: &Tensor, b: &Tensor) {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return difference.disagree();
    }
    match a.dtype() {
        DType::Bytes => {
            for (a, b) in a.blobs().iter().zip(b.blobs()) {
                blobs(difference, a, &b);
            }
        }
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
            let row = a.shape().last().copied().unwrap_or(1);
            scores(difference, &floats(a), &floats(b), row);
        }
        _ => {
            if a.data() != b.data() {
                difference.disagree();
            }
            for (a, b) in integers(a).iter().zip(integers(b)) {
                difference.numbers(*a, b);
            }
        }
    }
}

/// Rows of `row` numbers: the highest of each at the same place, or, in rows of one, close.
fn scores(difference: &mut Difference, a: &[f64], b: &[f64], row: usize) {
    let mut close = true;
    for (a, b) in a.iter().zip(b) {
        close &= difference.numbers(*a, *b);
    }
    let rows = |all: &[f64]| all.chunks(row.max(1)).map(highest).collect::<Vec<_>>();
    let alike = match row {
        0 | 1 => close,
        _ => rows(a) == rows(b),
    };
    if !alike {
        difference.disagree();
    }
}

/// The place of the highest number, the first of equal ones.
fn highest(row: &[f64]) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (place, value) in row.iter().enumerate() {
        if *value > best.1 {
            best = (place, *value);
        }
    }
    best.0
}

fn blobs(difference: &mut Difference, a: &[u8], b: &[u8]) {
    let json = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    match (json(a), json(b)) {
        (Some(a), Some(b)) => values(difference, &a, &b, 0),
        _ if a != b => difference.disagree(),
        _ => {}
    }
}

fn values(difference: &mut Difference, a: &Value, b: &Value, depth: usize) {
    if depth > DEEPEST {
        return difference.disagree();
    }
    match (a, b) {
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            for (key, value) in a {
                match b.get(key) {
                    Some(other) => values(difference, value, other, depth + 1),
                    None => difference.disagree(),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            match (fractions(a), fractions(b)) {
                (Some(a), Some(b)) => scores(difference, &a, &b, a.len()),
                _ => {
                    for (a, b) in a.iter().zip(b) {
                        values(difference, a, b, depth + 1);
                    }
                }
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            let whole = !a.is_f64() && !b.is_f64();
            let (a, b) = (a.as_f64(), b.as_f64());
            let close = match (a, b) {
                (Some(a), Some(b)) => difference.numbers(a, b),
                _ => false,
            };
            if (whole && a != b) || !close {
                difference.disagree();
            }
        }
        (a, b) if a != b => difference.disagree(),
        _ => {}
    }
}

/// The numbers of an array that holds nothing else, at least one of them a fraction.
fn fractions(array: &[Value]) -> Option<Vec<f64>> {
    let any = array.iter().any(Value::is_f64);
    let numbers = array.iter().map(Value::as_f64).collect::<Option<_>>();
    numbers.filter(|_| any)
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F64 => tensor.to_f64().unwrap_or_default(),
        DType::F32 => {
            let values = tensor.to_f32().unwrap_or_default();
            values.into_iter().map(f64::from).collect()
        }
        dtype => {
            let (pairs, _) = tensor.data().as_chunks::<2>();
            let read = |pair: &[u8; 2]| match dtype {
                DType::F16 => half::f16::from_le_bytes(*pair).to_f64(),
                _ => half::bf16::from_le_bytes(*pair).to_f64(),
            };
            pairs.iter().map(read).collect()
        }
    }
}

/// Integers as numbers whose distance can be told; nothing for what are codes and not numbers.
fn integers(tensor: &Tensor) -> Vec<f64> {
    macro_rules! read {
        ($ty:ty) => {{
            let (chunks, _) = tensor.data().as_chunks::<{ size_of::<$ty>() }>();
            let values = chunks
                .iter()
                .map(|chunk| <$ty>::from_le_bytes(*chunk) as f64);
            values.collect()
        }};
    }
    match tensor.dtype() {
        DType::U8 => read!(u8),
        DType::U16 => read!(u16),
        DType::U32 => read!(u32),
        DType::U64 => read!(u64),
        DType::I8 => read!(i8),
        DType::I16 => read!(i16),
        DType::I32 => read!(i32),
        DType::I64 => read!(i64),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn f32s(shape: &[usize], values: &[f32]) -> Named {
        let tensor = Tensor::from_f32(shape.to_vec(), values).unwrap();
        vec![("y".into(), tensor)]
    }

    fn body(text: &str) -> Named {
        vec![("body".into(), Tensor::from_blob(text.as_bytes()).unwrap())]
    }

    fn found(a: &Named, b: &Named) -> (bool, Option<f64>) {
        let difference = compare(a, b);
        (difference.agrees, difference.max_abs)
    }

    #[test]
    fn scores_agree_where_the_highest_is_at_the_same_place() {
        let a = f32s(&[2, 2], &[0.75, 0.25, 0.5, 1.0]);
        let near = f32s(&[2, 2], &[0.5, 0.25, 0.5, 1.0]);
        let other = f32s(&[2, 2], &[0.75, 0.25, 1.0, 0.5]);
        assert_eq!(found(&a, &near), (true, Some(0.25)));
        assert_eq!(found(&a, &other), (false, Some(0.5)));
        let relative = compare(&a, &near).max_rel.unwrap();
        assert!((relative - 1.0 / 3.0).abs() < 1e-9, "{relative}");
    }

    #[test]
    fn a_lone_number_agrees_where_it_is_close() {
        let one = f32s(&[3, 1], &[1.0, 2.0, 3.0]);
        assert!(found(&one, &f32s(&[3, 1], &[1.0, 2.0, 3.001])).0);
        assert!(!found(&one, &f32s(&[3, 1], &[1.0, 2.0, 3.1])).0);
    }

    #[test]
    fn labels_agree_where_they_are_equal() {
        let labels = |values: &[i64]| -> Named {
            let tensor = Tensor::from_i64(vec![values.len()], values).unwrap();
            vec![("label".into(), tensor)]
        };
        assert_eq!(found(&labels(&[1, 2]), &labels(&[1, 2])), (true, Some(0.0)));
        assert_eq!(
            found(&labels(&[1, 2]), &labels(&[1, 7])),
            (false, Some(5.0))
        );
    }

    #[test]
    fn json_agrees_where_all_but_fractions_is_equal() {
        let a = body(r#"{"label": "cat", "score": 0.9, "count": 3}"#);
        assert!(found(&a, &body(r#"{"count": 3, "score": 0.9, "label": "cat"}"#)).0);
        assert!(
            found(
                &a,
                &body(r#"{"label": "cat", "score": 0.9005, "count": 3}"#)
            )
            .0
        );
        assert!(!found(&a, &body(r#"{"label": "dog", "score": 0.9, "count": 3}"#)).0);
        assert!(!found(&a, &body(r#"{"label": "cat", "score": 0.9, "count": 4}"#)).0);
        assert!(!found(&a, &body(r#"{"label": "cat", "score": 0.9}"#)).0);
        let scores = |text: &str| found(&body("[0.1, 0.9]"), &body(text));
        assert!(scores("[0.2, 0.8]").0);
        assert!(!scores("[0.8, 0.2]").0);
        assert!(!scores("[0.2, 0.8, 0]").0);
    }

    #[test]
    fn bodies_that_are_no_json_agree_where_they_are_equal() {
        assert_eq!(found(&body("a{"), &body("a{")), (true, None));
        assert_eq!(found(&body("a{"), &body("b{")), (false, None));
    }

    #[test]
    fn other_shapes_types_and_names_disagree() {
        let a = f32s(&[1, 2], &[1.0, 2.0]);
        assert!(!found(&a, &f32s(&[2], &[1.0, 2.0])).0);
        assert!(!found(&a, &body("[1.0, 2.0]")).0);
        assert!(!found(&a, &vec![]).0);
        assert!(!found(&vec![], &a).0);
    }

    #[test]
    fn what_is_not_a_number_equals_only_itself() {
        let nan = f32s(&[1, 1], &[f32::NAN]);
        assert_eq!(found(&nan, &nan), (true, Some(0.0)));
        assert_eq!(found(&nan, &f32s(&[1, 1], &[1.0])), (false, None));
    }

    proptest! {
        #[test]
        fn an_answer_agrees_with_itself(values in prop::collection::vec(any::<f32>(), 6)) {
            let a = f32s(&[2, 3], &values);
            prop_assert_eq!(found(&a, &a), (true, Some(0.0)));
        }

        #[test]
        fn a_comparison_is_symmetric(
            a in prop::collection::vec(-9.0f32..9.0, 6),
            b in prop::collection::vec(-9.0f32..9.0, 6),
        ) {
            let (a, b) = (f32s(&[2, 3], &a), f32s(&[2, 3], &b));
            prop_assert_eq!(compare(&a, &b), compare(&b, &a));
        }

        #[test]
        fn any_two_texts_can_be_compared(a in ".{0,20}", b in "[\\[\\]{}0-9.,\":a]{0,20}") {
            let same = compare(&body(&a), &body(&b)).agrees;
            prop_assert!(same || a != b);
        }
    }
}
