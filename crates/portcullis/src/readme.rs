//! The tables of `README.md` that are made from the code.

use std::fmt::Write as _;
use std::path::PathBuf;

use portcullis_gateway::{METRICS, MetricKind, listener::ListenLimits};

/// Compares a table with what stands between its markers, or writes it there if `BLESS` is set.
fn check(what: &str, source: &str, table: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(&path).expect("README.md");
    let begin = format!("<!-- {what}: begin (made from {source}; BLESS=1 ./tests/run rewrites it) -->\n");
    let end = format!("<!-- {what}: end -->");
    let from = readme.find(&begin).unwrap_or_else(|| panic!("README.md lacks the line {begin}")) + begin.len();
    let to = readme.find(&end).unwrap_or_else(|| panic!("README.md lacks the line {end}"));
    if std::env::var_os("BLESS").is_some() {
        let blessed = format!("{}{table}{}", &readme[..from], &readme[to..]);
        std::fs::write(&path, blessed).expect("README.md is written");
    } else {
        assert_eq!(&readme[from..to], table, "run BLESS=1 ./tests/run and read the change");
    }
}

fn metrics() -> String {
    METRICS.iter().fold("| Name | Type | What |\n| --- | --- | --- |\n".to_owned(), |mut table, (kind, name, help)| {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        writeln!(table, "| `{name}` | {kind} | {help} |").expect("a string takes everything");
        table
    })
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
    listing.iter().fold("| Key | Default | What |\n| --- | --- | --- |\n".to_owned(), |mut table, (key, value)| {
        writeln!(table, "| `{key}` | {value} | {} |", what(key)).expect("a string takes everything");
        table
    })
}

/// One test for both, because both rewrite the same file.
#[test]
fn the_tables_of_the_readme_are_those_of_the_code() {
    check("metrics", "crates/gateway/src/telemetry/mod.rs", &metrics());
    check("limits", "crates/gateway/src/listener/limits.rs", &limits());
}
