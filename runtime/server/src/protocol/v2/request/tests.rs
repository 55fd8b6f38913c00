use axum::body::Body;
use axum::http::HeaderValue;
use firebox_engine::TensorSpec;
use proptest::prelude::*;

use super::*;

fn spec(name: &str, dtype: DType, shape: Vec<Dim>) -> Signature {
    Signature {
        inputs: vec![TensorSpec {
            name: name.into(),
            dtype,
            shape: Some(shape),
        }],
        outputs: vec![],
    }
}

fn headers(length: &str) -> HeaderMap {
    let value = HeaderValue::from_str(length).unwrap();
    HeaderMap::from_iter([(HEADER_LENGTH.parse().unwrap(), value)])
}

/// Reads JSON with bytes behind it, in frames of so many bytes.
async fn binary(json: &str, tail: &[u8], frame: usize) -> Result<(Question, Wanted), Failure> {
    let whole = [json.as_bytes(), tail].concat();
    let frames: Vec<_> = whole.chunks(frame).map(<[u8]>::to_vec).collect();
    let frames = frames.into_iter().map(Ok::<_, std::io::Error>);
    let body = Body::from_stream(futures::stream::iter(frames));
    let headers = headers(&json.len().to_string());
    let body = Pieces::new(&HeaderMap::new(), body, 1 << 20).unwrap();
    read(&headers, body, &Signature::default()).await
}

async fn said(json: &str, tail: &[u8]) -> String {
    binary(json, tail, 1000).await.unwrap_err().to_string()
}

#[test]
fn members_come_in_any_order_and_data_flat_or_nested() {
    let (question, wanted) = decode(
        r#"{"outputs": [{"name": "y", "parameters": {"binary_data": false}}, {"name": "z"}],
            "parameters": {"a": true, "b": 3, "c": 0.5, "d": "x", "binary_data_output": true},
            "inputs": [
              {"data": [[1, 2], [3, 4]], "datatype": "INT64", "shape": [2, 2], "name": "ids"},
              {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a", "b\u00e9"]}],
            "id": "42"}"#,
    )
    .unwrap();
    let output = |name: &str, binary| WantedOutput {
        name: name.into(),
        binary,
    };
    assert_eq!(
        wanted,
        Wanted {
            outputs: vec![output("y", Some(false)), output("z", None)],
            binary: true,
        }
    );
    assert_eq!(question.id.as_deref(), Some("42"));
    let parameters: Vec<_> = question.parameters.into_iter().map(|(_, v)| v).collect();
    let text = Parameter::Text("x".into());
    let (flag, int) = (Parameter::Bool(true), Parameter::Int64(3));
    assert_eq!(parameters, [flag, int, Parameter::Double(0.5), text]);
    let ids = Tensor::from_i64(vec![2, 2], &[1, 2, 3, 4]).unwrap();
    assert_eq!(question.inputs[0].1, ids);
    let texts = question.inputs[1].1.blobs();
    assert_eq!(texts, ["a".as_bytes(), "bé".as_bytes()]);
}

#[test]
fn an_output_is_asked_for_once() {
    let asked = |outputs: &str| {
        let asked = decode(&format!(r#"{{"inputs": [], "outputs": [{outputs}]}}"#));
        asked.map(|(_, wanted)| wanted.outputs.len())
    };
    assert_eq!(asked(r#"{"name": "y"}, {"name": "z"}"#).unwrap(), 2);
    let twice = vec![r#"{"name": "y"}"#; 100_000].join(",");
    let failure = asked(&twice).unwrap_err();
    assert_eq!(failure.status(), 400);
    let expected = "output `y` is asked for twice; name each output once";
    assert_eq!(failure.to_string(), expected);
}

#[test]
fn whole_numbers_as_parameters_are_exact_or_refused() {
    let given = |number: &str| {
        let json = format!(r#"{{"inputs": [], "parameters": {{"p": {number}}}}}"#);
        let mut question = decode(&json).map_err(|failure| failure.to_string())?.0;
        Ok::<_, String>(question.parameters.remove(0).1)
    };
    let most = Parameter::Int64(i64::MAX);
    assert_eq!(given("9223372036854775807"), Ok(most));
    let least = Parameter::Int64(i64::MIN);
    assert_eq!(given("-9223372036854775808"), Ok(least));
    assert_eq!(given("1e30"), Ok(Parameter::Double(1e30)));
    assert_eq!(given("-0"), Ok(Parameter::Double(-0.0)));
    for number in [
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
    ] {
        let expected = format!(
            "parameter `p`: {number} is over the range of 64 signed bits; send it as a string"
        );
        assert_eq!(given(number), Err(expected));
    }
}

#[tokio::test]
async fn null_stands_for_what_is_left_out() {
    let json = r#"{"id": null, "parameters": null, "outputs": [{"name": "y", "parameters": null}],
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": null, "data": [2]}]}"#;
    let (question, wanted) = decode(json).unwrap();
    assert_eq!((question.id, question.parameters), (None, vec![]));
    assert_eq!(question.inputs[0].1.to_f32(), Some(vec![2.0]));
    assert_eq!((wanted.outputs.len(), wanted.binary), (1, false));
    let none = decode(&json.replace("[2]", "null"))
        .unwrap_err()
        .to_string();
    assert!(none.starts_with("input `x`: it has no `data`"), "{none}");
    let bytes = json.replace(
        r#""parameters": null, "data": [2]"#,
        r#""parameters": {"binary_data_size": 4}, "data": null"#,
    );
    let (question, _) = binary(&bytes, &2f32.to_le_bytes(), 1000).await.unwrap();
    assert_eq!(question.inputs[0].1.to_f32(), Some(vec![2.0]));
}

#[test]
fn what_is_wrong_with_an_input_names_it() {
    let said = |shape, datatype, data| {
        let input =
            format!(r#"{{"name": "x", "shape": {shape}, "datatype": "{datatype}", {data}}}"#);
        let json = format!(r#"{{"inputs": [{input}]}}"#);
        decode(&json).unwrap_err().to_string()
    };
    for (shape, datatype, data, expected) in [
        (
            "[1, 3]",
            "FP32",
            r#""data": [1, 2]"#,
            "input `x`: shape [1, 3] needs 3 elements, `data` holds 2",
        ),
        (
            "[1]",
            "FLOAT",
            r#""data": [1]"#,
            "input `x`: unknown datatype `FLOAT`; expected one of BOOL",
        ),
        (
            "[-1]",
            "FP32",
            r#""data": [1]"#,
            "input `x`: dimension 0 of `shape` is -1; expected 0 or more",
        ),
        (
            "[1]",
            "FP32",
            r#""parameters": {}"#,
            "input `x`: it has no `data`, and no bytes",
        ),
        (
            "[1]",
            "FP32",
            r#""data": "#,
            "input `x`: the arrays break off",
        ),
        (
            "[1]",
            "FP32",
            r#""data": [1"#,
            "not an inference request of the V2 protocol",
        ),
        (
            "[1]",
            "FP32",
            r#""data": [1 2]"#,
            "input `x`: the arrays are not well formed",
        ),
        (
            "[4611686018427387904, 4]",
            "FP32",
            r#""data": []"#,
            "input `x`: shape",
        ),
        (
            "[1]",
            "FP32",
            r#""data": [1], "parameters": {"binary_data_size": 4}"#,
            "input `x`: it has a `binary_data_size`, but the request is JSON alone",
        ),
        (
            "[1]",
            "FP32",
            r#""parameters": {"shared_memory_region": "r"}"#,
            "input `x`: the parameter `shared_memory_region` belongs to an extension",
        ),
    ] {
        let found = said(shape, datatype, data);
        assert!(found.starts_with(expected), "{found}");
    }
    for json in [r#"{"inputs": 3}"#, "[null, {}, []]", "", "{}", "7"] {
        let failure = decode(json).unwrap_err();
        assert_eq!(failure.status(), 400, "{json}: {failure}");
    }
}

#[tokio::test]
async fn bytes_behind_the_json_are_the_inputs_that_have_a_size_in_their_order() {
    let json = r#"{"inputs": [
        {"name": "a", "shape": [2], "datatype": "INT32", "parameters": {"binary_data_size": 8}},
        {"name": "b", "shape": [1], "datatype": "FP32", "data": [1.5]},
        {"name": "c", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 10}}]}"#;
    let tail = [1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, b'h', b'i', 0, 0, 0, 0];
    for frame in [1, 3, 8, 1000] {
        let (question, _) = binary(json, &tail, frame).await.unwrap();
        let inputs: BTreeMap<_, _> = question.inputs.into_iter().collect();
        assert_eq!(inputs["a"].to_i32(), Some(vec![1, 2]));
        assert_eq!(inputs["b"].to_f32(), Some(vec![1.5]));
        assert_eq!(inputs["c"].blobs(), [&b"hi"[..], b""]);
        assert_eq!(inputs["c"].shape(), [2, 1]);
    }
}

#[tokio::test]
async fn sizes_that_lie_are_refused_with_what_was_expected() {
    let input = |size: &str| {
        format!(
            r#"{{"inputs": [{{"name": "a", "shape": [2], "datatype": "INT32", "parameters": {{"binary_data_size": {size}}}}}]}}"#
        )
    };
    let eight = input("8");
    assert_eq!(
        said(&eight, &[0; 7]).await,
        "input `a`: `binary_data_size` says 8 bytes, but the body ends before"
    );
    let more = said(&eight, &[0; 9]).await;
    assert!(
        more.starts_with("at least 1 bytes are left behind the last input"),
        "{more}"
    );
    assert_eq!(
        said(&input("7"), &[0; 7]).await,
        "input `a`: INT32 of shape [2] has 8 bytes, `binary_data_size` says 7"
    );
    for size in ["-1", "\"8\"", "1e3", "null"] {
        let said = said(&input(size), &[0; 8]).await;
        assert!(said.contains("expected a number of bytes"), "{said}");
    }
    let both = eight.replace("\"parameters\"", "\"data\": [1, 2], \"parameters\"");
    assert!(said(&both, &[0; 8]).await.contains("both `data`"));
    let huge = r#"{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES",
        "parameters": {"binary_data_size": 18446744073709551615}}]}"#;
    assert!(said(huge, &[0; 8]).await.contains("the body ends before"));
    let body = || Pieces::of(Bytes::from_static(b"{}"));
    for length in ["3", "99999999999999999999", "-1", "two", "+2", ""] {
        let failure = read(&headers(length), body(), &Signature::default()).await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.status(), 400, "{failure}");
        assert!(
            failure
                .to_string()
                .contains("Inference-Header-Content-Length")
        );
    }
}

#[tokio::test]
async fn a_body_without_json_is_the_only_input() {
    let any = || vec![Dim::Any, Dim::Fixed(2)];
    let ask = |signature: Signature, body: &'static [u8]| async move {
        let (headers, body) = (headers("0"), Pieces::of(Bytes::from_static(body)));
        let asked = read(&headers, body, &signature).await;
        asked.map(|(question, wanted)| (question.inputs, wanted.binary))
    };
    let four = ask(spec("x", DType::U8, any()), &[1, 2, 3, 4]).await;
    let (inputs, binary) = four.unwrap();
    let tensor = Tensor::new(DType::U8, vec![2, 2], vec![1, 2, 3, 4]).unwrap();
    assert_eq!(inputs, [("x".into(), tensor)]);
    assert!(binary);
    let text = ask(spec("t", DType::Bytes, vec![Dim::Any]), b"hi").await;
    assert_eq!(text.unwrap().0[0].1.blobs(), [&b"hi"[..]]);
    for (signature, body) in [
        (spec("x", DType::U8, any()), &[1, 2, 3][..]),
        (spec("x", DType::F32, any()), &[1, 2, 3, 4]),
        (spec("x", DType::U8, vec![Dim::Any, Dim::Any]), &[1, 2]),
        (spec("x", DType::U8, vec![Dim::Fixed(0), Dim::Any]), &[1]),
        (Signature::default(), &[1]),
    ] {
        let failure = ask(signature, body).await.unwrap_err();
        assert_eq!(failure.status(), 400, "{failure}");
    }
}

/// Requests with bytes changed, cut and repeated: they are read or refused, and never more.
#[tokio::test]
async fn mutations_of_a_request_never_panic() {
    let json = r#"{"id":"1","inputs":[{"name":"a","shape":[2],"datatype":"INT32","parameters":{"binary_data_size":8}},{"name":"b","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":10}},{"name":"c","shape":[1,2],"datatype":"BOOL","data":[[true,false]]}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;
    let tail = [1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, b'h', b'i', 0, 0, 0, 0];
    let whole = [json.as_bytes(), &tail].concat();
    let signature = spec("x", DType::U8, vec![Dim::Any]);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: usize| {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let mut read_well = 0;
    for _ in 0..20_000 {
        let mut mutant = whole.clone();
        for _ in 0..1 + draw(4) {
            if mutant.is_empty() {
                break;
            }
            let at = draw(mutant.len());
            match draw(4) {
                0 => mutant[at] = draw(256) as u8,
                1 => mutant[at] = b"[]{}\",:0123456789-e\\"[draw(20)],
                2 if draw(4) == 0 => mutant.truncate(at),
                _ => {
                    let part = mutant[at..(at + draw(8)).min(mutant.len())].to_vec();
                    mutant.splice(at..at, part);
                }
            }
        }
        let length = match draw(4) {
            0 => draw(mutant.len() + 10),
            _ => json.len(),
        };
        let headers = headers(&length.to_string());
        match read(&headers, Pieces::of(mutant.into()), &signature).await {
            Ok(_) => read_well += 1,
            Err(failure) => assert!(failure.status().is_client_error(), "{failure}"),
        }
    }
    assert!(read_well > 100, "{read_well} were read");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}\",:a-z0-9 ]{0,80}") {
        if let Err(failure) = decode(&text) {
            prop_assert!(failure.status().is_client_error());
        }
    }
}
