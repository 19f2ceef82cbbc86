//! How much of an audit log is about those who have no token.

use std::time::{Duration, Instant};

/// Lines in each window. SECURITY: everybody on the machine can be refused as often as they like, and must not be able to fill
/// the disk with it, or make the log too long to be read.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);

/// The lines of this window, and what was left out since the last line.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Strangers {
    /// Whether one more is written down, and if so, how many before it were not.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= MOST {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Strangers, WINDOW};
    use std::time::Instant;

    #[test]
    fn what_is_left_out_is_counted_in_the_next_line() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        for _ in 0..MOST {
            assert_eq!(strangers.admit(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(strangers.admit(start + WINDOW / 2), None);
        }
        assert_eq!(strangers.admit(start + WINDOW), Some(7));
        assert_eq!(strangers.admit(start + WINDOW), Some(0));
    }
}
