//! What a token is bound to: the `cnf` claim (RFC 7800, RFC 8705 section 3.1, RFC 9449 section 6.1).

use portcullis_core::json::{self, Object, Value};
use portcullis_core::{Reason, Rejection};

use crate::{base64url, digest};

/// The bindings of a token. Where both are present, both must hold (CNF-02).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// SHA-256 of the DER of the client's certificate (RFC 8705).
    pub x5t_s256: Option<[u8; 32]>,
    /// SHA-256 thumbprint of the client's proof key (RFC 9449, RFC 7638).
    pub jkt: Option<[u8; 32]>,
}

/// Why a `cnf` claim cannot be used. A token that carries one is refused: it is bound, and we cannot say to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationError {
    /// The claim is not an object.
    #[error("`cnf` is not an object")]
    NotAnObject,
    /// A thumbprint is not the 43 characters of base64url that 32 bytes take (CNF-01).
    #[error("`cnf` member `{0}` is not a base64url SHA-256 value of 43 characters")]
    ThumbprintMalformed(&'static str),
    /// No member is one that we can check.
    #[error("`cnf` has no member that can be checked")]
    Unsupported,
}

impl Confirmation {
    /// Reads the `cnf` claim.
    ///
    /// # Errors
    /// See [`ConfirmationError`]. No `cnf` at all is `None`, not an error.
    pub fn of(claims: &Object) -> Result<Option<Self>, ConfirmationError> {
        let Some(value) = claims.get("cnf") else {
            return Ok(None);
        };
        let members = value.as_object().ok_or(ConfirmationError::NotAnObject)?;
        Self::read(members).map(Some)
    }

    /// Reads the `cnf` claim of an issuer that may write the object as text, as some versions of one product do
    /// (WS-08).
    ///
    /// # Errors
    /// As [`Confirmation::of`].
    pub fn of_object_or_text(claims: &Object) -> Result<Option<Self>, ConfirmationError> {
        let Some(Value::Text(text)) = claims.get("cnf") else { return Self::of(claims) };
        let members = json::parse_object(text.as_bytes(), json::Limits::default());
        Self::read(&members.map_err(|_| ConfirmationError::NotAnObject)?).map(Some)
    }

    fn read(members: &Object) -> Result<Self, ConfirmationError> {
        let confirmation =
            Self { x5t_s256: thumbprint(members, "x5t#S256")?, jkt: thumbprint(members, "jkt")? };
        if confirmation.x5t_s256.is_none() && confirmation.jkt.is_none() {
            return Err(ConfirmationError::Unsupported);
        }
        Ok(confirmation)
    }

    /// Whether the token is bound to the certificate with this SHA-256 digest of its DER; in constant time.
    /// A token that is bound to no certificate matches none.
    pub fn certificate_matches(&self, sha256: &[u8; 32]) -> bool {
        self.x5t_s256.is_some_and(|expected| digest::constant_time_eq(&expected, sha256))
    }

    /// Whether the token is bound to the proof key with this thumbprint; in constant time. A token that is bound to
    /// no key matches none.
    pub fn key_matches(&self, thumbprint: &[u8; 32]) -> bool {
        self.jkt.is_some_and(|expected| digest::constant_time_eq(&expected, thumbprint))
    }
}

fn thumbprint(members: &Object, name: &'static str) -> Result<Option<[u8; 32]>, ConfirmationError> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::Text(text)) => base64url::decode_exactly(text.as_bytes())
            .map(Some)
            .map_err(|_| ConfirmationError::ThumbprintMalformed(name)),
        Some(_) => Err(ConfirmationError::ThumbprintMalformed(name)),
    }
}

impl From<ConfirmationError> for Rejection {
    fn from(error: ConfirmationError) -> Self {
        let reason = match error {
            ConfirmationError::NotAnObject | ConfirmationError::ThumbprintMalformed(_) => {
                Reason::TokenClaimInvalid
            }
            ConfirmationError::Unsupported => Reason::TokenBindingUnsupported,
        };
        Self::new(reason).because(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::json::{Limits, parse_object};

    use super::{Confirmation, ConfirmationError};
    use crate::base64url;

    /// RFC 8705 appendix A (CNF-09).
    const THUMBPRINT: &str = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";

    fn read(claims: &str) -> Result<Option<Confirmation>, ConfirmationError> {
        Confirmation::of(&parse_object(claims.as_bytes(), Limits::default()).expect(claims))
    }

    #[test]
    fn a_token_without_cnf_is_not_bound() {
        assert_eq!(read(r#"{"sub":"a"}"#), Ok(None));
    }

    /// CNF-01.
    #[test]
    fn certificate_thumbprint_is_read_and_compared() {
        let found =
            read(&format!(r#"{{"cnf":{{"x5t#S256":"{THUMBPRINT}"}}}}"#)).expect("valid").expect("bound");
        let mut digest: [u8; 32] = base64url::decode_exactly(THUMBPRINT.as_bytes()).expect("valid");
        assert!(found.certificate_matches(&digest));
        digest[31] ^= 1;
        assert!(!found.certificate_matches(&digest));
        assert_eq!(found.jkt, None);
    }

    #[test]
    fn a_token_bound_to_a_key_alone_matches_no_certificate() {
        let found = read(&format!(r#"{{"cnf":{{"jkt":"{THUMBPRINT}"}}}}"#)).expect("valid").expect("bound");
        assert!(found.jkt.is_some());
        assert!(!found.certificate_matches(&found.jkt.expect("present")));
    }

    /// CNF-02: both bindings are handed out, so both can be held to.
    #[test]
    fn both_bindings_are_read() {
        let text = format!(r#"{{"cnf":{{"x5t#S256":"{THUMBPRINT}","jkt":"{THUMBPRINT}","kid":"a"}}}}"#);
        let found = read(&text).expect("valid").expect("bound");
        assert!(found.x5t_s256.is_some() && found.jkt.is_some());
    }

    /// WS-08: text only where the issuer's entry asks for it, and never text within text.
    #[test]
    fn an_object_written_as_text_is_read_only_where_that_is_asked_for() {
        let text = format!(r#"{{"cnf":"{{\"x5t#S256\":\"{THUMBPRINT}\"}}"}}"#);
        assert_eq!(read(&text), Err(ConfirmationError::NotAnObject));
        let either = |claims: &str| {
            Confirmation::of_object_or_text(
                &parse_object(claims.as_bytes(), Limits::default()).expect(claims),
            )
        };
        let object = format!(r#"{{"cnf":{{"x5t#S256":"{THUMBPRINT}"}}}}"#);
        assert_eq!(either(&text), read(&object));
        assert_eq!(either(&object), read(&object));
        assert_eq!(either("{}"), Ok(None));
        for (claims, expected) in [
            (r#"{"cnf":""}"#, ConfirmationError::NotAnObject),
            (r#"{"cnf":"{}"}"#, ConfirmationError::Unsupported),
            (r#"{"cnf":"{} "}"#, ConfirmationError::Unsupported),
            (r#"{"cnf":"[]"}"#, ConfirmationError::NotAnObject),
            (r#"{"cnf":"\"{}\""}"#, ConfirmationError::NotAnObject),
            (r#"{"cnf":7}"#, ConfirmationError::NotAnObject),
            (r#"{"cnf":"{\"jkt\":\"a\",\"jkt\":\"b\"}"}"#, ConfirmationError::NotAnObject),
        ] {
            assert_eq!(either(claims), Err(expected), "{claims}");
        }
    }

    /// CNF-01, CNF-02.
    #[test]
    fn whatever_cannot_be_checked_is_refused() {
        use ConfirmationError::{NotAnObject, ThumbprintMalformed, Unsupported};
        let hex = "0380ed2f626650c840b2f263e6d2b29fae12ab39ae5db32b25ad27efad72e6fd";
        let rows = [
            (r#""x""#.to_owned(), NotAnObject),
            ("null".to_owned(), NotAnObject),
            ("[]".to_owned(), NotAnObject),
            ("{}".to_owned(), Unsupported),
            (r#"{"jwk":{"kty":"EC"}}"#.to_owned(), Unsupported),
            (r#"{"kid":"a","jku":"https://a","x5u":"https://b"}"#.to_owned(), Unsupported),
            (r#"{"X5T#S256":"a"}"#.to_owned(), Unsupported),
            (format!(r#"{{"x5t#S256":"{hex}"}}"#), ThumbprintMalformed("x5t#S256")),
            (format!(r#"{{"x5t#S256":"{THUMBPRINT}="}}"#), ThumbprintMalformed("x5t#S256")),
            (format!(r#"{{"x5t#S256":"{}1"}}"#, &THUMBPRINT[..42]), ThumbprintMalformed("x5t#S256")),
            (format!(r#"{{"x5t#S256":"{}"}}"#, &THUMBPRINT[..42]), ThumbprintMalformed("x5t#S256")),
            (format!(r#"{{"x5t#S256":["{THUMBPRINT}"]}}"#), ThumbprintMalformed("x5t#S256")),
            (r#"{"x5t#S256":null}"#.to_owned(), ThumbprintMalformed("x5t#S256")),
            (format!(r#"{{"x5t#S256":"{THUMBPRINT}","jkt":7}}"#), ThumbprintMalformed("jkt")),
            (
                r#"{"x5t#S256":"A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v+"}"#.to_owned(),
                ThumbprintMalformed("x5t#S256"),
            ),
        ];
        for (cnf, expected) in rows {
            assert_eq!(read(&format!(r#"{{"cnf":{cnf}}}"#)), Err(expected), "{cnf}");
        }
    }
}
