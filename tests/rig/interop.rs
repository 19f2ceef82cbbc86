//! Clients and servers nobody here wrote, from PyPI and npm, as `tests/interop/install` puts them into `target/interop`.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A Python with what `tests/interop/requirements.txt` names, about to run a script of `tests/interop`.
pub(crate) fn python(script: &str) -> Command {
    let mut command = Command::new(installed("python/bin/python"));
    command.arg(scripts().join(script));
    command
}

/// A program that `tests/interop/requirements.txt` brings along.
pub(crate) fn python_program(name: &str) -> Command {
    Command::new(installed(&format!("python/bin/{name}")))
}

/// Node with what `tests/interop/package.json` names, about to run a script of `tests/interop`.
pub(crate) fn node(script: &str) -> Command {
    let modules = installed("node/node_modules");
    let mut command = Command::new("node");
    // Node looks for modules from where a script lies, not from where it is run: the link beside the modules is kept.
    command.arg("--preserve-symlinks").arg("--preserve-symlinks-main");
    command.arg(modules.with_file_name("scripts").join(script));
    command
}

/// What a script prints when it is given this document on its standard input.
pub(crate) fn said(mut command: Command, document: &Value) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script can be started");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(document.to_string().as_bytes()).expect("the document is taken");
    drop(input);
    let output = child.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn scripts() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop"))
}

fn installed(what: &str) -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_portcullis"));
    let target = binary.ancestors().nth(2).expect("the target directory").join("interop").join(what);
    let target = if target.exists() {
        target
    } else {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/interop")).join(what)
    };
    assert!(target.exists(), "{} is missing: run tests/interop/install (./tests/run does)", target.display());
    target
}
