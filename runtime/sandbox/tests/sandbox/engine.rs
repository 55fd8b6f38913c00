//! Through the whole inside: guest, wasi:nn, and a graph on the engine.

use std::sync::Arc;

use bytes::Bytes;
use firebox_engine::{Model, Options, Signature, Tensor};
use firebox_sandbox::{Context, InvokeError, ModelError, Models};
use futures::future::BoxFuture;

use crate::probe::{context, request, shared};

/// One model, whatever it is called.
struct One(Arc<Model>);

impl Models for One {
    fn open<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Arc<Signature>, ModelError>> {
        Box::pin(async { Ok(Arc::new(self.0.signature().clone())) })
    }

    fn run<'a>(
        &'a self,
        name: &'a str,
        inputs: Vec<(String, Tensor)>,
    ) -> BoxFuture<'a, Result<Vec<(String, Tensor)>, ModelError>> {
        Box::pin(async move {
            let model = self.0.clone();
            let ran = tokio::task::spawn_blocking(move || model.run(inputs))
                .await
                .unwrap();
            ran.map_err(|error| ModelError::Failed {
                model: name.into(),
                reason: error.to_string(),
            })
        })
    }
}

/// A length-delimited protobuf field, for lengths below 128.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len())
        .ok()
        .filter(|&length| length < 128)
        .unwrap();
    [&[number << 3 | 2, length], value].concat()
}

/// ONNX of `y = x + x` over f32 vectors of any length, opset 17.
fn twice() -> Vec<u8> {
    let value = |name: &str| {
        let shape = field(1, &field(2, b"n"));
        let tensor = [&[1 << 3, 1][..], &field(2, &shape)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    };
    let node = [
        field(1, b"x"),
        field(1, b"x"),
        field(2, b"y"),
        field(4, b"Add"),
    ]
    .concat();
    let graph = [
        field(1, &node),
        field(2, b"twice"),
        field(11, &value("x")),
        field(12, &value("y")),
    ];
    let opset = [2 << 3, 17];
    [vec![1 << 3, 8], field(7, &graph.concat()), field(8, &opset)].concat()
}

#[tokio::test]
async fn a_guest_gets_what_the_engine_computes() {
    let model = Arc::new(Model::load(Bytes::from(twice()), &Options::default()).unwrap());
    let context = || Context {
        models: Arc::new(One(model.clone())),
        ..context()
    };
    let component = &shared().await.1;
    let call = async |input: &str, tensor| {
        let mut request = request("model", &[("model", "twice")]);
        request.inputs.push((input.into(), tensor));
        component.invoke(request, context()).await
    };
    let x = Tensor::from_f32(vec![3], &[1.0, -2.0, 0.5]).unwrap();
    let response = call("x", x).await.unwrap();
    let y = Tensor::from_f32(vec![3], &[2.0, -4.0, 1.0]).unwrap();
    assert_eq!(response.outputs, [("y".to_string(), y)]);

    let ints = Tensor::from_i64(vec![3], &[1, 2, 3]).unwrap();
    let Err(InvokeError::Guest(error)) = call("x", ints).await else {
        panic!()
    };
    assert!(
        error.message.contains("expected dtype f32, found i64"),
        "{error}"
    );
}
