//! Every rule about claims, both sides of every boundary.

use std::time::Duration;

use portcullis_core::json::{Limits, parse_object};
use portcullis_core::{Moment, Reason, Rejection};

use super::{ClaimError, ClaimRules, IssuerRule, Skew, TokenTimes, TypeRule};
use crate::{Algorithm, JwsHeader};

const NOW: i64 = 1_700_000_000;
const HEADER: JwsHeader = JwsHeader {
    algorithm: Algorithm::Es256,
    key_id: None,
    kind: None,
    content_type: None,
    certificate_thumbprint: None,
};

fn rules() -> ClaimRules {
    ClaimRules::new("https://idp.example", vec!["api".into(), "api-2".into()])
}

fn statically(rules: &ClaimRules, claims: &str) -> Result<TokenTimes, ClaimError> {
    rules.check_static(&HEADER, &parse_object(claims.as_bytes(), Limits::default()).expect(claims))
}

/// Checks all at a moment, in seconds, so that a row reads as a token meets the gateway.
fn at(rules: &ClaimRules, claims: &str, seconds: f64) -> Result<(), ClaimError> {
    #[expect(clippy::cast_possible_truncation, reason = "test times are small")]
    let now = Moment { unix_ms: (seconds * 1000.0) as i64, monotonic: Duration::ZERO };
    statically(rules, claims)?.check(rules, now)
}

fn token(members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    format!(r#"{{"iss":"https://idp.example","aud":"api","exp":{}{comma}{members}}}"#, NOW + 60)
}

fn malformed(name: &'static str) -> ClaimError {
    ClaimError::Malformed(name)
}

fn missing(name: &str) -> ClaimError {
    ClaimError::Missing(name.into())
}

/// JWT-20.
#[test]
fn times_are_json_numbers_in_range() {
    let mut lenient = rules();
    lenient.exp_required = false;
    for name in ["exp", "nbf", "iat"] {
        for bad in [
            r#""1700000000""#,
            "true",
            "null",
            "[]",
            "{}",
            "-1",
            "-0.5",
            "9007199254740993",
            "1e16",
            "1e300",
            "18446744073709551615",
            "99999999999999999999",
        ] {
            let claims = format!(r#"{{"iss":"https://idp.example","aud":"api","{name}":{bad}}}"#);
            let expected = ["exp", "nbf", "iat"].into_iter().find(|own| *own == name).map(malformed);
            assert_eq!(statically(&lenient, &claims).err(), expected, "{claims}");
        }
        for good in ["0", "1700000000", "1700000000.25", "1.7e9", "17E8", "9007199254740992", "-0"] {
            let claims = format!(r#"{{"iss":"https://idp.example","aud":"api","{name}":{good}}}"#);
            assert!(statically(&lenient, &claims).is_ok(), "{claims}");
        }
    }
}

/// JWT-21.
#[test]
fn a_token_counts_until_exp_and_its_skew() {
    let claims = |exp: &str| format!(r#"{{"iss":"https://idp.example","aud":"api","exp":{exp}}}"#);
    let now = |seconds: f64, exp: &str, skew: u64| {
        let rules =
            ClaimRules { skew: Skew { exp: Duration::from_secs(skew), ..Skew::default() }, ..rules() };
        at(&rules, &claims(exp), seconds)
    };
    assert_eq!(now(99.999, "100", 0), Ok(()));
    assert_eq!(now(100.0, "100", 0), Err(ClaimError::Expired));
    assert_eq!(now(109.999, "100", 10), Ok(()));
    assert_eq!(now(110.0, "100", 10), Err(ClaimError::Expired));
    assert_eq!(now(100.499, "100.5", 0), Ok(()));
    assert_eq!(now(100.5, "100.5", 0), Err(ClaimError::Expired));
    assert_eq!(now(99.0, "1e2", 0), Ok(()));
    assert_eq!(now(160.0, "100", 3600), Err(ClaimError::Expired), "the skew is capped at a minute");
    assert_eq!(now(1e9, "9007199254740992", 60), Ok(()));
    assert_eq!(statically(&rules(), r#"{"iss":"https://idp.example","aud":"api"}"#), Err(missing("exp")));
    let lenient = ClaimRules { exp_required: false, ..rules() };
    assert_eq!(at(&lenient, r#"{"iss":"https://idp.example","aud":"api"}"#, 1e12), Ok(()));
}

/// JWT-22, JWT-23: each claim has a skew of its own, and none is added twice.
#[test]
fn a_token_does_not_count_before_its_time() {
    let (now, rules) = (1_700_000_000.0, rules());
    for (name, error) in [("nbf", ClaimError::NotYetValid), ("iat", ClaimError::IssuedInFuture)] {
        for (seconds, expected) in [
            ("1700000000", Ok(())),
            ("1700000010", Ok(())),
            ("1700000010.001", Err(error.clone())),
            ("1700000011", Err(error.clone())),
            ("1700000070", Err(error.clone())),
        ] {
            assert_eq!(
                at(&rules, &token(&format!(r#""{name}":{seconds}"#)), now),
                expected,
                "{name} {seconds}"
            );
        }
    }
    let separate = ClaimRules {
        skew: Skew { exp: Duration::ZERO, nbf: Duration::ZERO, iat: Duration::from_secs(30) },
        ..rules
    };
    assert_eq!(at(&separate, &token(r#""nbf":1700000001"#), now), Err(ClaimError::NotYetValid));
    assert_eq!(at(&separate, &token(r#""iat":1700000030"#), now), Ok(()));
}

/// JWT-24.
#[test]
fn lifetime_and_age_are_bounded() {
    let short = ClaimRules { max_lifetime: Some(Duration::from_secs(100)), ..rules() };
    let issued = |ago: i64| token(&format!(r#""iat":{}"#, NOW - ago));
    assert!(statically(&short, &issued(40)).is_ok());
    assert_eq!(statically(&short, &issued(41)), Err(ClaimError::LifetimeTooLong));
    assert_eq!(statically(&short, &token("")), Err(missing("iat")));
    let lenient = ClaimRules { exp_required: false, ..short };
    let endless = format!(r#"{{"iss":"https://idp.example","aud":"api","iat":{NOW}}}"#);
    assert_eq!(
        statically(&lenient, &endless),
        Err(missing("exp")),
        "an endless token has no lifetime to bound"
    );

    let young = ClaimRules { max_age: Some(Duration::from_secs(30)), ..rules() };
    assert_eq!(at(&young, &issued(30), 1_700_000_000.0), Ok(()));
    assert_eq!(at(&young, &issued(31), 1_700_000_000.0), Err(ClaimError::TooOld));
    assert_eq!(statically(&young, &token("")), Err(missing("iat")));
}

/// JWT-25.
#[test]
fn the_issuer_is_compared_code_point_by_code_point() {
    let required = rules();
    let optional = ClaimRules { issuer: IssuerRule::Optional("https://idp.example".into()), ..rules() };
    let claims = |iss: &str| format!(r#"{{"iss":{iss},"aud":"api","exp":{}}}"#, NOW);
    for rules in [&required, &optional] {
        assert!(statically(rules, &claims(r#""https://idp.example""#)).is_ok());
        for other in [
            "https://idp.example/",
            "https://IDP.example",
            "http://idp.example",
            "https://idp.example:443",
            "idp",
            " https://idp.example",
            "https://idp.example.attacker.test",
            "https://idp.exampl",
        ] {
            assert_eq!(
                statically(rules, &claims(&format!("\"{other}\""))),
                Err(ClaimError::OtherIssuer),
                "{other}"
            );
        }
        for bad in ["7", "null", r#"["https://idp.example"]"#, r#"{"a":1}"#, "true", r#""""#] {
            assert_eq!(statically(rules, &claims(bad)), Err(malformed("iss")), "{bad}");
        }
    }
    let without = format!(r#"{{"aud":"api","exp":{NOW}}}"#);
    assert_eq!(statically(&required, &without), Err(missing("iss")));
    assert!(statically(&optional, &without).is_ok());
}

/// JWT-27.
#[test]
fn the_audience_must_be_ours() {
    let claims = |aud: &str| format!(r#"{{"iss":"https://idp.example","aud":{aud},"exp":{NOW}}}"#);
    let (any, off) = (rules(), ClaimRules { audiences: None, ..rules() });
    let sole = ClaimRules { sole_audience: true, ..rules() };
    let rows = [
        (r#""api""#, Ok(()), Ok(())),
        (r#"["api"]"#, Ok(()), Ok(())),
        (r#"["api","api-2"]"#, Ok(()), Ok(())),
        (r#"["other","api"]"#, Ok(()), Err(ClaimError::OtherAudience)),
        (r#""API""#, Err(ClaimError::OtherAudience), Err(ClaimError::OtherAudience)),
        (r#""api/""#, Err(ClaimError::OtherAudience), Err(ClaimError::OtherAudience)),
        (r#""ap""#, Err(ClaimError::OtherAudience), Err(ClaimError::OtherAudience)),
        (r#""api api-2""#, Err(ClaimError::OtherAudience), Err(ClaimError::OtherAudience)),
        (r#""""#, Err(ClaimError::OtherAudience), Err(ClaimError::OtherAudience)),
        ("[]", Err(ClaimError::OtherAudience), Err(ClaimError::OtherAudience)),
        (r#"["api",7]"#, Err(malformed("aud")), Err(malformed("aud"))),
        (r#"{"api":true}"#, Err(malformed("aud")), Err(malformed("aud"))),
    ];
    for (aud, with_any, with_sole) in rows {
        assert_eq!(statically(&any, &claims(aud)).map(drop), with_any, "{aud}");
        assert_eq!(statically(&sole, &claims(aud)).map(drop), with_sole, "{aud}");
    }
    let without = format!(r#"{{"iss":"https://idp.example","exp":{NOW}}}"#);
    assert_eq!(statically(&any, &without), Err(missing("aud")));
    assert!(statically(&off, &without).is_ok());
    assert!(statically(&off, &claims(r#""somebody""#)).is_ok());
    assert_eq!(statically(&off, &claims("null")), Err(malformed("aud")), "unchecked is not unread");
    // An empty text matches nothing, and an empty list of audiences matches no token.
    let empty = ClaimRules { audiences: Some(vec!["".into()]), ..rules() };
    assert_eq!(statically(&empty, &claims(r#""""#)), Err(ClaimError::OtherAudience));
    let none = ClaimRules { audiences: Some(Vec::new()), ..rules() };
    assert_eq!(statically(&none, &claims(r#""api""#)), Err(ClaimError::OtherAudience));
}

/// JWT-28, JWT-29: names are texts of 1 to 255 bytes, also where nobody asked for them.
#[test]
fn names_are_texts_of_sensible_length() {
    for name in ["sub", "jti", "client_id"] {
        let of = |value: &str| token(&format!(r#""{name}":{value}"#));
        for bad in ["7", "null", r#""""#, "[]", r#"["a"]"#, "true", &format!("\"{}\"", "x".repeat(256))] {
            let error = statically(&rules(), &of(bad)).expect_err(bad);
            assert!(matches!(error, ClaimError::Malformed(own) if own == name), "{name} {bad}: {error:?}");
        }
        assert!(statically(&rules(), &of(&format!("\"{}\"", "x".repeat(255)))).is_ok());
    }
}

#[test]
fn required_claims_must_be_there() {
    let strict = ClaimRules {
        required: ["sub", "client_id", "iat", "jti", "tier"].into_iter().map(Into::into).collect(),
        ..rules()
    };
    let full = r#""sub":"a","client_id":"b","iat":1,"jti":"c","tier":["gold"]"#;
    assert!(statically(&strict, &token(full)).is_ok());
    for (member, name) in [
        (r#""sub":"a","#, "sub"),
        (r#""client_id":"b","#, "client_id"),
        (r#""iat":1,"#, "iat"),
        (r#""jti":"c","#, "jti"),
        (r#","tier":["gold"]"#, "tier"),
    ] {
        assert_eq!(statically(&strict, &token(&full.replace(member, ""))), Err(missing(name)));
    }
    assert_eq!(statically(&strict, &token(&full.replace(r#"["gold"]"#, "null"))), Err(missing("tier")));
}

/// JWT-30.
#[test]
fn the_type_of_a_token_is_what_its_issuer_writes() {
    let other = Err(ClaimError::OtherType);
    let kind = |types: TypeRule, found: Option<&str>| {
        let rules = ClaimRules { types, ..rules() };
        let header = JwsHeader { kind: found.map(Into::into), ..HEADER };
        let claims = parse_object(token("").as_bytes(), Limits::default()).expect("valid");
        rules.check_static(&header, &claims).map(drop)
    };
    for good in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        assert_eq!(kind(TypeRule::access_token(), Some(good)), Ok(()), "{good}");
    }
    for bad in ["JWT", "at+jwt ", "at", "application/application/at+jwt", "text/at+jwt", "", "at+jwt;v=1"] {
        assert_eq!(kind(TypeRule::access_token(), Some(bad)), other, "{bad}");
    }
    assert_eq!(kind(TypeRule::access_token(), None), other);
    assert_eq!(kind(TypeRule::absent_or(["JWT"]), None), Ok(()));
    assert_eq!(kind(TypeRule::absent_or(["JWT"]), Some("jwt")), Ok(()));
    assert_eq!(kind(TypeRule::absent_or(["JWT"]), Some("at+jwt")), other);
    assert_eq!(kind(TypeRule::one_of(["JOSE"]), Some("JOSE")), Ok(()));
    assert_eq!(kind(TypeRule::one_of(["JOSE"]), None), other);
    for never in super::kind::NEVER {
        for spelling in [never.to_owned(), format!("application/{never}"), never.to_uppercase()] {
            assert_eq!(
                kind(TypeRule::one_of([never]), Some(&spelling)),
                other,
                "{spelling}, even if it is configured"
            );
        }
    }
}

/// JWT-31, trap 9.
#[test]
fn nested_tokens_are_refused_unless_configured() {
    let content = |content_types: TypeRule, found: Option<&str>| {
        let rules = ClaimRules { content_types, ..rules() };
        let header = JwsHeader { content_type: found.map(Into::into), ..HEADER };
        let claims = parse_object(token("").as_bytes(), Limits::default()).expect("valid");
        rules.check_static(&header, &claims).map(drop)
    };
    assert_eq!(content(TypeRule::absent(), None), Ok(()));
    assert_eq!(content(TypeRule::absent(), Some("JWT")), Err(ClaimError::OtherContentType));
    assert_eq!(content(TypeRule::absent(), Some("json")), Err(ClaimError::OtherContentType));
    assert_eq!(content(TypeRule::absent_or(["json"]), Some("application/json")), Ok(()));
    assert_eq!(content(TypeRule::absent_or(["json"]), Some("JWT")), Err(ClaimError::OtherContentType));
    assert_eq!(content(TypeRule::one_of(["json"]), None), Err(ClaimError::OtherContentType));
}

/// JWT-32, OpenID Connect Core section 3.1.3.7.
#[test]
fn id_tokens_are_refused_unless_configured() {
    let tolerant = ClaimRules { id_tokens_refused: false, ..rules() };
    for name in ["nonce", "at_hash", "c_hash"] {
        for (value, tolerated) in
            [(r#""a""#, Ok(())), ("null", Err(malformed(name))), ("7", Err(malformed(name)))]
        {
            let claims = token(&format!(r#""iat":{NOW},"{name}":{value}"#));
            assert_eq!(statically(&rules(), &claims), Err(ClaimError::IdToken), "{name}");
            assert_eq!(statically(&tolerant, &claims).map(drop), tolerated, "{name}");
        }
    }
    for (members, expected) in [
        (format!(r#""iat":{NOW}"#), Ok(())),
        (r#""sub":"a""#.to_owned(), Err(missing("iat"))),
        (format!(r#""iat":{NOW},"azp":"api-2""#), Ok(())),
        (format!(r#""iat":{NOW},"azp":"other""#), Err(ClaimError::OtherAudience)),
        (format!(r#""iat":{NOW},"azp":7"#), Err(malformed("azp"))),
    ] {
        assert_eq!(statically(&tolerant, &token(&members)).map(drop), expected, "{members}");
    }
    let several =
        format!(r#"{{"iss":"https://idp.example","aud":["api","x"],"iat":{NOW},"exp":{}}}"#, NOW + 60);
    assert_eq!(statically(&tolerant, &several).map(drop), Err(missing("azp")));
}

/// JWT-06, trap 8: the header and claims of an Amiko token.
#[test]
fn unknown_claims_are_ignored() {
    let amiko = ClaimRules {
        issuer: IssuerRule::Optional("amiko".into()),
        audiences: None,
        max_lifetime: Some(Duration::from_secs(3600)),
        required: vec!["sub".into()],
        ..rules()
    };
    let claims =
        format!(r#"{{"sub":"account-1","iat":{NOW},"exp":{},"branch":7,"x":{{"y":[]}}}}"#, NOW + 3600);
    assert_eq!(at(&amiko, &claims, 1_700_000_000.0), Ok(()));
}

#[test]
fn a_cache_learns_when_to_forget() {
    let skewed = ClaimRules { skew: Skew { exp: Duration::from_secs(10), ..Skew::default() }, ..rules() };
    let times = statically(&skewed, &token("")).expect("valid");
    assert_eq!(times.unusable_from_ms(&skewed), Some((NOW + 70) * 1000));
    let lenient = ClaimRules { exp_required: false, ..rules() };
    let endless = statically(&lenient, r#"{"iss":"https://idp.example","aud":"api"}"#).expect("valid");
    assert_eq!(endless.unusable_from_ms(&lenient), None);
}

#[test]
fn each_error_has_its_reason() {
    use ClaimError::{
        Expired, IdToken, IssuedInFuture, LifetimeTooLong, NotYetValid, OtherAudience, OtherContentType,
        OtherIssuer, OtherType, TooOld,
    };
    for (error, reason) in [
        (OtherType, Reason::TokenTypeRefused),
        (OtherContentType, Reason::TokenTypeRefused),
        (IdToken, Reason::TokenTypeRefused),
        (missing("exp"), Reason::TokenClaimInvalid),
        (malformed("exp"), Reason::TokenClaimInvalid),
        (OtherIssuer, Reason::TokenIssuerRefused),
        (OtherAudience, Reason::TokenAudienceRefused),
        (Expired, Reason::TokenExpired),
        (NotYetValid, Reason::TokenNotYetValid),
        (IssuedInFuture, Reason::TokenNotYetValid),
        (LifetimeTooLong, Reason::TokenLifetimeRefused),
        (TooOld, Reason::TokenLifetimeRefused),
    ] {
        let text = error.to_string();
        let rejection = Rejection::from(error);
        assert_eq!(rejection.reason(), reason);
        assert_eq!(rejection.detail().and_then(|detail| detail.inner.clone()), Some(text));
    }
}
