//! What `bindgen!` makes of the `firebox:function` world.
#![allow(missing_docs, reason = "generated; the WIT holds the docs")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "function",
    imports: {
        "wasi:nn/graph@0.2.0-rc-2024-10-28.load": async | trappable,
        "wasi:nn/graph@0.2.0-rc-2024-10-28.load-by-name": async | trappable,
        "wasi:nn/inference@0.2.0-rc-2024-10-28.[method]graph-execution-context.compute": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "wasi:nn/tensor.tensor": crate::nn::HostTensor,
        "wasi:nn/graph.graph": crate::nn::component::Graph,
        "wasi:nn/inference.graph-execution-context": crate::nn::component::ExecutionContext,
        "wasi:nn/errors.error": crate::nn::Error,
    },
});
