//! Sets the long arrays of a JSON request aside. serde would walk through the numbers of each
//! input's `data` only to find its end, and then they would be walked through again to be read; so
//! they are cut out first, by looking for brackets alone, and numbered in their place. What is left
//! is small and read by serde; what was cut out is read once, by `arrays`, which checks its form.

use memchr::{memchr2, memchr3};

use crate::problem::Failure;
use crate::protocol::arrays::blanks_end;

/// The deepest nesting that is walked into outside of `data`; that of serde_json.
const MAX_DEPTH: usize = 128;

/// A request without its arrays.
#[derive(Debug, PartialEq)]
pub struct Skimmed<'a> {
    /// The request, with the number of a cut-out value where each `inputs[…].data` stood.
    pub head: String,
    /// What was cut out.
    pub values: Vec<&'a str>,
}

/// Cuts out the values of `data` in the objects of the list `inputs`. JSON that is not well formed
/// is cut somehow: what reads the parts refuses it.
///
/// # Errors
/// A `data` that doesn't end, or nesting that is too deep.
pub fn skim(json: &str) -> Result<Skimmed<'_>, Failure> {
    let bytes = json.as_bytes();
    let (mut head, mut values) = (String::new(), Vec::new());
    // Where in the request: the brackets that are open, and whether a key comes next.
    let (mut open, mut key_next, mut in_inputs) = (Vec::new(), false, false);
    let (mut at, mut copied) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = string_end(bytes, at);
                let key = json.get(at + 1..end - 1).filter(|_| key_next);
                key_next = false;
                at = end;
                match key {
                    Some(key) if open == *b"{" => in_inputs = key == "inputs",
                    Some("data") if in_inputs && open == *b"{[{" => {
                        let colon = blanks_end(bytes, at);
                        if bytes.get(colon) != Some(&b':') {
                            continue;
                        }
                        let start = blanks_end(bytes, colon + 1);
                        let end = value_end(bytes, start);
                        let (before, value) = (json.get(copied..start), json.get(start..end));
                        let (Some(before), Some(value)) = (before, value) else {
                            return Err(torn());
                        };
                        head.push_str(before);
                        head.push_str(&values.len().to_string());
                        values.push(value);
                        (at, copied) = (end, end);
                    }
                    _ => {}
                }
                continue;
            }
            b'{' | b'[' => {
                if open.len() >= MAX_DEPTH {
                    return Err(Failure::BadBody(format!(
                        "the request is nested deeper than {MAX_DEPTH}"
                    )));
                }
                open.push(byte);
                key_next = byte == b'{';
            }
            b'}' | b']' => {
                open.pop();
                key_next = false;
            }
            b',' => key_next = open.last() == Some(&b'{'),
            _ => {}
        }
        at += 1;
    }
    head.push_str(json.get(copied..).unwrap_or_default());
    Ok(Skimmed { head, values })
}

fn torn() -> Failure {
    Failure::BadBody("not an inference request of the V2 protocol: a value breaks off".into())
}

/// Behind the string that begins at `start`, or behind the text where it has no end.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match memchr2(b'"', b'\\', rest) {
            Some(found) if rest.get(found) == Some(&b'"') => return at + found + 1,
            // What is escaped can't end it.
            Some(found) => at += found + 2,
            None => return bytes.len().max(start + 2),
        }
    }
}

/// Behind the value that begins at `start`.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let (opens, closes) = match bytes.get(start) {
        Some(b'"') => return string_end(bytes, start),
        Some(b'[') => (b'[', b']'),
        Some(b'{') => (b'{', b'}'),
        _ => {
            let rest = bytes.get(start..).unwrap_or_default();
            let end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            return start + rest.iter().position(end).unwrap_or(rest.len());
        }
    };
    let (mut at, mut depth) = (start, 0usize);
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(found) = memchr3(opens, closes, b'"', rest) else {
            return bytes.len() + 1;
        };
        at += found;
        match bytes.get(at) {
            Some(b'"') => at = string_end(bytes, at),
            Some(byte) if *byte == opens => {
                depth += 1;
                at += 1;
            }
            _ => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return at;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(json: &str) -> (String, Vec<&str>) {
        let Skimmed { head, values } = skim(json).unwrap();
        (head, values)
    }

    #[test]
    fn only_the_data_of_inputs_is_cut_out() {
        let (head, values) = cut(
            r#"{"data": [0], "outputs": [{"data": [1]}], "inputs" : [{"name": "data", "data" : [[1, 2], [3]],
               "parameters": {"data": [2]}}, {"data":["]\"}", "\\"],"shape":[2]}], "x": {"inputs": [{"data": 3}]}}"#,
        );
        assert_eq!(values, ["[[1, 2], [3]]", r#"["]\"}", "\\"]"#]);
        assert_eq!(
            head,
            r#"{"data": [0], "outputs": [{"data": [1]}], "inputs" : [{"name": "data", "data" : 0,
               "parameters": {"data": [2]}}, {"data":1,"shape":[2]}], "x": {"inputs": [{"data": 3}]}}"#
        );
    }

    #[test]
    fn values_of_other_kinds_end_where_they_do() {
        let (head, values) =
            cut(r#"{"inputs":[{"data":true},{"data":"a,]"},{"data":{"a":"}"}},{"data":-1.5 }]}"#);
        assert_eq!(values, ["true", r#""a,]""#, r#"{"a":"}"}"#, "-1.5"]);
        assert_eq!(
            head,
            r#"{"inputs":[{"data":0},{"data":1},{"data":2},{"data":3 }]}"#
        );
    }

    #[test]
    fn what_breaks_off_or_nests_too_deep_is_refused() {
        assert!(skim(r#"{"inputs": [{"data": [1, [2]"#).is_err());
        assert!(skim(&"[".repeat(500)).is_err());
        assert!(skim(r#"{"inputs": [{"data"#).is_ok_and(|skimmed| skimmed.values.is_empty()));
    }

    proptest! {
        #[test]
        fn any_text_is_cut_without_a_panic_and_nothing_is_lost(text in "[\\[\\]{}\",:\\\\ a1é]{0,40}") {
            let json = format!(r#"{{"inputs":[{{"data":{text}}}]}}"#);
            if let Ok(Skimmed { head, values }) = skim(&json) {
                let kept = head.len() + values.iter().map(|value| value.len()).sum::<usize>();
                prop_assert_eq!(kept, json.len() + values.len());
            }
        }
    }
}
