//! Profiles: named bundles of settings, each of which an entry can override.

use std::sync::Arc;
use std::time::Duration;

use portcullis_jose::{Algorithm, ClaimRules, IssuerRule, Skew, TypeRule};

use super::KeyIdRule;

/// The profiles of `issuers:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Ordinary tokens of an OAuth 2 provider; the algorithms must be said.
    Plain,
    /// JWT access tokens of RFC 9068.
    Rfc9068,
    /// Tokens an Amiko connector signs: RS256, no `kid`, no `typ` or `JWT`, `iss` and `aud` optional, an hour.
    Amiko,
}

/// The words in a policy file.
pub(super) const PROFILES: &[(&str, Profile)] =
    &[("plain", Profile::Plain), ("rfc9068", Profile::Rfc9068), ("amiko", Profile::Amiko)];

/// What a profile settles. `None` where the entry must say it itself.
pub(super) struct Defaults {
    pub(super) issuer: Option<&'static str>,
    pub(super) issuer_required: bool,
    pub(super) any_audience: bool,
    pub(super) algorithms: &'static [Algorithm],
    pub(super) key_id: KeyIdRule,
    pub(super) types: TypeRule,
    pub(super) content_types: TypeRule,
    pub(super) required: &'static [&'static str],
    pub(super) max_lifetime: Option<Duration>,
}

/// The life of an Amiko token, and how far its clock may be off.
const AMIKO_LIFETIME: Duration = Duration::from_secs(3_600 + 10);

impl Profile {
    pub(super) fn defaults(self) -> Defaults {
        match self {
            Self::Plain => Defaults {
                issuer: None,
                issuer_required: true,
                any_audience: false,
                algorithms: &[],
                key_id: KeyIdRule::Optional,
                types: TypeRule::absent_or(["JWT", "at+jwt"]),
                content_types: TypeRule::absent(),
                required: &[],
                max_lifetime: None,
            },
            Self::Rfc9068 => Defaults {
                issuer: None,
                issuer_required: true,
                any_audience: false,
                algorithms: &[Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa],
                key_id: KeyIdRule::WhenSeveral,
                types: TypeRule::access_token(),
                content_types: TypeRule::absent(),
                required: &["client_id", "iat", "jti"],
                max_lifetime: None,
            },
            Self::Amiko => Defaults {
                issuer: Some("amiko"),
                issuer_required: false,
                any_audience: true,
                algorithms: &[Algorithm::Rs256],
                key_id: KeyIdRule::Optional,
                types: TypeRule::absent_or(["JWT"]),
                content_types: TypeRule::absent(),
                required: &["iat"],
                max_lifetime: Some(AMIKO_LIFETIME),
            },
        }
    }
}

/// The rules every profile starts from: `exp` and `sub` always, no ID tokens.
pub(super) fn rules(issuer: IssuerRule, audiences: Option<Vec<Arc<str>>>, defaults: &Defaults) -> ClaimRules {
    let mut required: Vec<Arc<str>> = vec!["sub".into()];
    required.extend(defaults.required.iter().map(|name| Arc::from(*name)));
    ClaimRules {
        issuer,
        audiences,
        sole_audience: false,
        skew: Skew::default(),
        max_lifetime: defaults.max_lifetime,
        max_age: None,
        required,
        exp_required: true,
        types: defaults.types.clone(),
        content_types: defaults.content_types.clone(),
        id_tokens_refused: true,
    }
}
