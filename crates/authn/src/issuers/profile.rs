//! Profiles: named bundles of settings, each of which an entry can override.

use std::sync::Arc;
use std::time::Duration;

use portcullis_jose::{Algorithm, ClaimRules, IssuerRule, Skew, TypeRule};

use super::attributes::CertificateClaims;
use super::{BoundTo, KeyIdRule};

/// The profiles of `issuers:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Ordinary tokens of an OAuth 2 provider; the algorithms must be said.
    Plain,
    /// JWT access tokens of RFC 9068.
    Rfc9068,
    /// Tokens an Amiko connector signs: RS256, no `kid`, no `typ` or `JWT`, `iss` and `aud` optional, an hour.
    Amiko,
    /// Tokens an Ozone API hub signs for each request: PS256, `typ: JOSE`, `cty: json`, issuer and subject are the
    /// organisation and its unit in the hub's certificate, a minute at most, each used once.
    Ozone,
    /// Tokens of a WSO2 identity server, bound to the client's certificate.
    Wso2,
    /// Access tokens of the FAPI 2.0 security profile: as RFC 9068, always bound to their holder.
    Fapi2,
}

/// The words in a policy file.
pub(super) const PROFILES: &[(&str, Profile)] = &[
    ("plain", Profile::Plain),
    ("rfc9068", Profile::Rfc9068),
    ("fapi2", Profile::Fapi2),
    ("amiko", Profile::Amiko),
    ("ozone", Profile::Ozone),
    ("wso2", Profile::Wso2),
];

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
    pub(super) skew: Skew,
    pub(super) certificate_claims: &'static [(&'static str, &'static str)],
    pub(super) bound_to: BoundTo,
    pub(super) used_once: bool,
}

/// The life of an Amiko token, and how far its clock may be off.
const AMIKO_LIFETIME: Duration = Duration::from_secs(3_600 + 10);
/// The longest life of an Ozone token; half of it is recommended to those who sign.
const OZONE_LIFETIME: Duration = Duration::from_secs(60);
/// How far an Ozone hub's clock may be off, either way.
const OZONE_SKEW: Duration = Duration::from_secs(10);

impl Profile {
    pub(super) fn defaults(self) -> Defaults {
        let plain = Defaults {
            issuer: None,
            issuer_required: true,
            any_audience: false,
            algorithms: &[],
            key_id: KeyIdRule::Optional,
            types: TypeRule::absent_or(["JWT", "at+jwt"]),
            content_types: TypeRule::absent(),
            required: &[],
            max_lifetime: None,
            skew: Skew::default(),
            certificate_claims: &[],
            bound_to: BoundTo::Nothing,
            used_once: false,
        };
        match self {
            Self::Plain => plain,
            Self::Rfc9068 | Self::Fapi2 => Defaults {
                algorithms: &[Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa],
                key_id: KeyIdRule::WhenSeveral,
                types: TypeRule::access_token(),
                required: &["client_id", "iat", "jti"],
                bound_to: if self == Self::Fapi2 { BoundTo::Holder } else { BoundTo::Nothing },
                ..plain
            },
            Self::Amiko => Defaults {
                issuer: Some("amiko"),
                issuer_required: false,
                any_audience: true,
                algorithms: &[Algorithm::Rs256],
                types: TypeRule::absent_or(["JWT"]),
                required: &["iat"],
                max_lifetime: Some(AMIKO_LIFETIME),
                ..plain
            },
            Self::Ozone => Defaults {
                algorithms: &[Algorithm::Ps256],
                key_id: KeyIdRule::Required,
                types: TypeRule::one_of(["JOSE"]),
                content_types: TypeRule::one_of(["json"]),
                required: &["iat", "jti"],
                max_lifetime: Some(OZONE_LIFETIME),
                skew: Skew { exp: OZONE_SKEW, nbf: OZONE_SKEW, iat: OZONE_SKEW },
                certificate_claims: &[("iss", "o"), ("sub", "ou")],
                used_once: true,
                ..plain
            },
            Self::Wso2 => Defaults {
                algorithms: &[Algorithm::Ps256],
                key_id: KeyIdRule::Required,
                bound_to: BoundTo::Certificate,
                ..plain
            },
        }
    }

    /// Its word and its algorithms, where its standard allows no others (JWT-16: FAPI 2.0 section 5.4, and the UAE's
    /// profile of it, which Ozone hubs follow).
    pub(super) fn only_algorithms(self) -> Option<(&'static str, &'static [Algorithm])> {
        let word = match self {
            Self::Fapi2 => "fapi2",
            Self::Ozone => "ozone",
            Self::Plain | Self::Rfc9068 | Self::Amiko | Self::Wso2 => return None,
        };
        Some((word, self.defaults().algorithms))
    }

    /// Claims that must say what the caller's certificate says.
    pub(super) fn certificate_claims(self) -> CertificateClaims {
        CertificateClaims::of(self.defaults().certificate_claims)
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
        skew: defaults.skew,
        max_lifetime: defaults.max_lifetime,
        max_age: None,
        required,
        exp_required: true,
        types: defaults.types.clone(),
        content_types: defaults.content_types.clone(),
        id_tokens_refused: true,
    }
}

/// What each profile settles, key by key, as a table for the reference.
pub fn profile_table() -> String {
    let names: Vec<_> = PROFILES.iter().map(|(name, _)| format!("`{name}`")).collect();
    let mut table = format!("| key | {} |\n| --- |{}\n", names.join(" | "), " --- |".repeat(names.len()));
    for (key, cell) in ROWS {
        let cells: Vec<_> = PROFILES.iter().map(|(_, profile)| cell(&profile.defaults())).collect();
        table.push_str(&format!("| `{key}` | {} |\n", cells.join(" | ")));
    }
    table
}

type Cell = fn(&Defaults) -> String;

/// The keys of an issuer that a profile may settle.
const ROWS: &[(&str, Cell)] = &[
    ("issuer", |of| match (of.issuer, of.certificate_claims.iter().any(|(claim, _)| *claim == "iss")) {
        (Some(issuer), _) => format!("`{issuer}`"),
        (None, true) => "of the certificate".to_owned(),
        (None, false) => "must be written".to_owned(),
    }),
    ("iss", |of| if of.issuer_required { "required" } else { "optional" }.to_owned()),
    ("audience", |of| if of.any_audience { "`any`" } else { "must be written" }.to_owned()),
    ("algorithms", |of| {
        let words: Vec<_> = of.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
        if words.is_empty() { "must be written".to_owned() } else { words.join(", ") }
    }),
    ("type", |of| of.types.to_string()),
    ("content_type", |of| of.content_types.to_string()),
    ("kid", |of| of.key_id.as_str().to_owned()),
    ("required", |of| {
        [&["exp", "sub"], of.required]
            .concat()
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(" ")
    }),
    ("leeway", |of| {
        format!("{}s, {}s, {}s", of.skew.exp.as_secs(), of.skew.nbf.as_secs(), of.skew.iat.as_secs())
    }),
    ("max_lifetime", |of| of.max_lifetime.map_or_else(String::new, |life| format!("{}s", life.as_secs()))),
    ("certificate_claims", |of| {
        let pairs: Vec<_> =
            of.certificate_claims.iter().map(|(claim, word)| format!("`{claim}: {word}`")).collect();
        pairs.join(", ")
    }),
    ("bound_to", |of| match of.bound_to {
        BoundTo::Nothing => String::new(),
        BoundTo::Certificate => "`certificate`".to_owned(),
        BoundTo::Holder => "`holder`".to_owned(),
    }),
    ("used_once", |of| if of.used_once { "`true`" } else { "" }.to_owned()),
];
