//! What a token that nobody has verified says of its issuer.

use std::sync::Arc;

use portcullis_core::json::{Limits, Object, Value, parse_object};
use portcullis_core::{Reason, Rejection};
use portcullis_jose::{base64url, is_like_id_token, is_never_access_token};

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
        match Parts::of(token) {
            Parts { claims: Some(claims), .. } => Self::named_in(&claims),
            Parts { header: Some(_), encrypted: false, .. } => Self::Unreadable,
            // Encrypted ones may repeat the claim in front (RFC 7519 section 5.3).
            Parts { header: Some(header), .. } => Self::named_in(&header),
            Parts { header: None, .. } => Self::Opaque,
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

/// Refuses a JSON Web Token that says of itself that it is no access token. SECURITY: a provider may know it all the same:
/// it knows the ID tokens, the logout tokens and the proofs it was shown (JWT-30, JWT-32).
///
/// # Errors
/// Its `typ` names another kind, or it has the claims of an ID token and those are refused.
pub(super) fn refuse_other_kinds(token: &[u8], id_tokens_refused: bool) -> Result<(), Rejection> {
    let refused = |why: &str| Err(Rejection::new(Reason::TokenTypeRefused).because(why));
    let Parts { header, claims, .. } = Parts::of(token);
    match header.as_ref().and_then(|header| header.get("typ")) {
        None => {}
        Some(Value::Text(kind)) if !is_never_access_token(kind) => {}
        Some(_) => return refused("`typ` says that it is no access token"),
    }
    if id_tokens_refused && claims.as_ref().is_some_and(is_like_id_token) {
        return refused("the token looks like an ID token");
    }
    Ok(())
}

/// What can be read of a JSON Web Token; nothing of what is none.
#[derive(Default)]
struct Parts {
    header: Option<Object>,
    claims: Option<Object>,
    encrypted: bool,
}

impl Parts {
    fn of(token: &[u8]) -> Self {
        if token.len() > MAX_LOOK {
            return Self::default();
        }
        let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
        match parts.as_slice() {
            [header, payload, _signature] => match object(header) {
                Some(header) => Self { header: Some(header), claims: object(payload), encrypted: false },
                None => Self::default(),
            },
            [header, _, _, _, _] => Self { header: object(header), claims: None, encrypted: true },
            _ => Self::default(),
        }
    }
}

fn object(part: &[u8]) -> Option<Object> {
    parse_object(&base64url::decode(part).ok()?, Limits::default()).ok()
}

#[cfg(test)]
mod tests {
    use super::{Shape, refuse_other_kinds};
    use portcullis_core::Reason;
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

    /// JWT-30, JWT-32: what is verified by nobody here is still no access token where it says so itself.
    #[test]
    fn what_says_that_it_is_no_access_token_is_refused() {
        let part = |text: &str| base64url::encode(text.as_bytes());
        let jws = |header: &str, claims: &str| format!("{}.{}.c2ln", part(header), part(claims));
        for (token, always, as_id_token) in [
            (jws(r#"{"typ":"at+jwt"}"#, "{}"), false, false),
            (jws(r#"{"typ":"JWT"}"#, r#"{"sub":"a"}"#), false, false),
            (jws("{}", "{}"), false, false),
            (jws(r#"{"typ":"dpop+jwt"}"#, "{}"), true, true),
            (jws(r#"{"typ":"application/logout+jwt"}"#, "{}"), true, true),
            (jws(r#"{"typ":"Token-Introspection+JWT"}"#, "{}"), true, true),
            (jws(r#"{"typ":7}"#, "{}"), true, true),
            (jws(r#"{"typ":"logout+jwt"}"#, "no JSON"), true, true),
            (format!("{}.a.b.c.d", part(r#"{"typ":"secevent+jwt"}"#)), true, true),
            (jws("{}", r#"{"nonce":"n"}"#), false, true),
            (jws("{}", r#"{"at_hash":null}"#), false, true),
            (jws(r#"{"typ":"at+jwt"}"#, r#"{"c_hash":"h"}"#), false, true),
            ("NtBQkXoKElu0H1a1fQ0DWfo6IX4a".to_owned(), false, false),
            ("a.b.c".to_owned(), false, false),
        ] {
            let refused = |id_tokens_refused| match refuse_other_kinds(token.as_bytes(), id_tokens_refused) {
                Ok(()) => false,
                Err(rejection) => rejection.reason() == Reason::TokenTypeRefused,
            };
            assert_eq!((refused(false), refused(true)), (always, as_id_token), "{token}");
        }
    }
}
