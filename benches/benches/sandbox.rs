//! What the sandbox adds to a model's time, without a server: `sentence-embedding`, whose tokenizer
//! holds 30,000 words, with its `init` in the snapshot and without; and a function that does nothing.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::collections::BTreeMap;
use std::process::ExitCode;

use firebox_benches::{Function, Recorded, Spread, in_turns};
use firebox_engine::Tensor;
use firebox_tests::{binary, guests};

const ROUNDS: usize = 7;
/// What the sandbox may add to the model's time at p50.
const TARGET_MS: f64 = 1.0;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let added = sentence_embedding(&runtime);
    tiny(&runtime);
    if added.median > TARGET_MS {
        println!("the sandbox adds more than {TARGET_MS} ms");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn sentence_embedding(runtime: &tokio::runtime::Runtime) -> Spread {
    let wasm = guests::component_of(&guests::example("sentence-embedding"));
    let vocabulary = binary::target().join("models/minilm.vocab.txt");
    let assets = BTreeMap::from([("vocab.txt".to_owned(), vocabulary)]);
    let models = Recorded::load(&[("minilm", guests::model("minilm", "minilm.onnx"))]);
    let function =
        |snapshot| runtime.block_on(Function::new(&wasm, &assets, models.clone(), snapshot));
    let (with, without) = (function(true), function(false));

    let body = || {
        (
            "body",
            Tensor::from_blob(b"A cat sits on the mat.").unwrap(),
        )
    };
    let media = [("content-type", "text/plain")];
    let invoke = |function: &Function| drop(runtime.block_on(function.invoke(body(), &media)));
    invoke(&with);
    let [alone, with, without] = in_turns(
        ROUNDS,
        [60, 60, 20],
        [
            &mut || with.run_model_alone(),
            &mut || invoke(&with),
            &mut || invoke(&without),
        ],
    );
    println!("sentence-embedding, warm, one short sentence");
    println!("  the engine alone               {}", alone[ROUNDS / 2]);
    println!("  sandboxed, init in a snapshot  {}", with[ROUNDS / 2]);
    println!("  sandboxed, init in each call   {}", without[ROUNDS / 2]);
    let added = Spread::of_difference(&with, &alone);
    println!("  the sandbox adds               {added} ms at p50");
    println!(
        "  without the snapshot           {} ms",
        Spread::of_difference(&without, &alone)
    );
    added
}

fn tiny(runtime: &tokio::runtime::Runtime) {
    let wasm = guests::component_of(&guests::guest("probe"));
    let models = Recorded::load(&[]);
    let assets = BTreeMap::new();
    let function = || Function::new(&wasm, &assets, models.clone(), true);
    let (fresh, reused) = (
        runtime.block_on(function()),
        runtime.block_on(function()).reused(),
    );
    let x = || ("x", Tensor::from_f32(vec![1, 2], &[1.0, 2.0]).unwrap());
    let mode = [("mode", "echo")];
    let invoke = |function: &Function| drop(runtime.block_on(function.invoke(x(), &mode)));
    let [fresh, reused] = in_turns(
        ROUNDS,
        [2000, 2000],
        [&mut || invoke(&fresh), &mut || invoke(&reused)],
    );
    println!("a function that gives its input back");
    println!("  one call, instance and all     {}", fresh[ROUNDS / 2]);
    println!("  one call, instance reused      {}", reused[ROUNDS / 2]);
}
