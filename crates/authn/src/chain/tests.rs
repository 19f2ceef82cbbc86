use std::sync::LazyLock;

use portcullis_core::{Rejection, Scheme};
use portcullis_jose::{Algorithm, SigningKey};
use serde_json::{Value, json};

use crate::api_key::hash_key;
use crate::testing::{
    House, Memory, NOW, ask, bearer, clients, connection, evidence, head, issuers, jwks, moment, offline,
    peer_named, pepper, sign, told,
};
use crate::{Chain, WorkerTokens};

static A: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));
static B: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).expect("a key"));

fn house() -> House {
    let memory = Memory::default().with("a.json", jwks(&[("k", &A)])).with("b.json", jwks(&[("k", &B)]));
    let entry = |iss: &str, keys: &str| json!({"issuer": iss, "audience": "https://api.example", "algorithms": "ES256", "keys": {"jwks": {"file": keys}}});
    let mut house = House::new(issuers(
        &json!({"a": entry("https://idp.example", "a.json"), "b": entry("https://b.example", "b.json")}),
        &memory,
        &offline(),
    ));
    house.clients = clients(&json!({
        "acme": {
            "attributes": {"tier": "gold"},
            "credentials": [{"api_key": {"hash": hash_key(&pepper(), "pc_acme").to_string()}}],
        },
    }));
    house
}

fn token_a() -> String {
    bearer(&sign(&A, &json!({"kid": "k"}), &json!({"client_id": "client-a", "tier": "gold"})))
}

fn token_b() -> String {
    bearer(&sign(&B, &json!({"kid": "k"}), &json!({"iss": "https://b.example"})))
}

fn bad_token() -> String {
    bearer(&sign(&B, &json!({"kid": "k"}), &json!({})))
}

/// What a request brings: a bearer token, an API key, a certificate of an anchor.
#[derive(Clone, Copy, Default)]
struct Brings<'a> {
    token: Option<&'a str>,
    key: Option<&'a str>,
    anchor: Option<&'a str>,
}

async fn answer(chain: &Chain, brings: Brings<'_>) -> String {
    let mut headers = Vec::new();
    headers.extend(brings.token.map(|token| ("authorization", token)));
    headers.extend(brings.key.map(|key| ("x-api-key", key)));
    let connection = connection(brings.anchor.map(|anchor| peer_named("holder", anchor)));
    let worker = WorkerTokens::new(1 << 20);
    let first = ask(chain, &worker, &connection, &headers).await;
    assert_eq!(ask(chain, &worker, &connection, &headers).await, first);
    match first {
        Ok(key) => key.split_at(key.len().min(16)).0.to_owned(),
        Err(code) => code.to_owned(),
    }
}

fn certificate(anchor: &str) -> Value {
    json!({"certificate": {"trust": anchor}})
}

const JWT_A: &str = "jwt:a:tpp-a";
const JWT_B: &str = "jwt:b:tpp-a";
const ACME: &str = "client:acme";
const HOLDER: &str = "certificate:";

/// CHN-01, trap 25, PIPE-04: every combination of credentials, for the chain of the language's own example.
#[tokio::test]
async fn the_credentials_that_are_presented_decide() {
    let chain = house().chain(&json!({"any_of": [
        {"all_of": [certificate("tpp"), {"jwt": {"issuer": "a"}}], "identity_from": "jwt"},
        {"api_key": {"header": "x-api-key"}},
    ]}));
    let (good, bad) = (token_a(), bad_token());
    let (token, wrong) = (Some(&*good), Some(&*bad));
    let (key, nobodys, tpp, staff) = (Some("pc_acme"), Some("pc_nobody"), Some("tpp"), Some("staff"));
    let rows = [
        (Brings::default(), "credentials_missing"),
        (Brings { token, anchor: tpp, ..Brings::default() }, JWT_A),
        (Brings { token, ..Brings::default() }, "certificate_missing"),
        (Brings { token, anchor: staff, ..Brings::default() }, "certificate_refused"),
        (Brings { anchor: tpp, ..Brings::default() }, "credentials_missing"),
        (Brings { key, ..Brings::default() }, ACME),
        // The certificate is ambient: it is no reason not to use a key.
        (Brings { key, anchor: tpp, ..Brings::default() }, ACME),
        (Brings { key: nobodys, ..Brings::default() }, "api_key_invalid"),
        (Brings { key: nobodys, anchor: tpp, ..Brings::default() }, "api_key_invalid"),
        (Brings { token: wrong, anchor: tpp, ..Brings::default() }, "token_signature_invalid"),
        // A bad credential is never stepped over, and a second one never wins.
        (Brings { token: wrong, key, anchor: tpp }, "credentials_ambiguous"),
        (Brings { token, key, anchor: tpp }, "credentials_ambiguous"),
        (Brings { token, key, anchor: None }, "credentials_ambiguous"),
    ];
    for (at, (brings, expected)) in rows.into_iter().enumerate() {
        let answer = answer(&chain, brings).await;
        assert!(answer.starts_with(expected), "row {at}: {answer}");
    }
}

/// A bad token does not reach `anonymous`, and neither does a bad key.
#[tokio::test]
async fn optional_authentication_is_not_a_way_around() {
    let chain = house().chain(&json!({"any_of": [
        {"jwt": {"issuer": "a"}},
        {"api_key": {"header": "x-api-key"}},
        {"anonymous": {"because": "docs"}},
    ]}));
    let (good, bad) = (token_a(), bad_token());
    for (token, key, expected) in [
        (None, None, "anonymous"),
        (Some(&*good), None, JWT_A),
        (None, Some("pc_acme"), ACME),
        (Some(&*bad), None, "token_signature_invalid"),
        (None, Some("pc_nobody"), "api_key_invalid"),
        (Some("Bearer"), None, "credentials_malformed"),
        (Some("Basic YTpi"), None, "anonymous"),
        (Some("Basic YTpi, Bearer x"), None, "credentials_malformed"),
        (Some("Basic YTpi"), Some("pc_acme"), ACME),
        (Some(&*good), Some("pc_acme"), "credentials_ambiguous"),
    ] {
        assert_eq!(answer(&chain, Brings { token, key, anchor: None }).await, expected, "{token:?} {key:?}");
    }
}

/// JWT-07, JWT-26: tokens of several issuers share a header; each is verified with its own issuer's keys.
#[tokio::test]
async fn tokens_are_told_apart_by_their_issuer() {
    let chain = house().chain(&json!({"any_of": [{"jwt": {"issuer": "a"}}, {"jwt": {"issuer": "b"}}]}));
    let crossed = bearer(&sign(&A, &json!({"kid": "k"}), &json!({"iss": "https://b.example"})));
    let nobodys = bearer(&sign(&A, &json!({"kid": "k"}), &json!({"iss": "https://c.example"})));
    let nameless = bearer(&sign(&A, &json!({"kid": "k"}), &json!({"iss": null})));
    for (token, expected) in [
        (token_a(), JWT_A),
        (token_b(), JWT_B),
        (crossed, "token_signature_invalid"),
        (nobodys, "token_issuer_refused"),
        (nameless, "token_claim_invalid"),
        ("Bearer a.b.c".to_owned(), "token_malformed"),
    ] {
        assert_eq!(answer(&chain, Brings { token: Some(&token), ..Brings::default() }).await, expected);
    }
}

/// Certificates are told apart by the anchor they lead to.
#[tokio::test]
async fn certificates_are_told_apart_by_their_anchor() {
    let chain = house().chain(&json!({"any_of": [
        {"all_of": [certificate("staff"), {"jwt": {"issuer": "a"}}], "identity_from": "certificate"},
        {"jwt": {"issuer": "a"}},
        certificate("tpp"),
    ]}));
    let good = token_a();
    let token = Some(&*good);
    for (token, anchor, expected) in [
        (token, Some("staff"), HOLDER),
        (token, Some("tpp"), JWT_A),
        (token, None, JWT_A),
        (None, Some("tpp"), HOLDER),
        (None, Some("staff"), "certificate_refused"),
        (None, None, "credentials_missing"),
    ] {
        let answer = answer(&chain, Brings { token, key: None, anchor }).await;
        assert!(answer.starts_with(expected), "{anchor:?}: {answer}");
    }
}

#[tokio::test]
async fn an_alternative_for_more_credentials_comes_before_or_after() {
    let both = json!({"all_of": [{"api_key": {"header": "x-api-key"}}, {"jwt": {"issuer": "a"}}], "identity_from": "jwt"});
    let single = json!({"api_key": {"header": "x-api-key"}});
    let good = token_a();
    for order in [json!([both, single]), json!([single, both])] {
        let chain = house().chain(&json!({ "any_of": order }));
        for (token, key, expected) in [
            (Some(&*good), Some("pc_acme"), JWT_A),
            (Some(&*good), Some("pc_nobody"), "api_key_invalid"),
            (None, Some("pc_acme"), ACME),
            (Some(&*good), None, "credentials_missing"),
        ] {
            assert_eq!(answer(&chain, Brings { token, key, anchor: None }).await, expected, "{order}");
        }
    }
}

/// PIPE-03: a token costs a signature, so it is looked at last.
#[tokio::test]
async fn cheap_members_are_judged_first() {
    let chain = house().chain(&json!({
        "all_of": [{"jwt": {"issuer": "a"}}, {"api_key": {"header": "x-api-key"}}, certificate("tpp")],
        "identity_from": "api_key",
    }));
    let worker = WorkerTokens::new(1 << 20);
    let token = token_a();
    let headers = [("authorization", &*token), ("x-api-key", "pc_nobody")];
    let own = connection(Some(peer_named("holder", "tpp")));
    assert_eq!(ask(&chain, &worker, &own, &headers).await, Err("api_key_invalid"));
    let foreign = connection(Some(peer_named("holder", "staff")));
    assert_eq!(ask(&chain, &worker, &foreign, &headers).await, Err("certificate_refused"));
    assert_eq!(worker.counts().misses, 0, "no token was looked at");
    let headers = [("authorization", &*token), ("x-api-key", "pc_acme")];
    assert_eq!(ask(&chain, &worker, &own, &headers).await.as_deref(), Ok(ACME));
    assert_eq!(worker.counts().misses, 1);
}

/// CHN-03: one identity names the caller, the others stay with it.
#[tokio::test]
async fn all_that_was_proven_is_kept() {
    let house = house();
    let written = json!({
        "all_of": [certificate("tpp"), {"api_key": {"header": "x-api-key"}}, {"jwt": {"issuer": "a"}}],
        "identity_from": "jwt",
    });
    let identity = json!({"name": "claims.client_id", "group": "client.attributes.tier"});
    let chain =
        house.compile(&written, Some(&identity)).unwrap_or_else(|faults| panic!("{:?}", told(faults)));
    let token = token_a();
    let head = head("/", &[("authorization", &token), ("x-api-key", "pc_acme")]);
    let connection = connection(Some(peer_named("holder", "tpp")));
    let worker = WorkerTokens::new(1 << 20);
    let principal =
        chain.authenticate(&evidence(&head, &connection, &worker, moment(NOW))).await.expect("a caller");
    assert_eq!((&*principal.name, &*principal.key), ("client-a", "claim:a:client_id:client-a"));
    assert_eq!(principal.group.as_deref(), Some("gold"));
    let methods: Vec<_> = principal.identities().map(|identity| identity.method.as_str()).collect();
    assert_eq!(methods, ["jwt", "certificate", "api_key"]);
    assert_eq!(principal.client().map(|client| &*client.name), Some("acme"));
}

/// ANS-02, trap 26: each scheme once; the headers to strip, each once.
#[test]
fn challenges_and_credential_headers_are_compiled() {
    let chain = house().chain(&json!({"any_of": [
        {"all_of": [certificate("tpp"), {"jwt": {"issuer": "a"}}], "identity_from": "jwt"},
        {"jwt": {"issuer": "b"}},
        {"api_key": {"header": "x-api-key"}},
        certificate("staff"),
    ]}));
    let schemes: Vec<_> = chain.challenges().iter().map(|challenge| challenge.scheme).collect();
    assert_eq!(schemes, [Scheme::Certificate, Scheme::Bearer, Scheme::ApiKey]);
    let rendered = chain.challenges()[1].render(&Rejection::new(portcullis_core::Reason::CredentialsMissing));
    assert_eq!(rendered, "Bearer realm=\"bank\"");
    let headers: Vec<_> = chain.credential_headers().iter().map(|header| header.as_str()).collect();
    assert_eq!(headers, ["authorization", "x-api-key"]);
}

#[test]
fn faults_are_told_where_they_are() {
    let house = house();
    let jwt = || json!({"jwt": {"issuer": "a"}});
    let rows = [
        (json!({}), "one_key: a way to authenticate has exactly one key, this has 0"),
        (
            json!([jwt()]),
            "wrong_kind: expected a mapping with one key that names a way to authenticate, found a list",
        ),
        (json!({"any_of": []}), "empty: this list must not be empty"),
        (json!({"any_of": [jwt()], "mode": "shade"}), "unknown_word: `shade` is not one of the words here"),
        (
            json!({"any_of": [{"jwt": {"issuer": "a"}, "mode": "shadow"}, certificate("tpp")]}),
            "one_key: a way to authenticate has exactly one key, this has 2",
        ),
        (json!({"jwd": {"issuer": "a"}}), "unknown_key: `jwd` is not a way to authenticate"),
        (json!({"none": {"because": "x"}}), "unknown_key: `none` is not a way to authenticate"),
        (
            json!({"jwt": {"issuer": "a"}, "api_key": {"header": "k"}}),
            "one_key: a way to authenticate has exactly one key, this has 2",
        ),
        (json!({"any_of": [{"any_of": [jwt()]}]}), "nested_too_deeply: `any_of` cannot stand here"),
        (json!({"all_of": [{"all_of": [jwt()]}]}), "nested_too_deeply: `all_of` cannot stand here"),
        (
            json!({"all_of": [jwt(), certificate("tpp")]}),
            "identity_from_missing: more than one of these could name the caller",
        ),
        (
            json!({"all_of": [jwt(), certificate("tpp")], "identity_from": "api_key"}),
            "undefined: `api_key` is not one of this `all_of`",
        ),
        (
            json!({"all_of": [jwt(), certificate("tpp")], "identity_from": "jvt"}),
            "unknown_word: `jvt` is not one of the words here",
        ),
        (
            json!({"all_of": [jwt(), {"jwt": {"issuer": "b", "header": "x-b"}}], "identity_from": "jwt"}),
            "twice: `jwt` occurs twice in one `all_of`",
        ),
        (
            json!({"all_of": [jwt(), {"anonymous": {"because": "x"}}], "identity_from": "jwt"}),
            "anonymous_in_all_of: `anonymous` beside others asks for nothing",
        ),
        (json!({"identity_from": "jwt"}), "unknown_key: `identity_from` is not a way to authenticate"),
    ];
    for (written, expected) in rows {
        assert_eq!(faults(&house, &written), [expected], "{written}");
    }
}

fn faults(house: &House, written: &Value) -> Vec<String> {
    house.compile(written, None).map(|_| ()).map_err(told).err().unwrap_or_default()
}

/// What can never decide is refused, and so is what cannot be told apart.
#[test]
fn alternatives_must_be_told_apart() {
    let house = house();
    let jwt = || json!({"jwt": {"issuer": "a"}});
    let key = || json!({"api_key": {"header": "x-api-key"}});
    for written in [
        json!({"any_of": [jwt(), jwt()]}),
        json!({"any_of": [jwt(), {"jwt": {"issuer": "a", "bound_to": "certificate"}}]}),
        json!({"any_of": [jwt(), {"all_of": [jwt(), certificate("tpp")], "identity_from": "jwt"}]}),
        json!({"any_of": [{"anonymous": {"because": "x"}}, certificate("tpp")]}),
        json!({"any_of": [certificate("tpp"), {"certificate": {"trust": "tpp", "subject": {"o": "x"}}}]}),
    ] {
        assert_eq!(faults(&house, &written), ["unreachable: this alternative can never decide"], "{written}");
    }
    for written in [
        json!({"any_of": [jwt(), {"api_key": {"header": "authorization"}}]}),
        json!({"any_of": [key(), {"jwt": {"issuer": "a", "header": "x-api-key"}}]}),
    ] {
        let told = faults(&house, &written);
        assert!(told.len() == 1 && told[0].starts_with("place_shared: two kinds of credentials"), "{told:?}");
    }
    for fine in [
        json!({"any_of": [jwt(), {"api_key": {"header": "authorization", "scheme": "ApiKey"}}]}),
        json!({"any_of": [certificate("tpp"), certificate("staff")]}),
        json!({"any_of": [certificate("tpp"), {"anonymous": {"because": "x"}}]}),
        json!({"all_of": [jwt()]}),
    ] {
        assert_eq!(faults(&house, &fine), [""; 0], "{fine}");
    }
}

#[test]
fn a_name_no_caller_can_have_is_a_fault() {
    let house = house();
    let chain = json!({"any_of": [{"jwt": {"issuer": "a"}}, {"api_key": {"header": "x-api-key"}}]});
    let compile =
        |name: Value| house.compile(&chain, Some(&json!({ "name": name }))).map(|_| ()).map_err(told);
    assert_eq!(
        compile(json!("claims.client_id")).expect_err("a fault"),
        ["name_unavailable: callers that come by `api_key` have no such name"]
    );
    assert!(compile(json!(["claims.client_id", "client.name"])).is_ok());
}

/// CHN-02: credentials that must come together are one client's.
#[tokio::test]
async fn credentials_of_two_clients_do_not_go_together() {
    let mut house = house();
    let key = |name: &str| json!({"api_key": {"hash": hash_key(&pepper(), name).to_string()}});
    let user = |name: &str| json!({"basic": {"username": name, "password_hash": WEAK}});
    house.clients = clients(&json!({
        "acme": {"credentials": [key("pc_acme"), user("acme")]},
        "globex": {"credentials": [key("pc_globex"), user("globex")]},
    }));
    let chain = house.chain(&json!({
        "all_of": [{"api_key": {"header": "x-api-key"}}, {"basic": {}}], "identity_from": "api_key",
    }));
    let (worker, connection) = (WorkerTokens::new(1 << 20), connection(None));
    // acme:U*U and globex:U*U
    for (key, user, expected) in [
        ("pc_acme", "Basic YWNtZTpVKlU=", Ok(ACME)),
        ("pc_globex", "Basic Z2xvYmV4OlUqVQ==", Ok("client:globex")),
        ("pc_acme", "Basic Z2xvYmV4OlUqVQ==", Err("clients_differ")),
        ("pc_globex", "Basic YWNtZTpVKlU=", Err("clients_differ")),
        ("pc_globex", "Basic YWNtZTpVKlX=", Err("credentials_malformed")),
    ] {
        let headers = [("x-api-key", key), ("authorization", user)];
        let asked = ask(&chain, &worker, &connection, &headers).await;
        assert_eq!(asked.as_deref(), expected.as_ref().copied(), "{key} {user}");
    }
}

/// `U*U`, from the tests of crypt_blowfish; cheap, for tests.
const WEAK: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// CHN-01: a credential may be at one of several places, and each place makes it complete.
#[tokio::test]
async fn alternatives_are_found_wherever_their_credential_is() {
    let keys = json!({"api_key": {"header": "x-api-key", "query": "key"}});
    let chain = house().chain(&json!({"any_of": [
        {"all_of": [keys, {"jwt": {"issuer": "a"}}], "identity_from": "jwt"},
        keys,
        {"jwt": {"issuer": "b"}},
    ]}));
    let (worker, connection) = (WorkerTokens::new(1 << 20), connection(None));
    let (a, b) = (token_a(), token_b());
    let (a, b, key) = (("authorization", &*a), ("authorization", &*b), ("x-api-key", "pc_acme"));
    for (target, headers, expected) in [
        ("/?key=pc_acme", &[][..], Ok(ACME)),
        ("/", &[key], Ok(ACME)),
        ("/?key=pc_acme", &[a], Ok(JWT_A)),
        ("/", &[key, a], Ok(JWT_A)),
        ("/", &[b], Ok(JWT_B)),
        ("/", &[a], Err("credentials_missing")),
        ("/?key=pc_acme", &[b], Err("credentials_ambiguous")),
        ("/?key=pc_acme", &[key], Err("credentials_ambiguous")),
        ("/?key=pc_acme", &[key, a], Err("credentials_ambiguous")),
        ("/?key=pc_acme;x", &[b], Err("credentials_malformed")),
    ] {
        let head = head(target, headers);
        let asked = chain.authenticate(&evidence(&head, &connection, &worker, moment(NOW))).await;
        let asked = asked.map(|caller| caller.key.to_string()).map_err(|refused| refused.reason().code());
        assert_eq!(asked.as_deref(), expected.as_ref().copied(), "{target} {headers:?}");
    }
}

/// A trial says what an enforced chain would say, and gives nobody a name.
#[tokio::test]
async fn a_chain_in_shadow_judges_and_names_nobody() {
    let house = house();
    for written in [
        json!({"mode": "shadow", "jwt": {"issuer": "a"}}),
        json!({"mode": "shadow", "any_of": [{"jwt": {"issuer": "a"}}, {"api_key": {"header": "x-api-key"}}]}),
    ] {
        let chain = house.chain(&written);
        assert_eq!(answer(&chain, Brings { token: Some(&token_a()), ..Brings::default() }).await, JWT_A);
        assert_eq!(answer(&chain, Brings::default()).await, "credentials_missing");
        let anybody = chain.in_shadow().expect("a trial");
        assert_eq!((&*anybody.name, anybody.identity.method.as_str()), ("anonymous", "anonymous"));
        assert!(anybody.others.is_empty() && anybody.group.is_none() && anybody.client().is_none());
        // What claims to be somebody is removed all the same, and nobody is asked for it.
        assert!(chain.credential_headers().contains(&http::header::AUTHORIZATION));
        assert!(chain.challenges().is_empty() && chain.anonymous_because().is_some());
    }
    for written in [json!({"jwt": {"issuer": "a"}}), json!({"mode": "enforce", "jwt": {"issuer": "a"}})] {
        let chain = house.chain(&written);
        assert!(chain.in_shadow().is_none() && chain.anonymous_because().is_none());
        assert_eq!(chain.challenges().len(), 1);
    }
}
