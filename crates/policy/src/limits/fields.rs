//! The header fields about limits: `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10.
//!
//! Names of limits are letters, digits and a few signs, so they stand in a quoted string (RFC 9651 section
//! 3.3.3) as they are.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::measure::Measure;
use super::{MAX_LIMITS, Standing};

/// `RateLimit-Policy`
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// `RateLimit`
pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Room for every limit with its longest name and numbers.
const ROOM: usize = MAX_LIMITS * 96;

/// Whole seconds, rounded up: waiting that long is always enough.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// What a limit promises, as units in a time. A rate is described by its burst and the time in which
/// that is earned, so that `r` never exceeds `q`; one without more burst than its count is described as written.
///
/// `count` is the caller's own, where it has one.
pub(super) fn promised(measure: Measure, count: Option<u64>) -> (u64, Duration) {
    match (measure, count) {
        (Measure::Quota { rate, .. } | Measure::Rate { rate, .. }, Some(count)) => (count, rate.per),
        (Measure::Quota { rate, .. }, None) => (rate.count, rate.per),
        (Measure::Rate { rate, burst, .. }, None) if burst <= rate.count => (rate.count, rate.per),
        (Measure::Rate { rate, burst, .. }, None) => {
            let nanoseconds =
                rate.per.as_nanos().saturating_mul(u128::from(burst)) / u128::from(rate.count.max(1));
            (burst, Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
        }
    }
}

/// What a limit promises, as an item of `RateLimit-Policy`: `q` units in `w` seconds.
pub(super) fn policy_item(name: &str, measure: Measure, count: Option<u64>) -> String {
    let (units, window) = promised(measure, count);
    format!("\"{name}\";q={units};w={}", whole_seconds(window).max(1))
}

/// The value of `RateLimit` for limits and where the caller stands with each. Writes into a buffer on the stack;
/// the value itself is the one allocation.
pub(super) fn standing<'l>(limits: impl Iterator<Item = (&'l str, Standing)>) -> Option<HeaderValue> {
    let mut text = Text { bytes: [0; ROOM], length: 0 };
    for (name, standing) in limits {
        text.push(if text.length == 0 { b"\"" } else { b", \"" });
        text.push(name.as_bytes());
        text.push(b"\";r=");
        text.push_number(standing.remaining);
        text.push(b";t=");
        text.push_number(standing.reset_seconds);
    }
    HeaderValue::from_bytes(text.bytes.get(..text.length)?).ok()
}

/// Bytes on the stack.
struct Text {
    bytes: [u8; ROOM],
    length: usize,
}

impl Text {
    fn push(&mut self, more: &[u8]) {
        let end = self.length + more.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(more);
            self.length = end;
        }
    }

    fn push_number(&mut self, number: u32) {
        let mut digits = [b'0'; 10];
        let mut rest = number;
        let mut length = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            length += 1;
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(digits.len() - length..).unwrap_or_default());
    }
}
