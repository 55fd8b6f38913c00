//! Debian's registry, and processes that end with the test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use firebox_tests::server::spawn;
use firebox_tests::{client, toolchains};
use serde_json::Value;

/// Longer than any start on a slow, busy machine.
pub const START: Duration = Duration::from_secs(60);

/// A registry on a free port of loopback, with a folder of its own; it ends with the test.
pub struct Registry {
    _process: Group,
    /// Its host and port.
    pub host: String,
    folder: tempfile::TempDir,
}

impl Registry {
    /// None where no registry can be had. With `account`, it lets nobody else in.
    pub async fn start(account: Option<&str>) -> Option<Registry> {
        let program = toolchains::debian("docker-registry")?.join("usr/bin/docker-registry");
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = free.local_addr().unwrap().to_string();
        let mut settings = format!(
            "version: 0.1\nlog: {{level: warn}}\nhttp: {{addr: '{host}'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n",
            folder.path().join("store").display()
        );
        if let Some(account) = account {
            let file = folder.path().join("accounts");
            fs::write(&file, account).unwrap();
            settings += &format!(
                "auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n",
                file.display()
            );
        }
        let file = folder.path().join("registry.yml");
        fs::write(&file, settings).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(file).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        drop(free);
        let registry = Registry {
            _process: Group::spawn(command),
            host,
            folder,
        };
        let began = Instant::now();
        while registry.get("/v2/").await.is_none() {
            let log = fs::read_to_string(registry.folder.path().join("log")).unwrap();
            assert!(
                began.elapsed() < START,
                "the registry does not start: {log}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(registry)
    }

    pub fn address(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.host)
    }

    /// What it answers to a plain client: status and body; none where it doesn't.
    pub async fn get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        client::ready();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client
            .get(format!("http://{}{path}", self.host))
            .header("accept", "application/vnd.oci.image.manifest.v1+json");
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.bytes().await.ok()?.to_vec()))
    }

    pub async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await.unwrap();
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).unwrap()
    }

    /// The file in which the registry keeps a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let path = format!(
            "store/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        );
        self.folder.path().join(path)
    }
}

/// A child with all that it starts, which end with the test.
pub struct Group(pub Child);

impl Group {
    pub fn spawn(mut command: Command) -> Group {
        command.process_group(0);
        Group(spawn(command).unwrap())
    }

    #[allow(unsafe_code, reason = "std can send no signal but SIGKILL")]
    pub fn signal(&self, whom: impl Fn(libc::pid_t) -> libc::pid_t, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.0.id()).unwrap();
        // SAFETY: `kill` takes two integers; the process is our child and was not waited for.
        unsafe {
            libc::kill(whom(pid), signal);
        }
    }
}

impl Group {
    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < START, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal(|pid| -pid, libc::SIGKILL);
        }
        drop(self.0.wait());
    }
}
