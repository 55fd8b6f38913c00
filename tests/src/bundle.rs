//! Bundles written by hand: a plain tar of a manifest and files, as `tar` would make it.

/// A bundle in the making.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    manifest: String,
    files: Vec<(String, Vec<u8>)>,
}

impl Bundle {
    /// A bundle with nothing in it but its name.
    pub fn new() -> Bundle {
        Bundle::default()
    }

    /// A bundle of one model, `model`, and no component.
    pub fn of_model(onnx: Vec<u8>) -> Bundle {
        Bundle::new().with_model("model", onnx)
    }

    /// A bundle of one component and no model.
    pub fn of_component(wasm: Vec<u8>) -> Bundle {
        Bundle::new().with_component(wasm)
    }

    /// Adds a model under the name that a guest uses.
    pub fn with_model(self, name: &str, onnx: Vec<u8>) -> Bundle {
        let path = format!("models/{name}.onnx");
        self.with_lines(&format!("[models.{name}]\npath = \"{path}\"\n"))
            .with_file(&path, onnx)
    }

    /// Sets the component.
    pub fn with_component(self, wasm: Vec<u8>) -> Bundle {
        self.with_lines("[function]\ncomponent = \"function.wasm\"\n")
            .with_file("function.wasm", wasm)
    }

    /// Adds a file.
    pub fn with_file(mut self, path: &str, content: Vec<u8>) -> Bundle {
        self.files.push((path.into(), content));
        self
    }

    /// Adds lines to the end of `firebox.toml`: a whole table, or keys of the last one.
    pub fn with_lines(mut self, lines: &str) -> Bundle {
        self.manifest.push_str(lines);
        if !lines.ends_with('\n') {
            self.manifest.push('\n');
        }
        self
    }

    /// The tar, its manifest carrying this name. The same bundle gives the same bytes.
    pub fn tar(&self, name: &str) -> Vec<u8> {
        let manifest = format!("name = \"{name}\"\n{}", self.manifest);
        let mut tar = tar::Builder::new(Vec::new());
        let files = self
            .files
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_slice()));
        for (path, content) in [("firebox.toml", manifest.as_bytes())]
            .into_iter()
            .chain(files)
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, content)
                .expect("a file can be added to a tar");
        }
        tar.into_inner().expect("a tar can be ended")
    }
}
