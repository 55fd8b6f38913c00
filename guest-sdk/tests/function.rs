//! What `#[function]` makes of arguments, answers and state.

use std::cell::Cell;

use firebox_sdk::{
    AnyTensor, Bytes, DType, Error, ErrorCode, Function, Json, Outputs, Parameters, Request,
    Response, Result, Tensor, TensorSpec, call, function,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Ask {
    words: Vec<String>,
}

#[derive(Serialize)]
struct Told {
    longest: String,
}

#[function]
fn longest(Json(ask): Json<Ask>) -> Result<Json<Told>> {
    let longest = ask.words.into_iter().max_by_key(String::len);
    Ok(Json(Told {
        longest: longest.ok_or_else(|| Error::invalid_input("no words"))?,
    }))
}

#[function]
fn reverse(body: Bytes) -> Vec<u8> {
    body.iter().rev().copied().collect()
}

#[function(output = [_, 2])]
fn pairs(#[shape(_)] left: Tensor<f32>, #[shape(_)] right: Tensor<f32>) -> Result<Tensor<f32>> {
    let zipped = left
        .data()
        .iter()
        .zip(right.data())
        .flat_map(|(&l, &r)| [l, r]);
    Tensor::new([left.data().len(), 2], zipped.collect::<Vec<_>>())
}

#[function(outputs = [count: i64[], "is.even": bool[1]])]
fn count(text: String, parameters: Parameters) -> Result<Outputs> {
    let count = text
        .matches(&parameters.get_or("of", "a".to_string())?)
        .count() as i64;
    Ok(Outputs::new((
        ("count", Tensor::scalar(count)),
        ("is.even", Tensor::new([1], [count % 2 == 0])?),
    )))
}

#[function(inputs = [r#type: i32[1]])]
fn echo(request: Request) -> Response {
    Response::body(
        format!("{:?}", request.input("type").map(|t| &t.data)),
        "text/plain",
    )
}

#[function(outputs = [count: i64[]])]
fn liar() -> Outputs {
    Outputs::new([("count", Tensor::scalar(1f32))])
}

thread_local!(static MADE: Cell<u32> = const { Cell::new(0) });

struct Greeting(String);

fn greeting() -> Result<Greeting> {
    MADE.set(MADE.get() + 1);
    Ok(Greeting("hello".into()))
}

#[function(init = greeting)]
fn greet(greeting: &Greeting, name: String) -> String {
    format!("{} {name}", greeting.0)
}

fn broken() -> Result<Greeting> {
    Err(Error::internal("no greeting today"))
}

#[function(init = broken)]
fn greet_never(greeting: &Greeting) -> String {
    greeting.0.clone()
}

fn text(response: &Response) -> &str {
    std::str::from_utf8(response.as_body().unwrap()).unwrap()
}

fn refused<F: Function>(request: Request) -> (ErrorCode, String) {
    let error = call::<F>(request).unwrap_err();
    (error.code(), error.message().into())
}

#[test]
fn json_goes_in_and_out_with_its_media_type() {
    let response = call::<longest>(Request::from_body(r#"{"words": ["a", "bcd", "ef"]}"#)).unwrap();
    assert_eq!(text(&response), r#"{"longest":"bcd"}"#);
    assert_eq!(response.parameters.content_type(), Some("application/json"));
}

#[test]
fn a_body_that_is_not_the_expected_json_is_the_callers_fault() {
    let (code, message) = refused::<longest>(Request::from_body(r#"{"word": []}"#));
    assert_eq!(code, ErrorCode::InvalidInput);
    assert_eq!(
        message,
        "the body isn't the expected JSON: missing field `words` at line 1 column 12"
    );
}

#[test]
fn text_that_is_not_utf8_is_refused_with_the_place() {
    let (code, message) = refused::<count>(Request::from_body(b"ab\xffc"));
    assert_eq!(code, ErrorCode::InvalidInput);
    assert_eq!(
        message,
        "expected text in UTF-8, found a byte that isn't at offset 2"
    );
}

#[test]
fn bytes_come_as_they_are() {
    let response = call::<reverse>(Request::from_body([1, 2, 255])).unwrap();
    assert_eq!(response.as_body(), Some(&[255, 2, 1][..]));
    assert_eq!(
        call::<reverse>(Request::from_body([])).unwrap().as_body(),
        Some(&[][..])
    );
}

#[test]
fn tensors_are_found_by_the_names_of_the_arguments() {
    let ones = Tensor::new([2], [1f32, 1.5]).unwrap();
    let twos = Tensor::new([2], [2f32, 2.5]).unwrap();
    let request = Request::from_tensors([("right", twos), ("left", ones)]);
    let mut response = call::<pairs>(request).unwrap();
    let output = response.outputs.take::<f32>("output").unwrap();
    assert_eq!(
        (output.shape(), output.data()),
        (&[2, 2][..], &[1.0, 2.0, 1.5, 2.5][..])
    );
}

#[test]
fn a_tensor_that_does_not_fit_is_the_callers_fault() {
    let given = [("left", AnyTensor::from(Tensor::scalar(1i64)))];
    let (code, message) = refused::<pairs>(Request::from_tensors(given));
    assert_eq!(code, ErrorCode::InvalidInput);
    assert_eq!(message, "input `left`: expected dtype f32, found i64");
}

#[test]
fn the_signature_is_what_the_fn_says() {
    let spec = |name: &str, dtype, shape: &[Option<usize>]| TensorSpec {
        name: name.into(),
        dtype,
        shape: shape.into(),
    };
    let signature = pairs::signature();
    assert_eq!(
        signature.inputs,
        [
            spec("left", DType::F32, &[None]),
            spec("right", DType::F32, &[None])
        ]
    );
    assert_eq!(
        signature.outputs,
        [spec("output", DType::F32, &[None, Some(2)])]
    );
    let signature = count::signature();
    assert_eq!(signature.inputs, [TensorSpec::body()]);
    assert_eq!(
        signature.outputs,
        [
            spec("count", DType::I64, &[]),
            spec("is.even", DType::Bool, &[Some(1)])
        ]
    );
    assert_eq!(
        echo::signature().inputs,
        [spec("type", DType::I32, &[Some(1)])]
    );
    assert_eq!(liar::signature().inputs, []);
}

#[test]
fn parameters_come_beside_the_body() {
    let mut request = Request::from_body("banana");
    request.parameters = Parameters::new([("of", "an")]);
    let mut response = call::<count>(request).unwrap();
    assert_eq!(response.outputs.take::<i64>("count").unwrap().data(), [2]);
}

#[test]
fn a_request_brings_everything() {
    let request = Request::from_tensors([("type", Tensor::new([1], [7i32]).unwrap())]);
    assert_eq!(text(&call::<echo>(request).unwrap()), "Some([7, 0, 0, 0])");
}

#[test]
fn an_answer_against_its_declaration_is_the_functions_fault() {
    let (code, message) = refused::<liar>(Request::default());
    assert_eq!(code, ErrorCode::Internal);
    assert_eq!(
        message,
        "the function broke its declaration: output `count`: expected dtype i64, found f32"
    );
}

#[test]
fn state_is_made_once_in_init_or_else_at_the_first_request() {
    let hello = || Request::from_body("you");
    assert_eq!(text(&call::<greet>(hello()).unwrap()), "hello you");
    greet::init();
    assert_eq!(text(&call::<greet>(hello()).unwrap()), "hello you");
    assert_eq!(MADE.get(), 1);
}

#[test]
#[should_panic(expected = "init failed: no greeting today")]
fn an_error_of_init_is_a_panic_with_its_message() {
    greet_never::init();
}

#[test]
fn a_function_is_still_a_fn() {
    assert_eq!(
        greet(&Greeting("good day".into()), "you".into()),
        "good day you"
    );
}

#[test]
fn a_model_is_unavailable_outside_firebox() {
    let error = firebox_sdk::model("digits").unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
}
