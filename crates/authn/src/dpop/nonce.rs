//! Nonces of the gateway (RFC 9449 section 9): nothing is stored, nobody else can make one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Moment, Secret};
use portcullis_jose::base64url;
use portcullis_jose::digest::{KeyedHash, NoRandomness, constant_time_eq, random};

/// How long a nonce is given out. It is taken for this long again.
const PERIOD: Duration = Duration::from_mins(2);
/// Bytes of the period's number, and of the hash that vouches for it.
const NUMBER: usize = 8;
const HASH: usize = 16;

/// Makes and judges nonces. SECURITY: the key is made at every start, so a proof with one of these nonces was made
/// after the start, whatever its `iat` says (OPS-01); and no nonce of an authorization server, or of another gateway, is
/// taken for one (DPP-12).
#[derive(Clone)]
pub struct Nonces(Arc<KeyedHash>);

impl Nonces {
    /// Nonces under a fresh key.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new() -> Result<Self, NoRandomness> {
        Ok(Self(Arc::new(KeyedHash::new(&Secret::new(random::<32>()?.to_vec())))))
    }

    /// The nonce of this moment, by the monotonic clock: nobody can set that.
    pub(crate) fn current(&self, now: Moment) -> String {
        base64url::encode(&self.of_period(period(now)))
    }

    /// Whether it is the nonce of this period or of the one before (DPP-09).
    pub(crate) fn accepts(&self, nonce: &str, now: Moment) -> bool {
        let Ok(bytes) = base64url::decode_exactly::<{ NUMBER + HASH }>(nonce.as_bytes()) else {
            return false;
        };
        let now = period(now);
        [Some(now), now.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|period| constant_time_eq(&bytes, &self.of_period(period)))
    }

    fn of_period(&self, period: u64) -> [u8; NUMBER + HASH] {
        let number = period.to_be_bytes();
        let hash = self.0.digest(&[b"dpop nonce ".as_slice(), &number].concat());
        let mut nonce = [0; NUMBER + HASH];
        nonce.iter_mut().zip(number.iter().chain(&hash)).for_each(|(to, byte)| *to = *byte);
        nonce
    }
}

fn period(now: Moment) -> u64 {
    now.monotonic.as_secs() / PERIOD.as_secs()
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_core::{Clock, ManualClock};

    use super::{Nonces, PERIOD};

    /// DPP-09, DPP-12.
    #[test]
    fn a_nonce_is_taken_for_its_period_and_the_next() {
        let manual = ManualClock::at_unix_seconds(1_800_000_000);
        let clock = Clock::Manual(manual.clone());
        let (own, other) = (Nonces::new().expect("randomness"), Nonces::new().expect("randomness"));
        let nonce = own.current(clock.now());
        assert_eq!(nonce, own.current(clock.now()));
        assert!(nonce.len() == 32 && own.accepts(&nonce, clock.now()));
        assert!(!other.accepts(&nonce, clock.now()));
        for bad in
            ["", "x", &nonce[..31], &format!("{nonce}A"), &nonce.replace(&nonce[..1], "_"), &"A".repeat(32)]
        {
            assert!(!own.accepts(bad, clock.now()), "{bad}");
        }
        manual.set_unix_seconds(0);
        manual.advance(PERIOD);
        assert!(own.accepts(&nonce, clock.now()));
        assert_ne!(nonce, own.current(clock.now()));
        manual.advance(PERIOD);
        assert!(!own.accepts(&nonce, clock.now()));
        manual.advance(Duration::from_hours(1));
        assert!(own.accepts(&own.current(clock.now()), clock.now()));
    }
}
