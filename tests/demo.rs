//! The first command of the README: what it prints works as it stands, and ends as it says.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::rig::gateway::{Directory, PORTCULLIS, send_signal};

#[test]
fn every_command_the_demo_prints_ends_as_it_says() {
    let place = Directory::new();
    let start = Instant::now();
    let mut demo = Command::new(PORTCULLIS)
        .arg("demo")
        .current_dir(place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the demo starts");
    let lines = {
        let (sender, lines) = channel();
        let stdout = BufReader::new(demo.stdout.take().expect("stdout"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test may have ended before the demo has.
                drop(sender.send(line));
            }
        });
        lines
    };
    let mut commands = Vec::new();
    let mut all = String::new();
    // The list is complete when nothing more is said for a while.
    loop {
        let wait = if commands.is_empty() { Duration::from_secs(20) } else { Duration::from_millis(700) };
        match lines.recv_timeout(wait) {
            Ok(line) => {
                all.push_str(&line);
                all.push('\n');
                if let Some((status, command)) =
                    line.trim_start().split_once("  ").filter(|(status, _)| status.len() == 3)
                {
                    if commands.is_empty() {
                        assert!(
                            start.elapsed() < Duration::from_secs(10),
                            "ready after {:?}",
                            start.elapsed()
                        );
                    }
                    commands.push((status.to_owned(), command.trim().to_owned()));
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    let statuses: Vec<&str> = commands.iter().map(|(status, _)| status.as_str()).collect();
    for wanted in ["200", "401", "403", "429"] {
        assert!(statuses.contains(&wanted), "no {wanted} in {all}");
    }
    assert!(statuses.iter().filter(|status| **status == "401").count() >= 2, "{all}");
    for (status, command) in &commands {
        let output =
            Command::new("bash").args(["-c", command]).current_dir(place.path()).output().expect("bash");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let last = said.lines().filter_map(|line| line.strip_prefix("HTTP/")).next_back().unwrap_or_default();
        let ended_in =
            last.split(' ').nth(1).map(str::to_owned).or_else(|| said.lines().last().map(str::to_owned));
        assert!(ended_in.is_some_and(|seen| seen.contains(status.as_str())), "{status} {command}\n{said}");
    }
    send_signal("INT", demo.id());
    let status = crate::rig::eventually("the demo ends", || demo.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
}
