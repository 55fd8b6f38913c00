//! A registry that announces too much, or begins and never ends.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;

use super::*;

/// A registry with one manifest, whose layers begin and never end.
fn stalling(layer_bytes: u64) -> String {
    let layer = json!({
        "mediaType": "application/wasm", "size": layer_bytes,
        "digest": format!("sha256:{}", "0".repeat(64)),
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", "size": 2, "digest": layer["digest"]},
        "layers": [layer],
    });
    let manifest = manifest.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut stalled = Vec::new();
        for connection in listener.incoming() {
            let mut connection = BufReader::new(connection.unwrap());
            let mut wanted = String::new();
            connection.read_line(&mut wanted).unwrap();
            let mut line = String::new();
            while connection.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let (body, bytes) = match &wanted {
                path if path.contains("/manifests/") => (manifest.as_str(), manifest.len()),
                path if path.contains("/blobs/") => ("begun", 1000),
                _ => ("", 0),
            };
            let connection = connection.get_mut();
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
            connection.write_all((head + body).as_bytes()).unwrap();
            if body.len() < bytes {
                stalled.push(connection.try_clone().unwrap());
            }
        }
    });
    format!("oci://{host}/adder:1")
}

#[test]
fn no_more_is_announced_than_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let address = stalling(17 << 30);
    let pull = firebox(folder.path(), &["pull", &address]);
    fails(pull, 1, &["announces 17.00 GiB", "at most 16.00 GiB"]);
}

#[test]
fn a_signal_ends_a_command_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let address = stalling(1000);
    let files = || fs::read_dir(folder.path()).unwrap().count();
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut command = firebox(folder.path(), &["pull", &address]);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut pull = Group::spawn(command);
        let began = Instant::now();
        while files() == 0 {
            assert!(began.elapsed() < START, "nothing is pulled");
            std::thread::sleep(Duration::from_millis(20));
        }
        // It listens for signals when it first waits, and the file comes later than that.
        pull.signal(|pid| pid, signal);
        assert_eq!(pull.ended().code(), Some(code));
        assert_eq!(files(), 0);
    }
}
