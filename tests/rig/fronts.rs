//! Proxies nobody here wrote, in front of the gateway: nginx and HAProxy from Debian.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::gateway::Directory;

/// A running proxy; it ends with the test.
pub(crate) struct Front {
    child: Child,
    directory: Directory,
}

/// An address nobody listens on at this moment.
pub(crate) fn free_address() -> SocketAddr {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    taken.local_addr().expect("an address")
}

impl Front {
    /// Starts nginx with these `server` blocks and waits until it listens. `{dir}` stands for a folder of its own,
    /// which holds `files`.
    pub(crate) fn nginx(servers: &str, files: &[(&str, &str)], listens: &[SocketAddr]) -> Self {
        let own = "client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;";
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {{dir}}/pid; error_log stderr warn;\nevents {{ worker_connections 64; }}\nhttp {{\naccess_log off; large_client_header_buffers 4 32k; {own}\n{servers}\n}}\n"
        );
        Self::start(
            "nginx",
            &["-p", "{dir}", "-e", "stderr", "-c", "{dir}/proxy.conf"],
            &config,
            files,
            listens,
        )
    }

    /// Starts HAProxy with these sections and waits until it listens.
    pub(crate) fn haproxy(sections: &str, files: &[(&str, &str)], listens: &[SocketAddr]) -> Self {
        let config = format!(
            "global\n  maxconn 64\n  tune.bufsize 65536\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{sections}\n"
        );
        Self::start("haproxy", &["-db", "-f", "{dir}/proxy.conf"], &config, files, listens)
    }

    fn start(
        program: &str,
        arguments: &[&str],
        config: &str,
        files: &[(&str, &str)],
        listens: &[SocketAddr],
    ) -> Self {
        let directory = Directory::new();
        let folder = directory.path().to_string_lossy().into_owned();
        directory.write("proxy.conf", config.replace("{dir}", &folder));
        for (name, content) in files {
            directory.write(name, content);
        }
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.replace("{dir}", &folder)).collect();
        let child = Command::new(found(program))
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("stderr")).expect("a file"))
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start ({error}); tests/run installs it"));
        let mut front = Self { child, directory };
        listens.iter().for_each(|address| front.wait_for(program, *address));
        front
    }

    fn wait_for(&mut self, program: &str, address: SocketAddr) {
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = self.child.try_wait().expect("a process");
            let said = || std::fs::read_to_string(self.directory.join("stderr")).unwrap_or_default();
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "{program} does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Debian keeps daemons where only root's `PATH` leads.
fn found(program: &str) -> String {
    let own = format!("/usr/sbin/{program}");
    if Path::new(&own).exists() { own } else { program.to_owned() }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}
