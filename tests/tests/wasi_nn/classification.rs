//! Image classification as the programs do it that other hosts are tested with.

use serde_json::json;

use super::*;

const SIDE: usize = 224;

/// An image as the model takes it, `[1, 3, 224, 224]`: lines of text, more or less.
fn image() -> Vec<f32> {
    let rows = (0..3 * SIDE * SIDE).map(|at| (at / SIDE % SIDE, at % SIDE));
    let ink = |(row, column): (usize, usize)| row % 14 < 4 && (row * 31 + column * 17) % 23 < 15;
    rows.map(|pixel| if ink(pixel) { -1.9 } else { 2.2 })
        .collect()
}

fn bytes(image: &[f32]) -> Vec<u8> {
    image.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The classes as a version that is the model alone gives them, the most likely first.
async fn expected(server: &Server, model: Vec<u8>) -> Vec<(usize, f64)> {
    server.deploy("model", &Bundle::of_model(model)).await;
    let x = json!({"name": "x", "shape": [1, 3, SIDE, SIDE], "datatype": "FP32", "data": image()});
    let answer = server.infer("model", &json!({"inputs": [x]})).await;
    let answer = answer.expect(200).json();
    let scores = answer["outputs"][0]["data"].as_array().unwrap().iter();
    let mut classes: Vec<_> = scores
        .map(|score| score.as_f64().unwrap())
        .enumerate()
        .collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes
}

/// The last line of a program: `classes: [(2, 0.9), …]`.
fn classes(text: &str) -> Vec<(usize, f64)> {
    let (_, list) = text.split_once("classes: ").expect("it names the classes");
    let json = list.replace('(', "[").replace(')', "]");
    serde_json::from_str(&json).expect("they are a list of pairs")
}

#[track_caller]
fn same(found: &[(usize, f64)], expected: &[(usize, f64)]) {
    assert_eq!(found.len(), expected.len());
    for ((class, score), (expected_class, expected_score)) in found.iter().zip(expected) {
        assert_eq!(class, expected_class);
        assert!(
            (score - expected_score).abs() < 1e-4,
            "{score} {expected_score}"
        );
    }
}

/// By bytes that the program reads from a file, and by name with the image on standard input, in
/// both ABIs: four programs, one answer.
#[tokio::test]
async fn programs_of_both_abis_classify_as_the_model_alone_does() {
    let model = guests::model("orientation", "orientation.onnx");
    let server = Server::start().await;
    let expected = expected(&server, model.clone()).await;
    for kind in ["classic", "component"] {
        let by_bytes = Bundle::of_component(guests::program(&format!("{kind}_classification")))
            .with_lines("load_models = \"cpu\"\n[assets]")
            .with_lines("\"fixture/model.onnx\" = \"fixture/model.onnx\"")
            .with_lines("\"fixture/tensor.rgb\" = \"fixture/tensor.rgb\"")
            .with_file("fixture/model.onnx", model.clone())
            .with_file("fixture/tensor.rgb", bytes(&image()));
        server.deploy(&format!("{kind}-bytes"), &by_bytes).await;
        let answer = server
            .invoke(&format!("{kind}-bytes"), "")
            .await
            .expect(200);
        same(&classes(&answer.text()), &expected);

        let named = guests::program(&format!("{kind}_classification_named"));
        let by_name = Bundle::of_component(named)
            .with_lines("args = [\"orientation\"]")
            .with_model("orientation", model.clone());
        server.deploy(&format!("{kind}-name"), &by_name).await;
        let function = format!("{kind}-name");
        let answer = server.invoke(&function, bytes(&image())).await.expect(200);
        same(&classes(&answer.text()), &expected);
    }
    server.stop().await;
}
