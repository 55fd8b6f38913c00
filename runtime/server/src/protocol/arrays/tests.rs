use proptest::prelude::*;

use super::*;

fn text(tensor: &Tensor) -> String {
    let mut out = Vec::new();
    write_nested(&mut out, tensor).unwrap();
    String::from_utf8(out).unwrap()
}

/// Any tensor of any dtype whose elements JSON can carry.
fn tensors() -> impl Strategy<Value = Tensor> {
    let shapes = proptest::collection::vec(0usize..4, 0..4);
    (0..DTYPES.len(), shapes, any::<u64>()).prop_map(|(dtype, shape, seed)| {
        let dtype = DTYPES[dtype];
        let count: usize = shape.iter().product();
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state ^ (state >> 29)).to_le_bytes()
        };
        let mut data = Vec::new();
        for _ in 0..count {
            match dtype {
                DType::Bool => data.push(next()[7] & 1),
                DType::Bytes => {
                    let text = format!("\"{}\\ é\n", next()[7]);
                    data.extend((text.len() as u32).to_le_bytes());
                    data.extend(text.as_bytes());
                }
                _ => data.extend_from_slice(&next()[..dtype.size().unwrap()]),
            }
        }
        Tensor::new(dtype, shape, data).unwrap()
    })
}

/// All NaNs are one in JSON.
fn same(a: &Tensor, b: &Tensor) -> bool {
    a == b || (a.dtype() == b.dtype() && a.shape() == b.shape() && text(a) == text(b))
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(tensor in tensors()) {
        let json = text(&tensor);
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
        // Below an empty dimension, JSON can't show how the rest was sized.
        if !tensor.is_empty() {
            prop_assert!(same(&nested(&json, tensor.dtype()).unwrap(), &tensor));
        }
        let mut flat = Vec::new();
        write_flat(&mut flat, &tensor).unwrap();
        for json in [String::from_utf8(flat).unwrap(), json] {
            let read = shaped(&json, tensor.dtype(), tensor.shape().to_vec());
            if !(json == "[]" || tensor.shape().is_empty()) || !tensor.is_empty() {
                prop_assert!(same(&read.unwrap(), &tensor), "{json}");
            }
        }
    }

    #[test]
    fn any_json_is_read_or_refused_without_a_panic(json in "[\\[\\]0-9,\" {}a-]{0,30}") {
        if serde_json::from_str::<&serde_json::value::RawValue>(&json).is_ok() {
            for dtype in DTYPES {
                let _ = nested(&json, dtype);
            }
        }
    }
}

#[test]
fn a_misfit_says_expected_and_found() {
    let said = |json, dtype| nested(json, dtype).unwrap_err().to_string();
    assert_eq!(
        said("[1, 300]", DType::U8),
        "element 1: expected integers from 0 to 255, found 300"
    );
    assert_eq!(
        said("[1, \"a\"]", DType::F32),
        "element 1: expected numbers of 32 bits, found \"a\""
    );
    assert_eq!(
        said("[[1, 2], [3]]", DType::F32),
        "the arrays are ragged: at element 3, a row differs in length or depth"
    );
    assert!(matches!(
        nested("[1, [2]]", DType::F32),
        Err(ArrayError::Ragged { at: 1 })
    ));
    assert!(matches!(
        nested("[[], 1]", DType::F32),
        Err(ArrayError::Ragged { at: 0 })
    ));
    assert!(matches!(
        nested("1e39", DType::F32),
        Err(ArrayError::Element { .. })
    ));
    assert!(matches!(
        nested("1e6", DType::F16),
        Err(ArrayError::Element { .. })
    ));
    let error = shaped("[1, 2]", DType::F32, vec![1, 3])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "shape [1, 3] needs 3 elements, `data` holds 2");
    let error = shaped("[[1], [2]]", DType::F32, vec![1, 2])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "`shape` is [1, 2], but `data` is nested as [2, 1]");
}

#[test]
fn numbers_that_json_lacks_travel_as_strings() {
    let tensor = Tensor::from_f32(vec![3], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]).unwrap();
    assert_eq!(text(&tensor), r#"["NaN","Infinity","-Infinity"]"#);
    let read = nested(&text(&tensor), DType::F32)
        .unwrap()
        .to_f32()
        .unwrap();
    assert!(read[0].is_nan() && read[1] == f32::INFINITY && read[2] == f32::NEG_INFINITY);
}

#[test]
fn a_huge_empty_tensor_is_written_short() {
    let tensor = Tensor::new(DType::F32, vec![1 << 40, 0], vec![]).unwrap();
    assert_eq!(text(&tensor), "[]");
}

#[test]
fn whole_floats_pass_as_integers_and_bytes_must_be_text() {
    assert_eq!(
        nested("[1.0, 2e2]", DType::I64).unwrap().to_i64(),
        Some(vec![1, 200])
    );
    assert!(nested("[1.5]", DType::I64).is_err());
    let blob = Tensor::from_blob(&[0xff]).unwrap();
    assert_eq!(write_nested(&mut Vec::new(), &blob), Err(NotText { at: 0 }));
}

#[test]
fn a_long_row_is_written_and_read_as_short_ones_are() {
    let values: Vec<f32> = (0..200_000).map(|n| (n as f32).sin() * 1e3).collect();
    let long = Tensor::from_f32(vec![values.len()], &values).unwrap();
    let json = text(&long);
    assert!(json.len() > 2 * slices::SLICE);
    let short: Vec<String> = values
        .chunks(1000)
        .map(|values| text(&Tensor::from_f32(vec![values.len()], values).unwrap()))
        .map(|row| row[1..row.len() - 1].to_owned())
        .collect();
    assert!(json == format!("[{}]", short.join(",")));
    for json in [
        json.clone(),
        format!("[ {} ]", short.join(" ,\n\t ")),
        json.replace(',', ", "),
    ] {
        assert!(nested(&json, DType::F32).unwrap() == long);
    }
    let rows = nested(&format!("[{json},{json}]"), DType::F32).unwrap();
    assert_eq!(rows.shape(), [2, values.len()]);
    assert!(rows.data()[..long.data().len()] == long.data()[..]);
    assert!(rows.data()[long.data().len()..] == long.data()[..]);
}

#[test]
fn what_is_wrong_in_a_long_row_is_found_where_it_is() {
    let good = vec!["0.25"; 200_000];
    let read = |row: &[&str], end: &str| nested(&format!("[{}{end}", row.join(",")), DType::F32);
    for at in [0, 1, 99_999, 100_000, 199_999] {
        let mut row = good.clone();
        row[at] = "1e39";
        assert!(
            matches!(read(&row, "]"), Err(ArrayError::Element { at: found, .. }) if found == at)
        );
        row[at] = "[1]";
        // A row of arrays is ragged where the first number stands in it.
        let ragged = at.max(1);
        assert!(
            matches!(read(&row, "]"), Err(ArrayError::Ragged { at: found }) if found == ragged)
        );
        row[at] = "\"NaN\"";
        let tensor = read(&row, "]").unwrap().to_f32().unwrap();
        assert_eq!(tensor.iter().position(|value| value.is_nan()), Some(at));
        row[at] = "";
        assert!(read(&row, "]").is_err());
    }
    assert!(matches!(
        read(&good, ",]"),
        Err(ArrayError::Malformed { .. })
    ));
    assert!(matches!(read(&good, ""), Err(ArrayError::BreaksOff { .. })));
    // What strings hold divides nothing.
    let words = vec![r#""a,b]""#; 100_000];
    let blobs = nested(&format!("[{}]", words.join(",")), DType::Bytes).unwrap();
    assert!(
        blobs.len() == words.len() && blobs.blobs().iter().all(|blob| blob.as_ref() == b"a,b]")
    );
}
