//! What is done with the bytes of a token, and what must hold whatever they are.

use std::sync::OnceLock;
use std::time::Duration;

use portcullis_core::json::Limits;
use portcullis_core::{Moment, Rejection, Secret};
use portcullis_jose::{ClaimRules, CompactJws, Confirmation, JwsLimits, VerifyingKey, scopes};

/// Reads, verifies and checks a token.
pub(crate) fn run(token: &[u8]) {
    static KEYS: OnceLock<Vec<VerifyingKey>> = OnceLock::new();
    let keys = KEYS.get_or_init(keys);
    let token = match CompactJws::parse(token, JwsLimits::default()) {
        Ok(token) => token,
        Err(error) => {
            assert!(Rejection::from(error).reason().status().is_client_error());
            return;
        }
    };
    for key in keys {
        // The secret is published with RFC 7515, so the fuzzer can be right about one key and no other.
        if let Err(error) = token.verify(key) {
            assert!(Rejection::from(error).reason().status().is_client_error());
        }
    }
    let Ok(claims) = token.unverified_claims(Limits::default()) else {
        return;
    };
    let rules = ClaimRules::new("joe", vec!["api".into()]);
    let now = Moment { unix_ms: 1_300_819_000_000, monotonic: Duration::from_secs(1) };
    if let Ok(times) = rules.check_static(token.header(), &claims) {
        let end = times.unusable_from_ms(&rules).expect("these rules demand `exp`");
        assert!(times.check(&rules, now).is_err() || now.unix_ms < end);
    }
    if let Ok(Some(confirmation)) = Confirmation::of(&claims) {
        assert!(confirmation.x5t_s256.is_some() || confirmation.jkt.is_some());
    }
    assert!(scopes(&claims, None).iter().all(|scope| !scope.is_empty()));
}

fn keys() -> Vec<VerifyingKey> {
    let secret = b"\x03\x23\x35\x4b\x2b\x0f\xa5\xbc\x83\x7e\x06\x65\x77\x7b\xa6\x8f\x5a\xb3\x28\xe6\xf0\x54\xc9\x28\xa9\x0f\x84\xb2\xd2\x50\x2e\xbf\xd3\xfb\x5a\x92\xd2\x06\x47\xef\x96\x8a\xb4\xc3\x77\x62\x3d\x22\x3d\x2e\x21\x72\x05\x2e\x4f\x08\xc0\xcd\x9a\xf5\x67\xd0\x80\xa3";
    // RFC 8705 appendix A.
    let certificate = b"-----BEGIN CERTIFICATE-----
MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx
ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ
/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID
SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV
bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=
-----END CERTIFICATE-----
";
    let mut keys = VerifyingKey::from_pem(certificate).expect("a certificate");
    keys.push(VerifyingKey::from_secret(&Secret::new(secret.to_vec())).expect("a secret"));
    keys
}
