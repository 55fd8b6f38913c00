//! What becomes of models that guests load from bytes.

use std::sync::Mutex;

use firebox_engine::{DType, TensorSpec};
use futures::future::{BoxFuture, ready};

use super::*;
use crate::LoadedModel;

/// Loads any bytes as a model that gives its input back, always by one name.
#[derive(Default)]
struct Echo {
    unloaded: Mutex<Vec<String>>,
}

impl Models for Echo {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Signature>, ModelError>> {
        let known = vec![];
        let name = name.into();
        Box::pin(ready(Err(ModelError::NotFound { name, known })))
    }

    fn load<'a>(&'a self, _: Bytes, _: Target) -> BoxFuture<'a, Result<LoadedModel, ModelError>> {
        let spec = TensorSpec {
            name: "x".into(),
            dtype: DType::F32,
            shape: None,
        };
        let signature = Signature {
            inputs: vec![spec.clone()],
            outputs: vec![spec],
        };
        Box::pin(ready(Ok(LoadedModel {
            name: "echo".into(),
            signature: Arc::new(signature),
            bytes: 1000,
        })))
    }

    fn unload(&self, name: &str) {
        self.unloaded.lock().unwrap().push(name.into());
    }

    fn run<'a>(
        &'a self,
        _: &'a str,
        inputs: Vec<(String, Tensor)>,
    ) -> BoxFuture<'a, Result<Vec<(String, Tensor)>, ModelError>> {
        Box::pin(ready(Ok(inputs)))
    }
}

async fn loaded(nn: &mut Nn) -> OpenModel {
    let bytes = Bytes::from_static(b"onnx");
    nn.load(bytes, Encoding::Onnx, Target::Cpu).await.unwrap()
}

async fn runs(nn: &mut Nn, model: &OpenModel) -> bool {
    let input = ("x".into(), Tensor::from_f32(vec![1], &[1.0]).unwrap());
    nn.run(model, vec![input]).await.is_ok()
}

#[tokio::test]
async fn handles_of_an_earlier_call_do_not_touch_a_model_of_the_same_name() {
    let (first, second) = (Arc::new(Echo::default()), Arc::new(Echo::default()));
    let mut nn = Nn::new(Some(first), 1 << 20);
    let old = loaded(&mut nn).await;
    assert!(runs(&mut nn, &old).await);
    nn.rest();
    nn.renew(second.clone());
    let left = nn.left;
    let new = loaded(&mut nn).await;
    assert!(!runs(&mut nn, &old).await, "it went with its call");
    let again = nn.again(&old);
    for old in [&old, &again] {
        nn.close(old);
    }
    assert!(second.unloaded.lock().unwrap().is_empty());
    assert!(runs(&mut nn, &new).await);
    // Its own handle is its last one.
    nn.close(&new);
    assert_eq!(*second.unloaded.lock().unwrap(), ["echo"]);
    assert!(!runs(&mut nn, &new).await);
    assert!(nn.left <= left, "more is given back than was taken");
}
