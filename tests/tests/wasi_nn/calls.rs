//! Each call of both ABIs: what it gives, and each of its errors.

use super::*;

mod classic {
    use super::*;

    #[tokio::test]
    async fn a_context_takes_inputs_by_index_and_computes_again_on_what_it_has() {
        let server = server_with("classic").await;
        let (two, four) = (hex(&[1.0, 2.0]), hex(&[5.0]));
        let said = say(
            &server,
            &[
                "load_by_name add",
                "init 0",
                "get 0 0 64",
                "compute 0",
                &format!("set 0 0 1 2 {two}"),
                "compute 0",
                "get 0 0 64",
                "compute 0",
                "get 0 0 8",
                &format!("set 0 0 1 1 {four}"),
                "compute 0",
                "get 0 0 64",
                "get 0 0 3",
                "get 0 1 64",
            ],
        )
        .await;
        let sums = format!("0 8 {}", hex(&[2.0, 3.0]));
        let again = format!("0 4 {}", hex(&[6.0]));
        let expected = [
            "0 0", "0 0", "5", "1", "0", "0", &sums, "0", &sums, "0", "0", &again, "7", "1",
        ];
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn tensors_of_every_type_come_back_as_they_went() {
        let server = server_with("classic").await;
        // The number of the type in the interface, that in ONNX, and two elements.
        for (ty, element, data) in [
            (0, 10, "003c00c0"),
            (1, 1, "0000803f000000c0"),
            (2, 11, "000000000000f03f00000000000000c0"),
            (3, 2, "00ff"),
            (4, 6, "01000000ffffffff"),
            (5, 7, "0100000000000000ffffffffffffffff"),
        ] {
            let (name, set) = (format!("t{element}"), format!("set 0 0 {ty} 2 {data}"));
            let load = format!("load_by_name {name}");
            let script = [load.as_str(), "init 0", &set, "compute 0", "get 0 0 64"];
            let said = say(&server, &script).await;
            let bytes = format!("0 {} {data}", data.len() / 2);
            assert_eq!(said, ["0 0", "0 0", "0", "0", &bytes], "{name}");
        }
    }

    #[tokio::test]
    async fn a_model_is_loaded_from_bytes_and_runs_like_one_of_the_bundle() {
        let server = server_with("classic").await;
        let set = format!("set 0 0 1 1 {}", hex(&[3.0]));
        let said = say(
            &server,
            &[
                "load add.onnx 1 0",
                "init 0",
                &set,
                "compute 0",
                "get 0 0 64",
                "load other.onnx 5 3",
                "init 1",
                &set.replace("set 0", "set 1"),
                "compute 1",
                "get 1 0 64",
                "get 0 0 64",
            ],
        )
        .await;
        let (four, five) = (hex(&[4.0]), hex(&[5.0]));
        let (four, five) = (format!("0 4 {four}"), format!("0 4 {five}"));
        let expected = [
            "0 0", "0 0", "0", "0", &four, "0 1", "0 1", "0", "0", &five, &four,
        ];
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn each_error_has_its_number() {
        let server = server_with("classic").await;
        let floats = hex(&[1.0, 2.0]);
        let (lies, flat) = (
            format!("set 0 0 1 3 {floats}"),
            format!("set 0 0 1 2,1 {floats}"),
        );
        let (other, index) = (
            format!("set 0 0 5 1 {floats}"),
            format!("set 0 1 1 2 {floats}"),
        );
        let (unknown, no_type) = (
            format!("set 7 0 1 2 {floats}"),
            format!("set 0 0 9 2 {floats}"),
        );
        let script_and_errors = [
            ("load_by_name add", "0 0"),
            ("init 0", "0 0"),
            // What isn't there.
            ("load_by_name nothing", "8"),
            ("init 5", "1"),
            (&*unknown, "1"),
            ("compute 7", "1"),
            ("get 7 0 8", "1"),
            // Tensors that don't fit: in bytes, in shape, in type, by index.
            (&*lies, "1"),
            (&*flat, "1"),
            (&*other, "1"),
            (&*index, "1"),
            (&*no_type, "1"),
            // Models from bytes.
            ("load add.onnx 0 0", "2"),
            ("load add.onnx 4 0", "2"),
            ("load add.onnx 9 0", "1"),
            ("load add.onnx 1 9", "1"),
            ("load add.onnx 1 1", "6"),
            ("load add.onnx 1 2", "6"),
            ("load text.onnx 1 0", "2"),
            ("load strange.onnx 1 0", "6"),
            ("load_parts 0 1 0", "1"),
            ("load_parts 2 1 0", "1"),
            // No inputs, no outputs.
            ("get 0 0 8", "5"),
            ("compute 0", "1"),
        ];
        let (script, errors): (Vec<_>, Vec<_>) = script_and_errors.into_iter().unzip();
        assert_eq!(say(&server, &script).await, errors);
    }

    #[tokio::test]
    async fn what_was_wrong_stands_in_standard_error() {
        let server = server_with("classic").await;
        let script = ["load_by_name ad", "load text.onnx 1 0", "exit 3"];
        let words = [
            "exited with code 3",
            "wasi-nn: load_by_name: there is no model `ad`",
            "wasi-nn: load: ",
            "not an ONNX model",
        ];
        fails(&server, &script).await.refused(500, &words);
    }
}

mod component {
    use super::*;

    #[tokio::test]
    async fn inputs_have_names_or_indexes_and_outputs_have_names() {
        let server = server_with("component").await;
        let floats = hex(&[1.0, 2.0]);
        let (named, indexed) = (
            format!("compute 0 x:fp32:2:{floats}"),
            format!("compute 0 0:fp32:2:{floats}"),
        );
        let script = ["load_by_name add", "init 0", &named, &indexed];
        let answer = format!("ok y:fp32:2:{}", hex(&[2.0, 3.0]));
        assert_eq!(
            say(&server, &script).await,
            ["ok 0", "ok 0", &answer, &answer]
        );
    }

    #[tokio::test]
    async fn tensors_of_every_type_come_back_as_they_went() {
        let server = server_with("component").await;
        for (ty, element, data) in [
            ("fp16", 10, "003c00c0"),
            ("fp32", 1, "0000803f000000c0"),
            ("fp64", 11, "000000000000f03f00000000000000c0"),
            ("bf16", 16, "803f00c0"),
            ("u8", 2, "00ff"),
            ("i32", 6, "01000000ffffffff"),
            ("i64", 7, "0100000000000000ffffffffffffffff"),
        ] {
            let load = format!("load_by_name t{element}");
            let compute = format!("compute 0 x:{ty}:2:{data}");
            let said = say(&server, &[&load, "init 0", &compute]).await;
            assert_eq!(said, ["ok 0", "ok 0", &format!("ok y:{ty}:2:{data}")]);
        }
    }

    #[tokio::test]
    async fn a_loaded_model_is_there_until_its_last_handle_is_dropped() {
        let server = server_with("component").await;
        let compute = format!("compute 0 x:fp32:1:{}", hex(&[3.0]));
        let script = [
            "load other.onnx onnx cpu",
            "init 0",
            "drop_graph 0",
            &compute,
            "drop_contexts",
            "load other.onnx autodetect cpu",
            "init 1",
            &compute,
        ];
        let answer = format!("ok y:fp32:1:{}", hex(&[5.0]));
        let expected = ["ok 0", "ok 0", "ok", &answer, "ok", "ok 1", "ok 0", &answer];
        assert_eq!(say(&server, &script).await, expected);
    }

    #[tokio::test]
    async fn each_error_has_its_code_and_says_what_was_wrong() {
        let server = server_with("component").await;
        let floats = hex(&[1.0, 2.0]);
        let compute = |input: &str| format!("compute 0 {input}:{floats}");
        let script_and_words = [
            ("load_by_name add".to_owned(), "ok 0"),
            ("init 0".into(), "ok 0"),
            ("load_by_name ad".into(), "NotFound there is no model `ad`"),
            (
                compute("x:fp32:3"),
                "InvalidArgument model `add`: input `x`",
            ),
            (
                compute("x:fp32:2,1"),
                "InvalidArgument model `add`: input `x`",
            ),
            (compute("x:i64:1"), "InvalidArgument model `add`: input `x`"),
            (
                compute("z:fp32:2"),
                "InvalidArgument model `add`: there is no input `z`",
            ),
            (
                compute("1:fp32:2"),
                "InvalidArgument model `add`: there is no input `1`",
            ),
            ("compute 0".into(), "InvalidArgument model `add`"),
            ("load add.onnx openvino cpu".into(), "InvalidEncoding"),
            ("load add.onnx ggml cpu".into(), "InvalidEncoding"),
            ("load text.onnx onnx cpu".into(), "InvalidEncoding"),
            ("load strange.onnx onnx cpu".into(), "UnsupportedOperation"),
            ("load add.onnx onnx gpu".into(), "UnsupportedOperation"),
            ("load add.onnx onnx tpu".into(), "UnsupportedOperation"),
            ("load_parts 0 onnx cpu".into(), "InvalidArgument"),
            ("load_parts 2 onnx cpu".into(), "InvalidArgument"),
        ];
        let script: Vec<&str> = script_and_words.iter().map(|(line, _)| &**line).collect();
        let said = say(&server, &script).await;
        assert_eq!(said.len(), script.len(), "{said:#?}");
        for ((line, words), said) in script_and_words.iter().zip(&said) {
            assert!(said.starts_with(words), "{line}: {said}");
        }
    }
}

/// A bundle whose manifest doesn't allow it loads nothing; `auto` takes what there is where the guest
/// asks for a device that isn't there.
#[tokio::test]
async fn the_manifest_says_whether_and_where_models_are_loaded_from_bytes() {
    let server = Server::start().await;
    for (kind, script, refused, allowed) in [
        (
            "classic",
            ["load add.onnx 1 1", "load add.onnx 1 2"],
            "6",
            "0",
        ),
        (
            "component",
            ["load add.onnx onnx gpu", "load add.onnx onnx tpu"],
            "Security",
            "ok",
        ),
    ] {
        for (line, expected) in [("", refused), ("load_models = \"auto\"", allowed)] {
            let bundle = Bundle::of_component(guests::program(&format!("{kind}_probe")))
                .with_lines(line)
                .with_lines("[assets]\n\"add.onnx\" = \"add.onnx\"")
                .with_file("add.onnx", onnx::add_one());
            let version = server.deploy("loader", &bundle).await;
            let path = format!("/v1/functions/loader/versions/{version}/invoke");
            let answer = server.invoke_at(&path, script.join("\n")).await.expect(200);
            let text = answer.text();
            let codes = text.lines().filter_map(|said| said.split(' ').next());
            assert_eq!(codes.collect::<Vec<_>>(), [expected; 2], "{kind} {line}");
        }
    }
}
