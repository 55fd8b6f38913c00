//! A server process: `firebox serve` on a free loopback port, with a data folder of its own.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{binary, client};

/// Longer than any start on a slow, busy machine.
const START: Duration = Duration::from_secs(60);
/// What precedes the address in the line that says where a server listens.
const LISTENING: &str = "firebox listens on ";
/// The same where it listens for gRPC alone.
const LISTENING_FOR_GRPC: &str = "firebox listens for gRPC on http://";
/// Longer than any orderly stop.
const STOP: Duration = Duration::from_secs(30);

/// A running server. Dropping it kills it; its data folder goes with the last handle.
#[derive(Debug)]
pub struct Server {
    process: Mutex<Child>,
    url: String,
    data: Arc<TempDir>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    started_in: Duration,
}

impl Server {
    /// A server with an empty data folder and the settings that it has by default.
    pub async fn start() -> Server {
        Server::start_with(&[]).await
    }

    /// The same with further arguments to `firebox serve`.
    pub async fn start_with(arguments: &[&str]) -> Server {
        Server::start_in(&[], arguments).await
    }

    /// The same with further variables in its environment.
    pub async fn start_in(environment: &[(&str, &str)], arguments: &[&str]) -> Server {
        let data = Arc::new(TempDir::new().expect("a temporary folder can be made"));
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let environment = environment.iter();
        let environment = environment.map(|(name, value)| (name.to_string(), value.to_string()));
        Server::start_on(data, arguments, environment.collect()).await
    }

    async fn start_on(
        data: Arc<TempDir>,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Server {
        // The clients that tests make of their own need one too.
        client::ready();
        let mut command = binary::command();
        command.envs(environment.iter().cloned());
        command.arg("serve").arg("--data").arg(data.path());
        // The kernel picks a free port, and the server says which.
        command.args(["--listen", "127.0.0.1:0"]).args(&arguments);
        let log = File::create(data.path().with_extension("log")).expect("a log can be made");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle can be copied"));
        command.stderr(log);
        let began = Instant::now();
        let process = Mutex::new(spawn(command).expect("firebox starts"));
        let (url, started_in) = (String::new(), Duration::ZERO);
        let mut server = Server {
            process,
            url,
            data,
            arguments,
            environment,
            started_in,
        };
        server.wait_until_ready(began).await;
        server
    }

    async fn wait_until_ready(&mut self, began: Instant) {
        loop {
            if let Some(url) = self.address() {
                self.url = url;
                if self.is_ready().await {
                    self.started_in = began.elapsed();
                    return;
                }
            }
            if let Some(status) = self.process.get_mut().unwrap().try_wait().unwrap() {
                panic!(
                    "firebox serve ended at its start ({status}):\n{}",
                    self.log()
                );
            }
            assert!(
                began.elapsed() < START,
                "firebox serve is not ready:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Out of the line in which the server says where it listens.
    fn address(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.split_once(LISTENING)?;
        let (address, _) = rest.split_once(char::is_whitespace)?;
        Some(address.to_owned())
    }

    /// Where the server listens: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the server listens for gRPC alone, with `--grpc-listen`: `127.0.0.1:<port>`.
    pub fn grpc_address(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.split_once(LISTENING_FOR_GRPC)?;
        Some(rest.split_whitespace().next()?.to_owned())
    }

    /// The folder given as `--data`.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// From the start of the process to the first `ready`.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// What the server has written to its standard output and error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.data.path().with_extension("log")
    }

    /// Resident memory, in bytes: `VmRSS` of `/proc/<pid>/status`.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// Lets no file of the process grow beyond so many bytes from now on, as a full disk would; `None`
    /// lifts that.
    pub fn limit_file_size(&self, bytes: Option<u64>) {
        let limit = libc::rlimit {
            rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY),
            rlim_max: libc::RLIM_INFINITY,
        };
        let pid = libc::pid_t::try_from(self.pid()).unwrap();
        // SAFETY: `prlimit` reads `limit`, which outlives the call, and is told to write nowhere.
        #[allow(unsafe_code, reason = "std has no way to set a limit of a process")]
        let set = unsafe {
            libc::prlimit(
                pid,
                libc::RLIMIT_FSIZE,
                &raw const limit,
                std::ptr::null_mut(),
            )
        };
        assert_eq!(
            set,
            0,
            "the limit can be set: {}",
            io::Error::last_os_error()
        );
    }

    /// Processor time that the process has used, in seconds: `utime` and `stime` of
    /// `/proc/<pid>/stat`, in hundredths.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name of the process may hold anything, but ends with the last parenthesis.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        ticks as f64 / 100.0
    }

    /// Whether the process still runs.
    pub fn is_alive(&self) -> bool {
        self.process.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// Asks for an orderly stop (SIGTERM), without waiting for it.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// SIGKILL, as a crash would have it.
    pub async fn kill(self) -> Stopped {
        self.signal(libc::SIGKILL);
        self.ended().await;
        self.stopped()
    }

    /// An orderly stop; fails unless the exit code is 0.
    pub async fn stop(self) -> Stopped {
        self.terminate();
        let status = self.ended().await;
        assert!(
            status.success(),
            "firebox serve ended with {status}:\n{}",
            self.log()
        );
        self.stopped()
    }

    /// Waits for the process's end.
    pub async fn ended(&self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.lock().unwrap().try_wait().unwrap() {
                return status;
            }
            assert!(
                began.elapsed() < STOP,
                "firebox serve does not stop:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn stopped(&self) -> Stopped {
        Stopped {
            data: self.data.clone(),
            arguments: self.arguments.clone(),
            environment: self.environment.clone(),
        }
    }

    fn pid(&self) -> u32 {
        self.process.lock().unwrap().id()
    }

    fn signal(&self, signal: libc::c_int) {
        let mut process = self.process.lock().unwrap();
        if process.try_wait().unwrap().is_some() {
            return;
        }
        let pid = libc::pid_t::try_from(process.id()).unwrap();
        // SAFETY: `kill` takes two integers. The process is our child and has not been waited
        // for, so its number can't have gone to another.
        #[allow(unsafe_code, reason = "std has no way to send SIGTERM")]
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "the signal can be sent");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("-- the server's last words:\n{}\n--", tail.join("\n"));
        }
        let mut process = self
            .process
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        drop(process.kill());
        drop(process.wait());
        drop(std::fs::remove_file(self.log_path()));
    }
}

/// What is left of a server that has ended: its data folder.
#[derive(Debug)]
pub struct Stopped {
    data: Arc<TempDir>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Stopped {
    /// Starts the next server on the same data folder, with the same settings.
    pub async fn again(self) -> Server {
        Server::start_on(self.data, self.arguments, self.environment).await
    }

    /// The same with these further arguments to `firebox serve` instead of those that it had.
    pub async fn again_with(self, arguments: &[&str]) -> Server {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Server::start_on(self.data, arguments, self.environment).await
    }

    /// The folder given as `--data`.
    pub fn data(&self) -> &Path {
        self.data.path()
    }
}

/// Starts a process that the kernel kills when this one ends, however that happens.
///
/// That death signal follows the starting *thread*, and test threads come and go while a server
/// may be shared between them; so one thread that never ends starts all of them.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static STARTER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in orders {
                drop(reply.send(command.spawn()));
            }
        });
        Mutex::new(sender)
    });
    // SAFETY: `prctl` is one system call, which may be made between fork and exec.
    #[allow(
        unsafe_code,
        reason = "std has no way to set the death signal of a child"
    )]
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
    let (reply, child) = mpsc::channel();
    starter
        .lock()
        .unwrap()
        .send((command, reply))
        .expect("the starter runs");
    child.recv().expect("the starter answers")
}
