//! What a provider says of a token (RFC 7662 section 2.2), also where it signs it (RFC 9701).

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Moment;
use portcullis_core::json::{self, JsonError, Limits, Object, Value};

use crate::claims::is_kind;
use crate::{ClaimError, ClaimRules, IssuerRule, JwsHeader, TypeRule};

/// The `typ` of a signed answer, and the media type without `application/` (RFC 9701 section 5).
const SIGNED: &str = "token-introspection+jwt";

/// How old a signed answer may be. An answer is made for the question, so this is the time it takes to arrive.
const SIGNED_AGE: Duration = Duration::from_mins(1);

/// What is said of a token.
#[derive(Clone, Debug, PartialEq)]
pub enum Introspected {
    /// It grants nothing: unknown, revoked, expired, or not for us.
    Inactive,
    /// It counts, and this is what it says.
    Active(Object),
}

/// Why an answer says nothing about a token. SECURITY: such an answer is never taken for `inactive` nor for
/// `active`; nobody knows what it would have been (INT-02). The texts never repeat the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntrospectionError {
    /// Not one strict JSON object.
    #[error("the answer is not acceptable JSON: {0}")]
    Json(#[from] JsonError),
    /// `active` is missing, or something else than a boolean.
    #[error("`active` is not true or false")]
    Active,
    /// A signed answer that is not one by its `typ`.
    #[error("`typ` is not `token-introspection+jwt`")]
    Type,
    /// A signed answer without the object that holds what it says.
    #[error("`token_introspection` is not an object")]
    Missing,
    /// A signed answer of somebody else, for somebody else, or of another time.
    #[error(transparent)]
    Claims(#[from] ClaimError),
}

impl Introspected {
    /// Reads the body of an answer that is not signed.
    ///
    /// # Errors
    /// See [`IntrospectionError`].
    pub fn read(body: &[u8]) -> Result<Self, IntrospectionError> {
        Self::of(json::parse_object(body, Limits::default())?)
    }

    /// Reads the claims of a signed answer whose signature has been verified with the provider's own keys. They must
    /// come from the provider, be meant for us, and be of this minute. SECURITY: `sub`, `exp` and all else beside
    /// `token_introspection` speak of the answer, never of the token (INT-07).
    ///
    /// # Errors
    /// See [`IntrospectionError`].
    pub fn of_signed(
        header: &JwsHeader,
        claims: &Object,
        provider: &Arc<str>,
        recipient: &Arc<str>,
        now: Moment,
    ) -> Result<Self, IntrospectionError> {
        if !header.kind.as_deref().is_some_and(|kind| is_kind(kind, SIGNED)) {
            return Err(IntrospectionError::Type);
        }
        let rules = ClaimRules {
            issuer: IssuerRule::Required(provider.clone()),
            max_age: Some(SIGNED_AGE),
            exp_required: false,
            types: TypeRule::absent(),
            ..ClaimRules::new(provider.clone(), vec![recipient.clone()])
        };
        rules.check_claims(claims)?.check(&rules, now)?;
        match claims.get("token_introspection") {
            Some(Value::Object(said)) => Self::of(Object::clone(said)),
            _ => Err(IntrospectionError::Missing),
        }
    }

    fn of(said: Object) -> Result<Self, IntrospectionError> {
        match said.get("active") {
            Some(Value::Bool(true)) => Ok(Self::Active(said)),
            Some(Value::Bool(false)) => Ok(Self::Inactive),
            _ => Err(IntrospectionError::Active),
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::Moment;
    use portcullis_core::json::{Limits, parse_object};
    use serde_json::{Value, json};
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Introspected, IntrospectionError};
    use crate::{Algorithm, CompactJws, JwsLimits, SigningKey};

    /// INT-02: `true` and nothing else.
    #[test]
    fn active_is_a_boolean() {
        for (body, expected) in [
            (r#"{"active":true}"#, Some(true)),
            (r#"{"active":false}"#, Some(false)),
            (r#"{"active":false,"sub":"x","cnf":7}"#, Some(false)),
            (r#"{"active":"true"}"#, None),
            (r#"{"active":1}"#, None),
            (r#"{"active":null}"#, None),
            (r#"{"active":[true]}"#, None),
            (r#"{"active":{"active":true}}"#, None),
            (r#"{"Active":true}"#, None),
            (r#"{"active ":true}"#, None),
            (r#"{"active":true,"active":false}"#, None),
            (r#"{"active":false,"active":true}"#, None),
            (r#"{"active":true,"\u0061ctive":true}"#, None),
            (r#"{"active":true}{}"#, None),
            (r#"{"active":true"#, None),
            (r#"[{"active":true}]"#, None),
            ("true", None),
            ("", None),
            ("<html>", None),
            ("\u{feff}{\"active\":true}", None),
            (r"{}", None),
        ] {
            let read = Introspected::read(body.as_bytes());
            let active = read.ok().map(|said| matches!(said, Introspected::Active(_)));
            assert_eq!(active, expected, "{body}");
        }
    }

    /// The example of RFC 7662 section 2.2.
    #[test]
    fn the_example_of_the_standard_is_read() {
        let body = br#"{"active": true, "client_id": "l238j323ds-23ij4", "username": "jdoe",
            "scope": "read write dolphin", "sub": "Z5O3upPC88QrAjx00dis",
            "aud": "https://protected.example.net/resource", "iss": "https://server.example.com/",
            "exp": 1419356238, "iat": 1419350238, "extension_field": "twenty-seven"}"#;
        let Ok(Introspected::Active(said)) = Introspected::read(body) else { panic!("it is active") };
        assert_eq!(said.get("username").and_then(|name| name.as_text()).map(|name| &**name), Some("jdoe"));
    }

    const NOW: i64 = 1_582_000_000;

    fn signed(header: Value, claims: &Value) -> Result<Introspected, IntrospectionError> {
        let key = SigningKey::generate(Algorithm::Es256).expect("a key");
        let token = key.sign(header, claims).expect("a signature");
        let jws = CompactJws::parse(&token, JwsLimits::default()).expect("a token");
        let verified = jws.verify(&key.verifying_key().expect("a key")).expect("a signature");
        let claims = verified.claims(Limits::default()).expect("claims");
        let now = Moment { unix_ms: NOW * 1000, monotonic: Duration::ZERO };
        let (provider, recipient): (Arc<str>, Arc<str>) = ("https://as.example".into(), "gw".into());
        Introspected::of_signed(jws.header(), &claims, &provider, &recipient, now)
    }

    /// INT-07, RFC 9701 section 5.
    #[test]
    fn a_signed_answer_is_from_the_provider_for_us_and_fresh() {
        let good = json!({
            "iss": "https://as.example", "aud": "gw", "iat": NOW,
            "token_introspection": {"active": true, "sub": "a", "exp": 7},
        });
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            match value {
                Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
                value => claims[name] = value,
            }
            claims
        };
        let typ = |typ: &str| json!({ "typ": typ });
        for (header, claims, active) in [
            (typ("token-introspection+jwt"), good.clone(), Some(true)),
            (typ("application/Token-Introspection+JWT"), good.clone(), Some(true)),
            (typ("token-introspection+jwt"), with("aud", json!(["other", "gw"])), Some(true)),
            (
                typ("token-introspection+jwt"),
                with("token_introspection", json!({"active": false})),
                Some(false),
            ),
            (typ("JWT"), good.clone(), None),
            (typ("at+jwt"), good.clone(), None),
            (json!({}), good.clone(), None),
            (typ("token-introspection+jwt"), with("iss", json!("https://other.example")), None),
            (typ("token-introspection+jwt"), with("iss", Value::Null), None),
            (typ("token-introspection+jwt"), with("aud", json!("other")), None),
            (typ("token-introspection+jwt"), with("aud", Value::Null), None),
            (typ("token-introspection+jwt"), with("iat", json!(NOW - 61)), None),
            (typ("token-introspection+jwt"), with("iat", json!(NOW + 11)), None),
            (typ("token-introspection+jwt"), with("iat", Value::Null), None),
            (typ("token-introspection+jwt"), with("iat", json!("now")), None),
            (typ("token-introspection+jwt"), with("exp", json!(NOW)), None),
            (typ("token-introspection+jwt"), with("token_introspection", Value::Null), None),
            (typ("token-introspection+jwt"), with("token_introspection", json!("{\"active\":true}")), None),
            (typ("token-introspection+jwt"), with("token_introspection", json!({"active": "true"})), None),
            (typ("token-introspection+jwt"), with("token_introspection", json!({})), None),
        ] {
            let read = signed(header.clone(), &claims).ok();
            let read = read.map(|said| matches!(said, Introspected::Active(_)));
            assert_eq!(read, active, "{header} {claims}");
        }
    }

    #[test]
    fn what_stands_beside_the_object_is_not_what_is_said() {
        let claims = json!({
            "iss": "https://as.example", "aud": "gw", "iat": NOW, "sub": "outer", "active": true,
            "token_introspection": {"active": true, "sub": "inner"},
        });
        let said = signed(json!({"typ": "token-introspection+jwt"}), &claims).expect("an answer");
        assert_eq!(
            said,
            Introspected::Active(
                parse_object(br#"{"active":true,"sub":"inner"}"#, Limits::default()).expect("an object")
            )
        );
    }
}
