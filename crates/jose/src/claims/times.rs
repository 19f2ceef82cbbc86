//! The times of a token: `exp`, `nbf`, `iat` (RFC 7519 section 4.1).

use std::time::Duration;

use portcullis_core::Moment;
use portcullis_core::json::{Object, Value};

use super::{ClaimError, ClaimRules};

/// The largest NumericDate (JWT-20): beyond 2^53 not every second has a number of its own.
const SECONDS_MAX: i64 = 1 << 53;

/// How far an issuer's clock may be off, for each claim on its own (JWT-23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// A token still counts this long after `exp`.
    pub exp: Duration,
    /// A token already counts this long before `nbf`.
    pub nbf: Duration,
    /// `iat` may lie this far ahead.
    pub iat: Duration,
}

impl Skew {
    /// The most that can have an effect.
    pub const MAXIMUM: Duration = Duration::from_mins(1);
}

impl Default for Skew {
    /// 0, 10 and 10 seconds.
    fn default() -> Self {
        Self { exp: Duration::ZERO, nbf: Duration::from_secs(10), iat: Duration::from_secs(10) }
    }
}

/// The times of a token whose other claims have been checked. Small, so a cache can keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    expires_ms: Option<i64>,
    not_before_ms: Option<i64>,
    issued_ms: Option<i64>,
}

impl TokenTimes {
    pub(super) fn read(claims: &Object) -> Result<Self, ClaimError> {
        // Fractions are rounded to the side on which the token counts for less time.
        Ok(Self {
            expires_ms: numeric_date(claims, "exp", f64::floor)?,
            not_before_ms: numeric_date(claims, "nbf", f64::ceil)?,
            issued_ms: numeric_date(claims, "iat", f64::ceil)?,
        })
    }

    pub(super) fn check_static(self, rules: &ClaimRules) -> Result<(), ClaimError> {
        if rules.exp_required && self.expires_ms.is_none() {
            return Err(ClaimError::Missing("exp".into()));
        }
        if rules.max_age.is_some() && self.issued_ms.is_none() {
            return Err(ClaimError::Missing("iat".into()));
        }
        let Some(max_lifetime) = rules.max_lifetime else {
            return Ok(());
        };
        let expires = self.expires_ms.ok_or_else(|| ClaimError::Missing("exp".into()))?;
        let issued = self.issued_ms.ok_or_else(|| ClaimError::Missing("iat".into()))?;
        if expires.saturating_sub(issued) > milliseconds(max_lifetime) {
            return Err(ClaimError::LifetimeTooLong);
        }
        Ok(())
    }

    /// Checks the times against the clock (JWT-21, JWT-22, JWT-24). To be repeated for every request, also for a
    /// token that a cache knows.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, rules: &ClaimRules, now: Moment) -> Result<(), ClaimError> {
        let now = now.unix_ms;
        if self.unusable_from_ms(rules).is_some_and(|end| now >= end) {
            return Err(ClaimError::Expired);
        }
        let allowed = |skew: Duration| now.saturating_add(milliseconds(skew.min(Skew::MAXIMUM)));
        if self.not_before_ms.is_some_and(|not_before| allowed(rules.skew.nbf) < not_before) {
            return Err(ClaimError::NotYetValid);
        }
        if self.issued_ms.is_some_and(|issued| allowed(rules.skew.iat) < issued) {
            return Err(ClaimError::IssuedInFuture);
        }
        match (rules.max_age, self.issued_ms) {
            (Some(max_age), Some(issued)) if now.saturating_sub(issued) > milliseconds(max_age) => {
                Err(ClaimError::TooOld)
            }
            _ => Ok(()),
        }
    }

    /// The second since 1970 at which the token says it was issued, rounded down.
    pub fn issued_seconds(&self) -> Option<i64> {
        self.issued_ms.map(|issued| issued.div_euclid(1000))
    }

    /// When `exp` and its skew end, in milliseconds since 1970: from then on nothing need be remembered of the
    /// token. `None` if it never expires.
    pub fn unusable_from_ms(&self, rules: &ClaimRules) -> Option<i64> {
        self.expires_ms.map(|exp| exp.saturating_add(milliseconds(rules.skew.exp.min(Skew::MAXIMUM))))
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A NumericDate in milliseconds: an integer or any other JSON number, from 0 to 2^53 seconds (JWT-20).
pub(crate) fn numeric_date(
    claims: &Object,
    name: &'static str,
    round: fn(f64) -> f64,
) -> Result<Option<i64>, ClaimError> {
    let malformed = ClaimError::Malformed(name);
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Integer(seconds)) if (0..=SECONDS_MAX).contains(seconds) => Ok(Some(seconds * 1000)),
        Some(Value::Number(seconds)) => in_milliseconds(*seconds, round).map(Some).ok_or(malformed),
        Some(_) => Err(malformed),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the range was checked, and beyond 2^53 milliseconds a double holds no fraction worth keeping"
)]
fn in_milliseconds(seconds: f64, round: fn(f64) -> f64) -> Option<i64> {
    (0.0..=SECONDS_MAX as f64).contains(&seconds).then(|| round(seconds * 1000.0) as i64)
}
