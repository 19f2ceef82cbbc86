//! What a token that nobody has verified says of its issuer.

use std::sync::Arc;

use portcullis_core::json::{Limits, Object, Value, parse_object};
use portcullis_jose::base64url;

/// The longest token that is looked into, in bytes: what verifies signatures takes no longer one either.
const MAX_LOOK: usize = 16 * 1024;

/// Whether a token is a signed one, and whose it says it is. Only good for choosing who judges it.
///
/// SECURITY: read more leniently than by those who verify: a token that names an algorithm nobody here knows still
/// names its issuer, and is not to be shown to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// It is no JSON Web Token.
    Opaque,
    /// It is one that does not say who issued it.
    Unnamed,
    /// It names this issuer.
    Of(Arc<str>),
    /// It is a JSON Web Token whose issuer cannot be read.
    Unreadable,
}

impl Shape {
    pub(crate) fn of(token: &[u8]) -> Self {
        if token.len() > MAX_LOOK {
            return Self::Opaque;
        }
        let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
        let [header, rest @ ..] = parts.as_slice() else { return Self::Opaque };
        let Some(header) = object(header) else { return Self::Opaque };
        match rest {
            [payload, _signature] => match object(payload) {
                Some(claims) => Self::named_in(&claims),
                None => Self::Unreadable,
            },
            // Encrypted ones may repeat the claim in front (RFC 7519 section 5.3).
            [_, _, _, _] => Self::named_in(&header),
            _ => Self::Opaque,
        }
    }

    fn named_in(claims: &Object) -> Self {
        match claims.get("iss") {
            None => Self::Unnamed,
            Some(Value::Text(iss)) => Self::Of(iss.clone()),
            Some(_) => Self::Unreadable,
        }
    }

    /// The issuer it names, for those who verify signatures.
    pub(crate) fn issuer(&self) -> Option<&str> {
        match self {
            Self::Of(iss) => Some(iss),
            Self::Opaque | Self::Unnamed | Self::Unreadable => None,
        }
    }

    /// Whether it is a JSON Web Token.
    pub(crate) fn is_signed(&self) -> bool {
        *self != Self::Opaque
    }
}

fn object(part: &[u8]) -> Option<Object> {
    parse_object(&base64url::decode(part).ok()?, Limits::default()).ok()
}

#[cfg(test)]
mod tests {
    use super::Shape;
    use portcullis_jose::base64url;

    #[test]
    fn issuers_are_read_whatever_else_a_token_says() {
        let part = |text: &str| base64url::encode(text.as_bytes());
        let jws = |header: &str, claims: &str| format!("{}.{}.c2ln", part(header), part(claims));
        let of = |iss: &str| Shape::Of(iss.into());
        for (token, expected) in [
            (jws(r#"{"alg":"ES256"}"#, r#"{"iss":"a"}"#), of("a")),
            (jws(r#"{"alg":"none"}"#, r#"{"iss":"a"}"#), of("a")),
            (jws(r#"{"alg":"unheard of","crit":["x"]}"#, r#"{"iss":"a"}"#), of("a")),
            (jws("{}", r#"{"iss":"a"}"#), of("a")),
            (format!("{}.{}.", part("{}"), part(r#"{"iss":"a"}"#)), of("a")),
            (jws("{}", r#"{"sub":"a"}"#), Shape::Unnamed),
            (jws("{}", r#"{"iss":7}"#), Shape::Unreadable),
            (jws("{}", r#"{"iss":"a","iss":"b"}"#), Shape::Unreadable),
            (jws("{}", "[]"), Shape::Unreadable),
            (format!("{}.!.c2ln", part("{}")), Shape::Unreadable),
            (format!("{}.a.b.c.d", part(r#"{"alg":"RSA-OAEP","iss":"a"}"#)), of("a")),
            (format!("{}.a.b.c.d", part(r#"{"alg":"RSA-OAEP"}"#)), Shape::Unnamed),
            (format!("{}.{}", part("{}"), part(r#"{"iss":"a"}"#)), Shape::Opaque),
            ("NtBQkXoKElu0H1a1fQ0DWfo6IX4a".into(), Shape::Opaque),
            ("ory_at_abc.def".into(), Shape::Opaque),
            ("a.b.c".into(), Shape::Opaque),
            (String::new(), Shape::Opaque),
            ("...".into(), Shape::Opaque),
        ] {
            assert_eq!(Shape::of(token.as_bytes()), expected, "{token}");
        }
    }
}
