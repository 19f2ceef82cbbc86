//! When a signature counts.

use std::time::Duration;

/// How far a signature may lie in the past and in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Seconds after it was made in which it is taken.
    pub(crate) max_age: i64,
    /// Seconds it may lie in the future, because clocks differ.
    pub(crate) leeway: i64,
}

/// Why a signature does not count at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutOfTime {
    /// It was made too long ago.
    #[error("it was made {0} seconds ago")]
    Stale(i64),
    /// It says itself that it is over.
    #[error("it has expired")]
    Expired,
    /// It lies in the future.
    #[error("it was made {0} seconds from now")]
    Future(i64),
}

/// What a good signature says about time, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moments {
    /// When it was made, by the earliest of its statements.
    pub(crate) issued: i64,
    /// The first second in which it is refused for its age.
    pub(crate) until: i64,
}

impl Window {
    pub(crate) fn new(max_age: Duration, leeway: Duration) -> Self {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self { max_age: seconds(max_age), leeway: seconds(leeway) }
    }

    /// Judges what a signature says: each moment it was made at, and its end if it names one (SIG-06).
    pub(crate) fn judge(
        self,
        made: impl IntoIterator<Item = i64>,
        expires: Option<i64>,
        now: i64,
    ) -> Result<Moments, OutOfTime> {
        let mut moments = Moments { issued: i64::MAX, until: expires.unwrap_or(i64::MAX) };
        for made in made {
            let age = now.saturating_sub(made);
            if age > self.max_age {
                return Err(OutOfTime::Stale(age));
            }
            if age < -self.leeway {
                return Err(OutOfTime::Future(age.saturating_neg()));
            }
            moments.issued = moments.issued.min(made);
            moments.until = moments.until.min(made.saturating_add(self.max_age).saturating_add(1));
        }
        if expires.is_some_and(|end| now >= end) {
            return Err(OutOfTime::Expired);
        }
        Ok(moments)
    }
}

#[cfg(test)]
mod tests {
    use super::{Moments, OutOfTime, Window};

    /// SIG-06, CAV-02.
    #[test]
    fn a_signature_counts_within_its_window() {
        let window = Window { max_age: 300, leeway: 30 };
        let good = |issued, until| Ok(Moments { issued, until });
        for (made, expires, expected) in [
            (&[1000][..], None, good(1000, 1301)),
            (&[700], None, good(700, 1001)),
            (&[699], None, Err(OutOfTime::Stale(301))),
            (&[1030], None, good(1030, 1331)),
            (&[1031], None, Err(OutOfTime::Future(31))),
            (&[1000, 900], None, good(900, 1201)),
            (&[1000, 10], None, Err(OutOfTime::Stale(990))),
            (&[1000], Some(1001), good(1000, 1001)),
            (&[1000], Some(9000), good(1000, 1301)),
            (&[1000], Some(1000), Err(OutOfTime::Expired)),
            (&[1000], Some(-1), Err(OutOfTime::Expired)),
            (&[i64::MIN], None, Err(OutOfTime::Stale(i64::MAX))),
            (&[i64::MAX], None, Err(OutOfTime::Future(i64::MAX - 1000))),
        ] {
            assert_eq!(window.judge(made.iter().copied(), expires, 1000), expected, "{made:?} {expires:?}");
        }
    }
}
