//! A real `redis-server`, which gateways share.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::eventually;

/// A server on a port of its own.
pub(crate) struct Redis {
    process: Child,
    port: u16,
    scheme: &'static str,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::at(free_port())
    }

    /// One that speaks TLS alone, to this user alone.
    pub(crate) fn start_tls(certificate: &Path, key: &Path, (user, password): (&str, &str)) -> Self {
        let port = free_port();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let (certificate, key) = (path(certificate), path(key));
        let number = port.to_string();
        let mut arguments = vec!["--port", "0", "--tls-port", &number, "--tls-auth-clients", "no"];
        arguments.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key]);
        arguments.extend(["--user", user, "on"]);
        let password = format!(">{password}");
        arguments.extend([&password, "~portcullis:*", "+@all", "--user", "default", "off"]);
        let mut server = Self::listening(port, &arguments);
        server.scheme = "rediss";
        server
    }

    fn at(port: u16) -> Self {
        Self::listening(port, &["--port", &port.to_string()])
    }

    fn listening(port: u16, arguments: &[&str]) -> Self {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args(arguments);
        let process = command.stdout(Stdio::null()).spawn().expect("redis-server, which tests/run installs");
        eventually("redis-server listens", || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
        Self { process, port, scheme: "redis" }
    }

    /// One that writes everything to disk before it answers, in that folder; there it finds what an earlier one has written.
    pub(crate) fn start_durable(folder: &Path) -> Self {
        Self::durable_at(free_port(), folder)
    }

    fn durable_at(port: u16, folder: &Path) -> Self {
        let folder = folder.to_string_lossy();
        let durable = ["--dir", &*folder, "--appendonly", "yes", "--appendfsync", "always"];
        Self::listening(port, &[&["--port", &port.to_string()], &durable[..]].concat())
    }

    /// Kills it, and starts another one in its place that finds what it has written.
    pub(crate) fn restart_durable(&mut self, folder: &Path) {
        self.kill();
        *self = Self::durable_at(self.port, folder);
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts another one in its place, which knows nothing.
    pub(crate) fn come_again(&mut self) {
        self.kill();
        *self = Self::at(self.port);
    }

    /// What it answers to a command.
    fn ask(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(command).output();
        String::from_utf8_lossy(&output.expect("redis-cli").stdout).into_owned()
    }

    /// The units of all quotas, as they are written: moment and units.
    fn counted(&self) -> u64 {
        let keys = self.ask(&["--scan", "--pattern", "portcullis:*"]);
        let units = keys
            .lines()
            .filter_map(|key| self.ask(&["GET", key]).split_whitespace().nth(1)?.parse::<u64>().ok());
        units.sum()
    }

    /// Stops its process, or lets it go on: a server that is there and does not answer.
    pub(crate) fn freeze(&self, frozen: bool) {
        super::gateway::send_signal(if frozen { "STOP" } else { "CONT" }, self.process.id());
    }
}

/// A server, its replica, and three Sentinels over them, which call it `bank`.
pub(crate) struct Watched {
    server: Redis,
    replica: Redis,
    sentinels: Vec<Redis>,
    /// What they keep, for as long as they run.
    folder: TempDir,
}

impl Watched {
    /// Starts all of them; the replica has what is written from here on.
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let server = Self::kept(folder.path(), free_port(), &[]);
        let master = ["--replicaof", "127.0.0.1", &server.port.to_string()].map(ToOwned::to_owned);
        let replica = Self::kept(folder.path(), free_port(), &master);
        let sentinel = |_| {
            let port = free_port();
            let file = folder.path().join(format!("sentinel-{port}.conf"));
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor bank 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds bank 2000\nsentinel failover-timeout bank 4000\n",
                server.port
            );
            std::fs::write(&file, text).expect("written");
            let mut command = Command::new("redis-server");
            let process = command.arg(file).arg("--sentinel").stdout(Stdio::null()).spawn();
            eventually("a Sentinel listens", || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
            Redis { process: process.expect("redis-server"), port, scheme: "redis" }
        };
        let sentinels: Vec<_> = (0..3).map(sentinel).collect();
        eventually("the Sentinels know the replica and one another", || {
            let told = |sentinel: &Redis| {
                let told = sentinel.ask(&["SENTINEL", "MASTER", "bank"]);
                let told: Vec<&str> = told.lines().collect();
                told.windows(2).any(|pair| pair == ["num-slaves", "1"])
                    && told.windows(2).any(|pair| pair == ["num-other-sentinels", "2"])
            };
            sentinels.iter().all(told).then_some(())
        });
        eventually("the replica hears of what is written", || {
            replica.ask(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        Self { server, replica, sentinels, folder }
    }

    fn kept(folder: &Path, port: u16, more: &[String]) -> Redis {
        let folder = folder.join(port.to_string());
        std::fs::create_dir_all(&folder).expect("a folder");
        let folder = folder.to_string_lossy().into_owned();
        let mut arguments = vec!["--port".to_owned(), port.to_string(), "--dir".to_owned(), folder];
        arguments.extend(["--repl-diskless-sync-delay", "0"].map(ToOwned::to_owned));
        arguments.extend_from_slice(more);
        Redis::listening(port, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The addresses of the Sentinels.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect()
    }

    /// The server goes on for this long while its replica hears nothing, and is killed with one of the Sentinels. The sums of
    /// all counters then: of the server, and of the replica.
    pub(crate) fn fail_over(&mut self, lag: Duration) -> (u64, u64) {
        self.replica.freeze(true);
        self.server.ask(&["CLIENT", "KILL", "TYPE", "replica"]);
        std::thread::sleep(lag);
        let counted = self.server.counted();
        self.server.kill();
        drop(self.sentinels.remove(0));
        self.replica.freeze(false);
        let replicated = self.replica.counted();
        let port = self.replica.port.to_string();
        eventually("the replica takes the server's place", || {
            let named = |sentinel: &Redis| {
                sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "bank"]).lines().nth(1) == Some(&port)
            };
            self.sentinels.iter().all(named).then_some(())
        });
        (counted, replicated)
    }

    /// The server comes back as a replica of the one that has taken its place.
    pub(crate) fn come_again(&mut self) {
        let master = ["--replicaof", "127.0.0.1", &self.replica.port.to_string()].map(ToOwned::to_owned);
        self.server = Self::kept(self.folder.path(), self.server.port, &master);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}
