//! What an issuer's tokens must say (RFC 7519 section 4, RFC 8725).
//!
//! The checks come in two parts. [`ClaimRules::check_static`] depends on the token and the rules alone, so a cache
//! may remember its outcome; [`TokenTimes::check`] depends on the clock and is repeated for every request.

mod error;
mod kind;
#[cfg(test)]
mod tests;
mod times;

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::json::{Object, Value};

use crate::JwsHeader;

pub use error::ClaimError;
pub(crate) use kind::same as is_kind;
pub use kind::{TypeRule, is_never_access_token};
pub(crate) use times::numeric_date;
pub use times::{Skew, TokenTimes};

/// The longest `sub`, `jti` or other name that is taken as one (JWT-28, JWT-29), in bytes.
const NAME_MAX: usize = 255;

/// Registered claims that are names: never empty, never something else than a string (RFC 7519, RFC 8693).
const NAMES: [&str; 4] = ["iss", "sub", "jti", "client_id"];

/// Claims that only ID tokens carry (OpenID Connect Core sections 2 and 3.3.2.11).
const OF_ID_TOKENS: [&str; 3] = ["nonce", "at_hash", "c_hash"];

/// What is asked of `iss` (JWT-25). Compared code point by code point: no URL is normalised, no slash forgiven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerRule {
    /// It must be there and be this.
    Required(Arc<str>),
    /// If it is there it must be this. For issuers whose tokens carry no `iss`, chosen by the API's own policy.
    Optional(Arc<str>),
    /// It must be there. What it must be is judged on every request, by the caller of these rules: it is a name in
    /// the certificate the request came with (CHN-02).
    OfCertificate,
    /// Whatever it is. For answers of a provider that was asked itself, where nothing depends on the name.
    Unchecked,
}

/// The rules for one issuer's tokens.
#[derive(Clone, Debug)]
pub struct ClaimRules {
    /// What is asked of `iss`.
    pub issuer: IssuerRule,
    /// One of these must be in `aud` (JWT-27). `None` leaves `aud` unchecked; an empty list matches no token.
    pub audiences: Option<Vec<Arc<str>>>,
    /// Whether `aud` may name nobody else.
    pub sole_audience: bool,
    /// How far the issuer's clock may be off.
    pub skew: Skew,
    /// The longest time from `iat` to `exp` (JWT-24).
    pub max_lifetime: Option<Duration>,
    /// The longest time since `iat` (JWT-24).
    pub max_age: Option<Duration>,
    /// Claims that must be there. A registered name among them must be a string of 1 to 255 bytes.
    pub required: Vec<Arc<str>>,
    /// Whether `exp` must be there (JWT-21).
    pub exp_required: bool,
    /// What is asked of `typ` (JWT-30).
    pub types: TypeRule,
    /// What is asked of `cty` (JWT-31).
    pub content_types: TypeRule,
    /// Whether tokens that look like ID tokens are refused (JWT-32). Where they are not, tokens are held to what
    /// OpenID Connect Core section 3.1.3.7 asks of `azp`, `iat` and `nonce`.
    pub id_tokens_refused: bool,
}

impl ClaimRules {
    /// The rules we recommend: `iss`, `aud` and `exp` required, clocks off by at most 0, 10 and 10 seconds, `typ`
    /// absent or `JWT`, `cty` absent, no ID tokens.
    pub fn new(issuer: impl Into<Arc<str>>, audiences: Vec<Arc<str>>) -> Self {
        Self {
            issuer: IssuerRule::Required(issuer.into()),
            audiences: Some(audiences),
            sole_audience: false,
            skew: Skew::default(),
            max_lifetime: None,
            max_age: None,
            required: Vec::new(),
            exp_required: true,
            types: TypeRule::absent_or(["JWT"]),
            content_types: TypeRule::absent(),
            id_tokens_refused: true,
        }
    }

    /// Checks everything that does not depend on the clock.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check_static(&self, header: &JwsHeader, claims: &Object) -> Result<TokenTimes, ClaimError> {
        self.types.check_type(header.kind.as_deref())?;
        self.content_types.check_content_type(header.content_type.as_deref())?;
        if self.id_tokens_refused && is_like_id_token(claims) {
            return Err(ClaimError::IdToken);
        }
        if !self.id_tokens_refused {
            self.check_id_token(claims)?;
        }
        self.check_claims(claims)
    }

    /// [`Self::check_static`] for claims that did not come in a token of their own: what a provider says of a token.
    /// Nothing is asked of `typ` and `cty`, which only a token has.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check_claims(&self, claims: &Object) -> Result<TokenTimes, ClaimError> {
        // SECURITY: a claim of the wrong kind is malformed, never absent (CVE-2026-25537).
        for name in NAMES {
            check_name(claims, name)?;
        }
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        for name in &self.required {
            if matches!(claims.get(name), None | Some(Value::Null)) {
                return Err(ClaimError::Missing(Arc::clone(name)));
            }
        }
        let times = TokenTimes::read(claims)?;
        times.check_static(self)?;
        Ok(times)
    }

    fn check_issuer(&self, claims: &Object) -> Result<(), ClaimError> {
        let found = claims.get("iss").and_then(Value::as_text);
        match (found, &self.issuer) {
            (_, IssuerRule::Unchecked)
            | (Some(_), IssuerRule::OfCertificate)
            | (None, IssuerRule::Optional(_)) => Ok(()),
            (Some(found), IssuerRule::Required(expected) | IssuerRule::Optional(expected)) => {
                if found == expected { Ok(()) } else { Err(ClaimError::OtherIssuer) }
            }
            (None, IssuerRule::Required(_) | IssuerRule::OfCertificate) => {
                Err(ClaimError::Missing("iss".into()))
            }
        }
    }

    /// An ID token says when it was made, names the party it was made for where it names several, and the hashes
    /// and the nonce are strings. SECURITY: whether the nonce is the one of a login only the client that logged
    /// somebody in can know.
    fn check_id_token(&self, claims: &Object) -> Result<(), ClaimError> {
        for name in OF_ID_TOKENS {
            check_name(claims, name)?;
        }
        check_name(claims, "azp")?;
        if matches!(claims.get("iat"), None | Some(Value::Null)) {
            return Err(ClaimError::Missing("iat".into()));
        }
        let several = matches!(claims.get("aud"), Some(Value::List(named)) if named.len() > 1);
        match (claims.get("azp").and_then(Value::as_text), &self.audiences) {
            (Some(party), Some(audiences)) if !audiences.contains(party) => Err(ClaimError::OtherAudience),
            (None, _) if several => Err(ClaimError::Missing("azp".into())),
            _ => Ok(()),
        }
    }

    fn check_audience(&self, claims: &Object) -> Result<(), ClaimError> {
        let malformed = ClaimError::Malformed("aud");
        let named: &[Value] = match claims.get("aud") {
            None if self.audiences.is_some() => return Err(ClaimError::Missing("aud".into())),
            None => return Ok(()),
            Some(Value::List(named)) if named.iter().all(|one| one.as_text().is_some()) => named,
            Some(text @ Value::Text(_)) => std::slice::from_ref(text),
            Some(_) => return Err(malformed),
        };
        let Some(audiences) = &self.audiences else {
            return Ok(());
        };
        // An empty string names nobody, even where somebody wrote an empty string into a policy.
        let is_ours =
            |one: &Value| one.as_text().is_some_and(|one| !one.is_empty() && audiences.contains(one));
        match (named.iter().any(is_ours), self.sole_audience && !named.iter().all(is_ours)) {
            (true, false) => Ok(()),
            _ => Err(ClaimError::OtherAudience),
        }
    }
}

/// Whether these are claims that only ID tokens carry (JWT-32).
pub fn is_like_id_token(claims: &Object) -> bool {
    OF_ID_TOKENS.iter().any(|name| claims.get(name).is_some())
}

/// A claim that is a name, if it is there: a string of 1 to 255 bytes.
fn check_name(claims: &Object, name: &'static str) -> Result<(), ClaimError> {
    match claims.get(name) {
        None => Ok(()),
        Some(Value::Text(text)) if (1..=NAME_MAX).contains(&text.len()) => Ok(()),
        Some(_) => Err(ClaimError::Malformed(name)),
    }
}
