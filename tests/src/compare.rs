//! Whether an answer is the expected one: numbers to a tolerance, everything else exactly.

use serde_json::Value;

/// Relative tolerance of numbers.
pub const RELATIVE: f64 = 1e-3;
/// Absolute tolerance, for numbers near zero.
pub const ABSOLUTE: f64 = 1e-5;

/// Fails the test where `found` differs from `expected`, naming the place.
#[track_caller]
pub fn assert_close(found: &Value, expected: &Value) {
    if let Err(difference) = difference("$", found, expected) {
        panic!("{difference}");
    }
}

fn difference(place: &str, found: &Value, expected: &Value) -> Result<(), String> {
    let differ = |what: &str| {
        Err(format!(
            "{place}: {what}: expected {expected}, found {found}"
        ))
    };
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) => {
            let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) else {
                return differ("not numbers");
            };
            if (a - b).abs() <= ABSOLUTE + RELATIVE * b.abs() {
                Ok(())
            } else {
                differ("too far")
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return differ("another length");
            }
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.try_for_each(|(i, (a, b))| difference(&format!("{place}[{i}]"), a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            if !a.keys().eq(b.keys()) {
                return differ("other members");
            }
            b.iter()
                .try_for_each(|(key, b)| difference(&format!("{place}.{key}"), &a[key], b))
        }
        _ if found == expected => Ok(()),
        _ => differ("another value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_may_differ_by_the_tolerance_and_no_more() {
        assert!(difference("$", &json!({"a": [1.0009]}), &json!({"a": [1.0]})).is_ok());
        let far = difference("$", &json!({"a": [1.01]}), &json!({"a": [1.0]})).unwrap_err();
        assert!(far.contains("$.a[0]"), "{far}");
        assert!(difference("$", &json!(1e-6), &json!(0.0)).is_ok());
        assert!(difference("$", &json!(1e-4), &json!(0.0)).is_err());
    }

    #[test]
    fn shapes_and_names_must_be_the_same() {
        assert!(difference("$", &json!([1, 2]), &json!([1])).is_err());
        assert!(difference("$", &json!({"a": 1}), &json!({"b": 1})).is_err());
        assert!(difference("$", &json!("x"), &json!("y")).is_err());
    }
}
