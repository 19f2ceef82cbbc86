//! What `README.md` says about the program, checked against the program.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use portcullis_gateway::{Environment, METRICS, MetricKind, listener::ListenLimits, load};

use crate::report::{Look, human};

/// Compares a table with what stands between its markers, or writes it there if `BLESS` is set.
fn check(page: &str, what: &str, source: &str, table: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let readme = std::fs::read_to_string(&path).expect("the page");
    let begin = format!("<!-- {what}: begin (made from {source}; BLESS=1 ./tests/run rewrites it) -->\n");
    let end = format!("<!-- {what}: end -->");
    let from = readme.find(&begin).unwrap_or_else(|| panic!("{page} lacks the line {begin}")) + begin.len();
    let to = readme.find(&end).unwrap_or_else(|| panic!("{page} lacks the line {end}"));
    if std::env::var_os("BLESS").is_some() {
        let blessed = format!("{}{table}{}", &readme[..from], &readme[to..]);
        std::fs::write(&path, blessed).expect("the page is written");
    } else {
        assert_eq!(&readme[from..to], table, "run BLESS=1 ./tests/run and read the change");
    }
}

fn metrics() -> String {
    METRICS.iter().fold(
        "| Name | Type | What |\n| --- | --- | --- |\n".to_owned(),
        |mut table, (kind, name, help)| {
            let kind = match kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            writeln!(table, "| `{name}` | {kind} | {help} |").expect("a string takes everything");
            table
        },
    )
}

fn limits() -> String {
    let what = |key: &str| match key {
        "connections" => "open connections",
        "headers" => "size of a request's head",
        "header_count" => "fields in a request's head",
        "streams" => "requests in flight on one HTTP/2 connection",
        "handshake_timeout" => "for the TLS handshake",
        "header_timeout" => "for a request's head to arrive",
        "idle_timeout" => "a connection may have nothing to do",
        "write_timeout" => "a client may refuse to take the bytes of an answer",
        "connection_age" => "after which a connection is closed between two requests",
        key => panic!("`{key}` has no words in README.md"),
    };
    let listing = ListenLimits::default().listing();
    listing.iter().fold(
        "| Key | Default | What |\n| --- | --- | --- |\n".to_owned(),
        |mut table, (key, value)| {
            writeln!(table, "| `{key}` | {value} | {} |", what(key)).expect("a string takes everything");
            table
        },
    )
}

/// One test for both, because both rewrite the same file.
#[test]
fn the_tables_of_the_readme_are_those_of_the_code() {
    check("README.md", "metrics", "crates/gateway/src/telemetry/mod.rs", &metrics());
    check("README.md", "limits", "crates/gateway/src/listener/limits.rs", &limits());
}

#[test]
fn the_table_of_profiles_is_that_of_the_code() {
    let source = "crates/authn/src/issuers/profile.rs";
    check("policies/README.md", "profiles", source, &portcullis_authn::profile_table());
}

/// The policy that the readme shows.
fn policy() -> &'static str {
    let readme = include_str!("../../../README.md");
    let from = readme.split("```yaml\n").nth(1).expect("README.md has a policy");
    from.split("```").next().expect("it ends")
}

/// What `check` says to a policy, put in the place of that of the example it was taken from.
fn faults_of(policy: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/examples/bound-token");
    let files = ["", "tls"].map(|folder| example.join(folder).read_dir().expect("a folder"));
    for folder in ["tls", "apis"] {
        std::fs::create_dir(directory.path().join(folder)).expect("made");
    }
    for entry in files.into_iter().flatten().map(|entry| entry.expect("an entry").path()) {
        if entry.is_file() {
            let name = entry.strip_prefix(&example).expect("within the example");
            std::fs::copy(&entry, directory.path().join(name)).expect("copied");
        }
    }
    std::fs::write(directory.path().join("apis/open-banking.yaml"), policy).expect("written");
    let loaded = load(directory.path(), &Environment::default());
    human(&loaded.faults, &loaded.sources, Look::Plain)
}

#[test]
fn the_policy_of_the_readme_has_no_fault() {
    assert_eq!(faults_of(policy()), "");
}

#[test]
fn the_fault_in_the_readme_is_what_check_says() {
    let said = faults_of(&policy().replace("bound_to: certificate  ", "boundto: certificate   "));
    assert!(include_str!("../../../README.md").contains(&format!("```text\n{said}```")), "{said}");
}
