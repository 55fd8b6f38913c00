//! The component ABI, as wit-bindgen makes it of the interface that other hosts have too.
#![allow(missing_docs, unsafe_code, reason = "generated")]

wit_bindgen::generate!({
    inline: "
        package firebox:wasi-nn-guests;
        world program {
            import wasi:nn/tensor@0.2.0-rc-2024-10-28;
            import wasi:nn/graph@0.2.0-rc-2024-10-28;
            import wasi:nn/inference@0.2.0-rc-2024-10-28;
            import wasi:nn/errors@0.2.0-rc-2024-10-28;
        }
    ",
    path: "../../../wit/deps/wasi-nn",
    world: "firebox:wasi-nn-guests/program",
    generate_all,
});
