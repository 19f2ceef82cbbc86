//! A real `redis-server`, which gateways share.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

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

    /// Stops its process, or lets it go on: a server that is there and does not answer.
    pub(crate) fn freeze(&self, frozen: bool) {
        super::gateway::send_signal(if frozen { "STOP" } else { "CONT" }, self.process.id());
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
