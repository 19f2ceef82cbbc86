//! What limits are called.

use std::time::Duration;

use portcullis_core::{Diagnostic, Faults, Spanned};

use super::key::Per;
use super::measure::Measure;

/// Longest name, in bytes.
const LONGEST_NAME: usize = 64;

/// Names stand in header fields as quoted strings (RFC 9651 section 3.3.3) and in the store.
pub(super) fn good_name(name: &Spanned<String>, faults: &mut Faults) -> bool {
    let text = &name.value;
    let good = text.len() <= LONGEST_NAME
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+ ".contains(&byte));
    if !good {
        faults.push(
            Diagnostic::error("bad_name", name.place, format!("`{text}` cannot be the name of a limit"))
                .note(format!("letters, digits, spaces and - _ . +, at most {LONGEST_NAME}")),
        );
    }
    good
}

/// What a limit is called that has no name: by what it counts, never by how much or by where it stands, so that
/// counters live on when a number is changed or limits are put in another order.
pub(super) fn derived_name(per: &[Per], measure: Measure, by_calendar: bool) -> String {
    let subjects: Vec<_> = per.iter().map(Per::word).collect();
    let (kind, rate) = match measure {
        Measure::Rate { rate, .. } => ("rate", rate),
        Measure::Quota { rate, .. } => ("quota", rate),
    };
    let calendar = if by_calendar { "calendar-" } else { "" };
    format!("{}-{kind}-{calendar}{}", subjects.join("+"), period(rate.per))
}

fn period(per: Duration) -> String {
    const DAY: u64 = 86_400;
    let named = [
        (1, "second"),
        (60, "minute"),
        (3_600, "hour"),
        (DAY, "day"),
        (7 * DAY, "week"),
        (30 * DAY, "month"),
    ];
    match named.iter().find(|(seconds, _)| per == Duration::from_secs(*seconds)) {
        Some((_, word)) => (*word).to_owned(),
        None if per.subsec_millis() == 0 => format!("{}s", per.as_secs()),
        None => format!("{}ms", per.as_millis()),
    }
}
