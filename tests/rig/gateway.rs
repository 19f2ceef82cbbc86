//! The real binary: started on a directory of policies, stopped when the test ends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::client::{Answer, Client};
use super::eventually;

/// The program under test.
pub(crate) const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis");

/// A policy directory of its own, gone when the test ends.
pub(crate) struct Directory {
    folder: tempfile::TempDir,
}

impl Directory {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with the folders it needs.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
        self
    }
}

/// Sends a signal by name, with the `kill` that every shell has.
pub(crate) fn send_signal(name: &str, process: u32) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status();
    assert!(status.expect("a shell").success(), "no process to send {name} to");
}

/// Runs a verb to its end.
pub(crate) fn portcullis(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PORTCULLIS);
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    command.output().expect("the program runs")
}

/// Runs the program to its end with this on its standard input.
pub(crate) fn portcullis_reading(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(PORTCULLIS);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

/// Where the gateway listens, learned from its ready lines.
#[derive(Clone, Debug, Default)]
struct Ports {
    listeners: BTreeMap<String, SocketAddr>,
    admin: Option<SocketAddr>,
}

/// A running gateway.
pub(crate) struct Gateway {
    child: Child,
    ports: Ports,
    output: Arc<Mutex<String>>,
    errors: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts `portcullis run` and waits until all its listeners are ready.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// The same, with environment variables.
    pub(crate) fn start_with(directory: &Path, environment: &[(&str, &str)]) -> Self {
        Self::spawn(directory, environment).until_ready(directory)
    }

    /// The same, of a gateway whose disk can be filled.
    pub(crate) fn start_with_small_disk(directory: &Path) -> Self {
        // The signal that comes with a write beyond the limit would end the process; a full disk sends none.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", PORTCULLIS]);
        command.arg("run").arg("--policies").arg(directory);
        Self::of(command).until_ready(directory)
    }

    /// From now on every write to a file fails, or none does.
    pub(crate) fn disk_is_full(&self, full: bool) {
        self.limit_files(if full { "0" } else { "unlimited" });
    }

    /// From now on every write to a file beyond so many bytes fails.
    pub(crate) fn files_end_at(&self, bytes: u64) {
        self.limit_files(&bytes.to_string());
    }

    fn limit_files(&self, most: &str) {
        let (process, limit) = (format!("--pid={}", self.id()), format!("--fsize={most}:"));
        let set = Command::new("prlimit").args([process, limit]).status();
        assert!(set.expect("prlimit").success());
    }

    fn until_ready(self, directory: &Path) -> Self {
        let mut gateway = self;
        let wanted = listeners_of(directory);
        gateway.ports = eventually("the gateway is ready", || {
            let ports = gateway.ready();
            let complete =
                ports.admin.is_some() && wanted.iter().all(|name| ports.listeners.contains_key(name));
            if !complete && let Some(status) = gateway.child.try_wait().expect("a child") {
                panic!("the gateway ended with {status}: {}{}", gateway.output(), gateway.log());
            }
            complete.then_some(ports)
        });
        gateway
    }

    /// Starts it without waiting for anything.
    pub(crate) fn spawn(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(PORTCULLIS);
        command.arg("run").arg("--policies").arg(directory);
        command.envs(environment.iter().copied());
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (output, errors) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("stdout"), &output),
            collect(child.stderr.take().expect("stderr"), &errors),
        ];
        Self { child, ports: Ports::default(), output, errors, readers }
    }

    fn ready(&self) -> Ports {
        let mut ports = Ports::default();
        for line in self.output().lines().filter_map(|line| line.strip_prefix("ready ")) {
            let address = line.split(' ').find_map(|word| word.strip_prefix("address="));
            let Some(address) = address.and_then(|address| address.parse().ok()) else { continue };
            match line.split(' ').find_map(|word| word.strip_prefix("listener=")) {
                Some(name) => {
                    ports.listeners.insert(name.to_owned(), address);
                }
                None => ports.admin = Some(address),
            }
        }
        ports
    }

    /// The address of a listener.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        *self.ports.listeners.get(listener).unwrap_or_else(|| panic!("no `{listener}` in {:?}", self.ports))
    }

    /// The address of the admin listener.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.ports.admin.expect("an admin listener")
    }

    /// A GET on the admin listener.
    pub(crate) fn admin(&self, path: &str) -> Answer {
        self.admin_client().get(path).send()
    }

    /// Calls the admin listener.
    pub(crate) fn admin_client(&self) -> Client {
        let address = self.admin_address();
        Client::plain(address, &address.to_string())
    }

    /// The sum of all series of a metric whose labels contain all of these.
    pub(crate) fn metric_sum(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.admin("/metrics").text();
        let series = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        series
            .map(|line| line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).expect("a number"))
            .sum()
    }

    /// What it has written to its standard output.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("the output").clone()
    }

    /// What it has written to its standard error.
    pub(crate) fn log(&self) -> String {
        self.errors.lock().expect("the errors").clone()
    }

    /// All JSON lines with this request id, wherever the access log goes.
    pub(crate) fn access_lines(&self) -> Vec<serde_json::Value> {
        let text = self.output() + &self.log();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line.get("request_id").is_some() && line.get("decision").is_some()).collect()
    }

    /// Waits for the access line of an answer.
    pub(crate) fn access_line(&self, request_id: &str) -> serde_json::Value {
        eventually("the access line is written", || {
            self.access_lines().into_iter().find(|line| line["request_id"] == request_id)
        })
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process lives.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        send_signal(name, self.id());
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        let status = self.wait();
        (status, self.log())
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = eventually("the gateway ends", || self.child.try_wait().expect("a child"));
        for reader in self.readers.drain(..) {
            reader.join().expect("the output is read");
        }
        status
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("it is dead");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- output of the gateway\n{}{}---", self.output(), self.log());
        }
    }
}

fn collect(mut pipe: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(&mut pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            into.lock().expect("the output").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// The names below `listen:` in the settings, so that the rig knows how many ready lines to wait for.
fn listeners_of(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("gateway.yaml")).unwrap_or_default();
    let mut names = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if !line.starts_with([' ', '#']) {
            inside = line.trim_end() == "listen:";
        } else if inside && line.starts_with("  ") && !line.starts_with("   ") {
            names.extend(line.trim().strip_suffix(':').map(str::to_owned));
        }
    }
    names
}
