//! What a token must be to be taken. Each refusal has its reason, its challenge, and never reaches the upstream.

use portcullis_core::Reason;
use portcullis_jose::Algorithm;
use serde_json::{Value, json};

use crate::rig::certificates::unix_now;
use crate::rig::idp::Idp;
use crate::rig::token::{Token, part};
use crate::rig::world::{BEARER, Plan, World};

/// Presents a token and checks that it is refused for this reason.
#[track_caller]
fn refused(world: &World, token: &str, reason: Reason) {
    let answer = world.plain().get("/bearer/x").bearer(token).send();
    assert_eq!(answer.code(), reason.code(), "{token}: {}", answer.text());
    answer.assert_refused(reason);
    if answer.status == 401 {
        // RFC 6750 section 3.1: the reason stays with us, the caller learns only that the token is no good.
        let challenge = answer.challenges()[0];
        assert!(challenge.starts_with("Bearer realm=\"bearer\", error=\"invalid_token\""), "{challenge}");
    }
    world.assert_upstream_untouched();
}

#[track_caller]
fn passes(world: &World, token: &str) {
    world.plain().get("/bearer/x").bearer(token).send().assert_passed();
}

#[test]
fn a_good_token_passes_again_and_again() {
    let world = World::with(&[BEARER]);
    let token = world.idp().token().sign();
    for _ in 0..3 {
        passes(&world, &token);
    }
    assert_eq!(world.idp().hits(), 1, "one key set is enough for all of them");
}

/// RFC 6750 section 3.1: without a credential there is a challenge and no error.
#[test]
fn no_token_is_a_challenge_without_an_error() {
    let world = World::with(&[BEARER]);
    for call in [
        world.plain().get("/bearer/x"),
        world.plain().get("/bearer/x").header("authorization", "Basic dXNlcjpwYXNz"),
        world.plain().get("/bearer/x").header("authorization", "Digest x"),
        world.plain().get("/bearer/x").header("x-authorization", "Bearer x"),
    ] {
        let answer = call.send();
        answer.assert_refused(Reason::CredentialsMissing);
        assert_eq!(answer.challenges(), ["Bearer realm=\"bearer\""]);
    }
    world.assert_upstream_untouched();
}

/// BRR-01.
#[test]
fn a_broken_credential_is_a_bad_request() {
    let world = World::with(&[BEARER]);
    let token = world.idp().token().sign();
    for value in
        ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer \u{e9}", &format!("Bearer {token} x")]
    {
        let answer = world.plain().get("/bearer/x").header("authorization", value).send();
        assert_eq!(answer.code(), Reason::CredentialsMalformed.code(), "{value}: {}", answer.text());
        answer.assert_refused(Reason::CredentialsMalformed);
        assert!(answer.challenges()[0].contains("error=\"invalid_request\""), "{:?}", answer.challenges());
    }
    world.assert_upstream_untouched();
}

/// BRR-04, trap 23: two credentials are refused even if both are good.
#[test]
fn two_credentials_are_ambiguous() {
    let world = World::with(&[BEARER]);
    let (one, two) = (world.idp().token().sign(), world.idp().token().claim("sub", "tpp-b").sign());
    for second in [format!("Bearer {one}"), format!("Bearer {two}"), "Basic eDp5".to_owned(), String::new()] {
        let answer = world.plain().get("/bearer/x").bearer(&one).header("authorization", &second).send();
        assert_eq!(answer.code(), Reason::CredentialsAmbiguous.code(), "{second}: {}", answer.text());
        answer.assert_refused(Reason::CredentialsAmbiguous);
    }
    world.assert_upstream_untouched();
}

/// BRR-02: a token in the query is refused, alone or beside another, and in any spelling.
#[test]
fn a_token_in_the_query_is_refused() {
    let world = World::with(&[BEARER]);
    let token = world.idp().token().sign();
    for name in ["access_token", "ACCESS_TOKEN", "%61ccess_token"] {
        let target = format!("/bearer/x?a=1&{name}={token}");
        for call in [world.plain().get(&target), world.plain().get(&target).bearer(&token)] {
            let answer = call.send();
            assert_eq!(answer.status, 400, "{name}: {}", answer.text());
            assert!(answer.code().starts_with("credentials_"), "{}", answer.text());
        }
    }
    world.assert_upstream_untouched();
}

/// BRR-03: nobody's content is read for a token, so one in a form is none.
#[test]
fn a_token_in_a_form_is_none() {
    let world = World::with(&[BEARER]);
    let form = format!("access_token={}", world.idp().token().sign());
    let call = world.plain().post("/bearer/x", form);
    call.header("content-type", "application/x-www-form-urlencoded")
        .send()
        .assert_refused(Reason::CredentialsMissing);
    world.assert_upstream_untouched();
}

/// ANS-03.
#[test]
fn the_scheme_is_taken_in_any_case() {
    let world = World::with(&[BEARER]);
    let token = world.idp().token().sign();
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let call = world.plain().get("/bearer/x").header("authorization", &format!("{scheme} {token}"));
        call.send().assert_passed();
    }
}

/// JWT-01 to JWT-05, JWT-08.
#[test]
fn what_is_not_one_signed_token_is_malformed() {
    let world = World::with(&[BEARER]);
    let token = world.idp().token();
    let signed = token.sign();
    let (header, claims) = ("{\"alg\":\"ES256\",\"kid\":\"key-1\"}", "{\"iss\":\"x\"}");
    let parts: Vec<&str> = signed.split('.').collect();
    let bomb = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    for wrong in [
        "x".to_owned(),
        "a.b".to_owned(),
        "..".to_owned(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{signed}.x"),
        format!("{}.x.y.z.{}", parts[0], parts[2]),
        format!("{signed}="),
        format!("{}+.{}.{}", parts[0], parts[1], parts[2]),
        token.forged("not json", claims),
        token.forged("[]", claims),
        token.forged("{\"alg\":\"ES256\"} x", claims),
        token.forged("\u{feff}{\"alg\":\"ES256\"}", claims),
        token.forged("{\"alg\":\"ES256\",\"alg\":\"ES256\"}", claims),
        token.forged("{\"alg\":[\"ES256\"]}", claims),
        token.forged("{}", claims),
        token.forged("{\"alg\":\"ES256\",\"crit\":[\"b64\"],\"b64\":false}", claims),
        token.forged("{\"alg\":\"ES256\",\"crit\":[]}", claims),
        token.forged("{\"alg\":\"ES256\",\"crit\":[\"exp\"],\"exp\":1}", claims),
        token.forged("{\"alg\":\"ES256\",\"zip\":\"DEF\"}", claims),
        token.forged(&format!("{{\"alg\":\"ES256\",\"x\":{bomb}}}"), claims),
        token.forged(&format!("{{\"alg\":\"ES256\",\"x\":\"{}\"}}", "a".repeat(5_000)), claims),
        format!("{}.{}.{}", part(header), part(claims), ""),
    ] {
        refused(&world, &wrong, Reason::TokenMalformed);
    }
    passes(&world, &signed);
}

/// JWT-04: what is signed and still not JSON that everybody reads alike.
#[test]
fn signed_claims_must_be_read_alike_by_everybody() {
    let world = World::with(&[BEARER]);
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    refused(&world, &world.idp().token().claim("deep", deep).sign(), Reason::TokenMalformed);
    let long: Vec<Value> = (0..2_000).map(Value::from).collect();
    refused(&world, &world.idp().token().claim("long", long).sign(), Reason::TokenMalformed);
}

#[test]
fn a_token_of_a_mebibyte_is_refused_and_the_gateway_lives_on() {
    let mut world = World::with(&[BEARER]);
    let answer = world.plain().get("/bearer/x").bearer(&"a".repeat(1 << 20)).attempt();
    // The head is far beyond what a listener takes: an answer, or a connection that is closed on it.
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 431, "{}", answer.text());
    }
    refused(&world, &"a".repeat(20_000), Reason::TokenMalformed);
    passes(&world, &world.idp().token().sign());
    assert!(world.gateway.is_alive());
}

/// JWT-10, JWT-11, trap 11.
#[test]
fn an_algorithm_the_issuer_does_not_use_is_refused() {
    let world = World::with(&[BEARER]);
    let token = world.idp().token();
    let claims = "{\"iss\":\"https://idp.bank.example\"}";
    for algorithm in
        ["none", "None", "NONE", "nOnE", "es256", "HS256", "RS256", "PS256", "ES384", "EdDSA", "", "x"]
    {
        let header = format!("{{\"alg\":\"{algorithm}\",\"kid\":\"key-1\"}}");
        refused(&world, &token.forged(&header, claims), Reason::TokenAlgorithmRefused);
    }
    let unsigned = format!("{}.{}.", part("{\"alg\":\"none\"}"), part(claims));
    let answer = world.plain().get("/bearer/x").bearer(&unsigned).send();
    assert_eq!(answer.status, 401, "{}", answer.text());
    // Really signed, by the issuer's own keys, with an algorithm it is not to use.
    for algorithm in [Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256] {
        let key = world.idp().add(algorithm, algorithm.as_str());
        refused(&world, &Token::new(&key).sign(), Reason::TokenAlgorithmRefused);
    }
    // The public key as a secret: what a stranger can compute.
    let public = world.idp().set().to_string();
    let secret = portcullis_core::Secret::new(public.into_bytes());
    let forger = portcullis_jose::SigningKey::from_secret(Algorithm::Hs256, &secret).expect("a secret");
    let forged = forger.sign(json!({ "kid": "key-1" }), &json!({ "iss": "https://idp.bank.example" }));
    refused(&world, &forged.expect("a signature"), Reason::TokenAlgorithmRefused);
}

/// ANS-06: an unknown key and a wrong signature are the same to the caller.
#[test]
fn a_signature_nobody_of_the_issuer_made_is_refused() {
    let world = World::with(&[BEARER]);
    let stranger = Idp::unpublished(Algorithm::Es256, "key-1");
    refused(&world, &Token::new(&stranger).sign(), Reason::TokenSignatureInvalid);
    refused(&world, &Token::new(&stranger).header("kid", Value::Null).sign(), Reason::TokenSignatureInvalid);
    refused(&world, &Token::new(&stranger).header("kid", "key-2").sign(), Reason::TokenSignatureInvalid);
    let signed = world.idp().token().sign();
    let (message, signature) = signed.rsplit_once('.').expect("a signature");
    let flipped: String = signature
        .chars()
        .enumerate()
        .map(|(at, c)| if at == 5 { if c == 'A' { 'B' } else { 'A' } } else { c })
        .collect();
    refused(&world, &format!("{message}.{flipped}"), Reason::TokenSignatureInvalid);
    let other = world.idp().token().claim("sub", "admin").sign();
    let (other_message, _) = other.rsplit_once('.').expect("a signature");
    refused(&world, &format!("{other_message}.{signature}"), Reason::TokenSignatureInvalid);
}

/// JWT-17: what a token says about its key selects no trust.
#[test]
fn key_hints_in_the_header_select_nothing() {
    let world = World::with(&[BEARER]);
    let stranger = Idp::unpublished(Algorithm::Es256, "stranger");
    let jwk = stranger.key.public_jwk("stranger").expect("a public key");
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!(world.idp().jwks_url())),
        ("x5u", json!("https://evil.example/chain.pem")),
        ("x5c", json!(["MIIB"])),
    ] {
        let token = Token::new(&stranger).header("kid", Value::Null).header(name, value).sign();
        refused(&world, &token, Reason::TokenSignatureInvalid);
    }
}

/// JWT-20 to JWT-23.
#[test]
fn times_are_numbers_and_are_kept() {
    let world = World::with(&[BEARER]);
    let now = unix_now();
    let token = || world.idp().token();
    refused(&world, &token().claim("exp", now - 1).sign(), Reason::TokenExpired);
    refused(&world, &token().claim("exp", 0).sign(), Reason::TokenExpired);
    refused(&world, &token().claim("nbf", now + 120).sign(), Reason::TokenNotYetValid);
    refused(&world, &token().claim("iat", now + 120).sign(), Reason::TokenNotYetValid);
    for wrong in [json!("1"), json!(true), json!(null), json!([1]), json!(-1), json!(1e300), json!("never")] {
        for claim in ["exp", "nbf", "iat"] {
            refused(&world, &token().claim(claim, wrong.clone()).sign(), Reason::TokenClaimInvalid);
        }
    }
    refused(&world, &token().without("exp").sign(), Reason::TokenClaimInvalid);
    passes(&world, &token().claim("exp", json!(now as f64 + 100.5)).sign());
    passes(&world, &token().claim("nbf", now + 5).claim("iat", now + 5).sign());
}

/// A token that is remembered still expires.
#[test]
fn a_token_seen_before_still_expires() {
    let world = World::with(&[BEARER]);
    let token = world.idp().token().claim("exp", unix_now() + 2).sign();
    passes(&world, &token);
    let refusal = crate::rig::eventually("the token expires", || {
        let answer = world.plain().get("/bearer/x").bearer(&token).send();
        (answer.status != 200).then_some(answer)
    });
    refusal.assert_refused(Reason::TokenExpired);
}

/// JWT-24.
#[test]
fn a_token_that_lives_too_long_or_is_too_old_is_refused() {
    let limits = "    max_lifetime: 10m\n    max_age: 5m\n";
    let world = Plan::new(&[BEARER]).with(|plan| plan.issuer = limits.to_owned()).start();
    let now = unix_now();
    let token = |iat: i64, exp: i64| world.idp().token().claim("iat", iat).claim("exp", exp).sign();
    refused(&world, &token(now, now + 900), Reason::TokenLifetimeRefused);
    refused(&world, &token(now - 400, now + 100), Reason::TokenLifetimeRefused);
    refused(&world, &world.idp().token().without("iat").sign(), Reason::TokenClaimInvalid);
    passes(&world, &token(now - 200, now + 300));
}

/// JWT-25: exact code points, no mercy for slashes.
#[test]
fn a_token_of_another_issuer_is_refused() {
    let world = World::with(&[BEARER]);
    for issuer in ["https://idp.bank.example/", "HTTPS://idp.bank.example", "https://evil.example"] {
        refused(&world, &world.idp().token().claim("iss", issuer).sign(), Reason::TokenIssuerRefused);
    }
    for wrong in [json!(1), json!(["https://idp.bank.example"]), json!(null), json!("")] {
        let answer =
            world.plain().get("/bearer/x").bearer(&world.idp().token().claim("iss", wrong).sign()).send();
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    let answer = world.plain().get("/bearer/x").bearer(&world.idp().token().without("iss").sign()).send();
    assert_eq!(answer.status, 401, "{}", answer.text());
    world.assert_upstream_untouched();
}

/// JWT-27, trap 15.
#[test]
fn a_token_for_somebody_else_is_refused() {
    let world = World::with(&[BEARER]);
    let right = "https://api.bank.example";
    for audience in [
        json!("https://other.example"),
        json!(format!("{right}/")),
        json!("https://api"),
        json!(""),
        json!([]),
        json!([""]),
    ] {
        refused(&world, &world.idp().token().claim("aud", audience).sign(), Reason::TokenAudienceRefused);
    }
    let answer = world.plain().get("/bearer/x").bearer(&world.idp().token().without("aud").sign()).send();
    assert_eq!(answer.status, 401, "{}", answer.text());
    passes(&world, &world.idp().token().claim("aud", json!(["https://other.example", right])).sign());
}

/// JWT-30 to JWT-32, trap 8.
#[test]
fn what_says_it_is_something_else_than_an_access_token_is_refused() {
    let world = World::with(&[BEARER]);
    for kind in [
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "token-introspection+jwt",
        "oauth-authz-req+jwt",
        "client-authentication+jwt",
        "application/dpop+jwt",
        "DPOP+JWT",
        "id_token",
    ] {
        refused(&world, &world.idp().token().header("typ", kind).sign(), Reason::TokenTypeRefused);
    }
    refused(&world, &world.idp().token().header("cty", "JWT").sign(), Reason::TokenTypeRefused);
    for claim in ["nonce", "at_hash", "c_hash"] {
        let answer =
            world.plain().get("/bearer/x").bearer(&world.idp().token().claim(claim, "x").sign()).send();
        answer.assert_refused(Reason::TokenTypeRefused);
    }
    world.assert_upstream_untouched();
    for kind in [json!("at+jwt"), json!("JWT"), json!("application/at+jwt"), json!(null)] {
        passes(&world, &world.idp().token().header("typ", kind).sign());
    }
}

/// JWT-28, AT-02.
#[test]
fn a_claim_that_must_be_there_must_be_there() {
    let world = Plan::new(&[BEARER]).with(|plan| plan.issuer = "    profile: rfc9068\n".to_owned()).start();
    for claim in ["sub", "client_id", "iat", "jti", "exp"] {
        refused(&world, &world.idp().token().without(claim).sign(), Reason::TokenClaimInvalid);
    }
    for wrong in [json!(""), json!(7), json!(null), json!("x".repeat(300))] {
        refused(&world, &world.idp().token().claim("sub", wrong).sign(), Reason::TokenClaimInvalid);
    }
    refused(&world, &world.idp().token().header("typ", Value::Null).sign(), Reason::TokenTypeRefused);
    passes(&world, &world.idp().token().sign());
}

/// PRX-06, KEY-03: the credential goes no further unless the API says so.
#[test]
fn the_token_is_not_forwarded_unless_the_api_keeps_it() {
    let keeping = BEARER.replace("api: bearer", "api: keeping").replace("/bearer/*", "/keeping/*")
        + "forward: { keep_credentials: true }\n";
    let world = World::with(&[BEARER, &keeping]);
    let token = world.idp().token().sign();
    passes(&world, &token);
    assert_eq!(world.upstream().last().values("authorization"), Vec::<&str>::new());
    world.plain().get("/keeping/x").bearer(&token).send().assert_passed();
    assert_eq!(world.upstream().last().value("authorization"), format!("Bearer {token}"));
}

/// PRX-10: nothing of a token is ever written down.
#[test]
fn tokens_are_in_no_log_and_in_no_answer() {
    let world = World::with(&[BEARER]);
    let good = world.idp().token().sign();
    let expired = world.idp().token().claim("exp", 1).sign();
    let forged = Token::new(&Idp::unpublished(Algorithm::Es256, "key-1")).sign();
    let mut answers = String::new();
    for token in [&good, &expired, &forged] {
        let answer = world.plain().get("/bearer/x").bearer(token).send();
        answers.push_str(&format!("{:?} {}", answer.headers, answer.text()));
    }
    let metrics = world.gateway.admin("/metrics").text();
    let World { gateway, .. } = world;
    let output = gateway.output();
    let (_, log) = gateway.stop();
    for token in [good, expired, forged] {
        for piece in token.split('.') {
            for text in [&answers, &metrics, &output, &log] {
                assert!(!text.contains(piece), "a piece of a token is in {text}");
            }
        }
    }
}
