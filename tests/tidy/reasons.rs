//! Every reason is documented, and has a black-box test.

use portcullis_core::Reason;

use super::{files, none, root};

const BEGIN: &str =
    "<!-- reasons: begin (made from crates/core/src/reason.rs; BLESS=1 ./tests/run rewrites it) -->";
const END: &str = "<!-- reasons: end -->";

/// Reasons no caller can bring about, and why.
const OUT_OF_REACH: &[(Reason, &str)] =
    &[(Reason::InternalError, "whoever finds a way to cause it has found a fault, and mends it")];

/// The table as it must stand in `README.md`.
fn table() -> String {
    let mut table = String::from("| Status | Code | Meaning |\n| --- | --- | --- |\n");
    for reason in Reason::ALL {
        table.push_str(&format!(
            "| {} | `{}` | {} |\n",
            reason.status().as_u16(),
            reason.code(),
            one_line(reason.explanation())
        ));
    }
    table
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[test]
fn the_table_of_reasons_in_the_readme_is_the_table_in_the_code() {
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).expect("README.md");
    let begin = readme.find(BEGIN).unwrap_or_else(|| panic!("README.md lacks the line {BEGIN}"));
    let end = readme.find(END).unwrap_or_else(|| panic!("README.md lacks the line {END}"));
    let wanted = format!("{BEGIN}\n{}{END}", table());
    if std::env::var_os("BLESS").is_some() {
        let blessed = format!("{}{wanted}{}", &readme[..begin], &readme[end + END.len()..]);
        std::fs::write(&path, blessed).expect("README.md is written");
    } else {
        assert_eq!(&readme[begin..end + END.len()], wanted, "run BLESS=1 ./tests/run and read the change");
    }
}

#[test]
fn every_reason_has_a_black_box_test() {
    let tests: String = files("tests", &[".rs"])
        .into_iter()
        .filter(|(path, _)| !path.starts_with("tests/tidy/") && !path.starts_with("tests/rig/"))
        .map(|(_, text)| text)
        .collect();
    let reachable = |reason: &&Reason| OUT_OF_REACH.iter().all(|(unreachable, _)| unreachable != *reason);
    let untested = Reason::ALL.iter().filter(reachable).filter(|reason| {
        let variant = format!("Reason::{reason:?}");
        let mut places = tests.match_indices(&variant).map(|(at, _)| at + variant.len());
        !places.any(|after| !tests[after..].starts_with(|c: char| c.is_alphanumeric()))
    });
    none(&untested.map(|reason| format!("no test asks for Reason::{reason:?}")).collect::<Vec<_>>());
}
