//! onnxruntime, the engine that most models are run on.

use std::process::Command;

use firebox_tests::binary;

/// Makes onnxruntime's package known to `python3`, fetched where it is missing. To be called before
/// anything else runs.
pub fn know_onnxruntime() {
    let packages = binary::target().join("onnxruntime");
    if !packages.join("onnxruntime").exists() {
        let fetched = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(&packages)
            .args(["onnxruntime==1.32.0", "numpy==2.4.6"])
            .status();
        assert!(
            fetched.unwrap().success(),
            "pip could not fetch onnxruntime"
        );
    }
    // SAFETY: no other thread runs yet.
    #[allow(unsafe_code, reason = "the environment of processes that are started")]
    unsafe {
        std::env::set_var("PYTHONPATH", packages);
    }
}
