//! Certificates as credentials of registered clients: alone they name the client, and beside an API key they bind it.

use std::sync::Arc;

use portcullis_core::Reason;
use rcgen::DnType;

use crate::rig::certificates::{Authority, Leaf, set_validity};
use crate::rig::client::{Answer, Client};
use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::standard_base64;
use crate::rig::world::{HOST, Plan, World};

const SECRET: &str = "EXAMPLE-what-only-the-proxy-knows";
const PEPPER: &str = "0123456789abcdef0123456789abcdef";

/// Whoever is registered.
const PARTNERS: &str = "\
api: partners
match: { host: api.bank.example, path: /partners/* }
upstream: accounts
authenticate:
  certificate: { registered: true }
allow:
  - { name: gold partners do anything, paths: [\"/*\"], when: client.attributes.tier == \"gold\" }
forward:
  set: { x-client: \"{client.name}\", x-identity: \"{identity.name}\", x-subject: \"{certificate.subject}\" }
";

/// Whoever is registered and certified by one authority.
const STRICT: &str = "\
api: strict
match: { host: api.bank.example, path: /strict/* }
upstream: accounts
authenticate:
  certificate: { trust: open-banking, registered: true }
identity: { name: client.name }
allow:
  - { name: anything, paths: [\"/*\"] }
limits:
  - { per: client, quota: 2 per day }
";

/// Whoever is certified, registered or not.
const TRUSTED: &str = "\
api: trusted
match: { host: api.bank.example, path: /trusted/* }
upstream: accounts
authenticate:
  certificate: { trust: open-banking }
allow:
  - { name: anything, paths: [\"/*\"] }
forward:
  set: { x-client: \"{client.name}\", x-identity: \"{identity.name}\" }
";

const KEYS: &str = "\
api: keys
match: { host: api.bank.example, path: /keys/* }
upstream: accounts
authenticate: { api_key: { header: x-api-key } }
allow:
  - { name: anything, paths: [\"/*\"] }
";

/// A certificate and a key, which must be one client's.
const BOTH: &str = "\
api: both
match: { host: api.bank.example, path: /both/* }
upstream: accounts
authenticate:
  all_of:
    - certificate: { registered: true }
    - api_key: { header: x-api-key }
  identity_from: certificate
allow:
  - { name: anything, paths: [\"/*\"] }
";

/// The certificates of the table, each for one way in or one way to be refused.
struct Leaves {
    exact: Arc<Leaf>,
    keyed: Arc<Leaf>,
    unit: Arc<Leaf>,
    other_unit: Arc<Leaf>,
    contested: Arc<Leaf>,
    ended: Arc<Leaf>,
    silver: Arc<Leaf>,
    stranger: Arc<Leaf>,
    own: Arc<Leaf>,
    held: Arc<Leaf>,
    firm: Arc<Leaf>,
    claiming: Arc<Leaf>,
}

fn leaves(plan: &Plan) -> Leaves {
    let client = |name: &str| Arc::new(plan.third_parties.client(name));
    let unit = |name: &str, unit: &str| {
        Arc::new(plan.third_parties.leaf(name, |params| {
            params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        }))
    };
    Leaves {
        exact: client("exact"),
        keyed: client("keyed"),
        unit: unit("unit", "6f1c"),
        other_unit: unit("unit", "6f1d"),
        contested: unit("both", "shared"),
        ended: client("ended"),
        silver: client("silver"),
        stranger: client("exact"),
        own: Arc::new(Leaf::self_signed("own", None)),
        held: client("held"),
        firm: client("firm"),
        // The names of a client, and nobody who vouches for them.
        claiming: Arc::new(Leaf::self_signed("unit", None)),
    }
}

fn hash(key: &str) -> String {
    portcullis_authn::hash_key(&portcullis_core::Secret::new(PEPPER.into()), key).to_string()
}

fn bank() -> (World, Leaves) {
    let plan = Plan::new(&[PARTNERS, STRICT, TRUSTED, KEYS, BOTH]);
    let leaves = leaves(&plan);
    let Leaves { exact, keyed, ended, silver, own, held, firm, .. } = &leaves;
    plan.directory.write("secrets/pepper", PEPPER).write("secrets/lb", SECRET);
    plan.directory.write(
        "clients/partners.yaml",
        format!(
            "clients:
  exact:
    attributes: {{ tier: gold }}
    credentials:
      - certificate: {{ sha256: \"{exact}\" }}
      - api_key: {{ hash: \"{exact_key}\", certificate: {{ sha256: \"{exact}\" }} }}
  keyed:
    attributes: {{ tier: gold }}
    credentials:
      - certificate: {{ spki: [\"{keyed}\"] }}
      - api_key: {{ hash: \"{keyed_key}\", certificate: {{ spki: \"{keyed}\" }} }}
  unit:
    attributes: {{ tier: gold }}
    credentials:
      - certificate: {{ trust: open-banking, subject: {{ ou: 6f1c }} }}
      - api_key: {{ hash: \"{unit_key}\", certificate: {{ trust: open-banking, subject: {{ ou: 6f1c }} }} }}
  one: {{ credentials: [certificate: {{ trust: open-banking, subject: {{ ou: shared }} }}] }}
  two: {{ credentials: [certificate: {{ trust: open-banking, subject: {{ ou: shared, cn: both }} }}] }}
  ended: {{ expires: 2020-01-01, credentials: [certificate: {{ sha256: \"{ended}\" }}, api_key: {{ hash: \"{ended_key}\", certificate: {{ sha256: \"{ended}\" }} }}] }}
  silver: {{ attributes: {{ tier: silver }}, credentials: [certificate: {{ sha256: \"{silver}\" }}] }}
  own: {{ attributes: {{ tier: gold }}, credentials: [certificate: {{ spki: \"{own}\", verify: possession }}] }}
  firm: {{ attributes: {{ tier: gold }}, credentials: [certificate: {{ trust: open-banking, sha256: \"{firm}\" }}] }}
  held:
    attributes: {{ tier: gold }}
    credentials:
      - certificate: {{ spki: \"{held}\", verify: possession }}
      - api_key: {{ hash: \"{held_key}\", certificate: {{ spki: \"{held}\", verify: possession }} }}
  free: {{ credentials: [api_key: {{ hash: \"{free_key}\" }}] }}
",
            exact = exact.fingerprint(),
            keyed = keyed.key_fingerprint(),
            ended = ended.fingerprint(),
            silver = silver.fingerprint(),
            own = own.key_fingerprint(),
            firm = firm.fingerprint(),
            held = held.key_fingerprint(),
            held_key = hash("pc_held"),
            exact_key = hash("pc_exact"),
            keyed_key = hash("pc_keyed"),
            unit_key = hash("pc_unit"),
            ended_key = hash("pc_ended"),
            free_key = hash("pc_free"),
        ),
    );
    let world = plan
        .with(|plan| {
            plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
            plan.listener = "  self:
    address: 127.0.0.1:0
    tls:
      certificate: { file: tls/server.pem }
      key: { file: tls/server.key }
      client_certificates: { ask: optional, verify: possession }
  proxied:
    address: 127.0.0.1:0
    client_certificate_header:
      from: [127.0.0.1]
      proxy: { secret: { header: x-lb-secret, value: { file: secrets/lb } } }
      format: rfc9440
      trust: { open-banking: { file: tls/open-banking-ca.pem } }
"
            .to_owned();
        })
        .start();
    (world, leaves)
}

/// A client of the listener that looks at keys alone.
fn possessing(world: &World, leaf: &Arc<Leaf>) -> Client {
    Client::tls(world.gateway.address("self"), HOST, &world.plan.servers).certificate(leaf)
}

fn told(leaf: &Leaf) -> String {
    format!(":{}:", standard_base64(&leaf.chain[0]))
}

#[track_caller]
fn refused(what: &str, answer: &Answer, reason: Reason) {
    assert_eq!(answer.code(), reason.code(), "{what}: {}", answer.text());
    answer.assert_refused(reason);
}

/// B12.4, CRT-05: nothing but the certificate is needed, and the client it names is the caller everywhere.
#[test]
fn a_certificate_alone_names_its_client() {
    let (world, leaves) = bank();
    let renewed = Arc::new(Leaf::self_signed("other", Some(&leaves.held.key_pem)));
    for (leaf, name) in [
        (&leaves.exact, "exact"),
        (&leaves.keyed, "keyed"),
        (&leaves.unit, "unit"),
        (&leaves.firm, "firm"),
        (&leaves.held, "held"),
    ] {
        for client in [world.stranger().certificate(leaf), world.stranger().certificate(leaf).http2()] {
            for path in ["/partners/1", "/trusted/1"] {
                client.get(path).send().assert_passed();
                let received = world.upstream().last();
                assert_eq!((received.value("x-client"), received.value("x-identity")), (name, name));
            }
        }
        let told = told(leaf);
        let proxied = Client::plain(world.gateway.address("proxied"), HOST);
        let call = proxied.get("/partners/1").header("x-lb-secret", SECRET).header("client-cert", &told);
        call.send().assert_passed();
        assert_eq!(world.upstream().last().value("x-client"), name);
    }
    // Where that is said, a client is known by its key through all renewals, also where nobody certifies it.
    for (leaf, name) in [(&leaves.held, "held"), (&renewed, "held"), (&leaves.own, "own")] {
        possessing(&world, leaf).get("/partners/1").send().assert_passed();
        let received = world.upstream().last();
        assert_eq!(received.value("x-client"), name);
        // What nobody has vouched for is told to nobody.
        assert!(received.values("x-subject").is_empty(), "{}", received.head);
    }
    // Limits count by client: what one certificate has used is not there for the next one of the same client.
    world.stranger().certificate(&leaves.unit).get("/strict/1").send().assert_passed();
    let again = Arc::new(world.plan.third_parties.leaf("again", |params| {
        params.distinguished_name.push(DnType::OrganizationalUnitName, "6f1c");
    }));
    world.stranger().certificate(&again).get("/strict/1").send().assert_passed();
    let third = world.stranger().certificate(&again).get("/strict/1").send();
    third.assert_refused(Reason::QuotaExhausted);
    // Who is no client may still be somebody where an authority is enough, and does not borrow a client's name.
    world.stranger().certificate(&leaves.stranger).get("/trusted/1").send().assert_passed();
    let received = world.upstream().last();
    assert!(received.values("x-client").is_empty());
    assert_eq!(received.value("x-identity"), format!("certificate:{}", leaves.stranger.fingerprint()));
}

/// The hostile rows, of which none may reach the upstream.
#[test]
fn whoever_is_not_registered_is_refused() {
    let (world, leaves) = bank();
    let open = |leaf: &Arc<Leaf>| world.stranger().certificate(leaf);
    for (what, leaf, reason) in [
        ("nobody's, under a client's common name", &leaves.stranger, Reason::CertificateRefused),
        ("another unit", &leaves.other_unit, Reason::CertificateRefused),
        ("two clients claim it", &leaves.contested, Reason::CertificateRefused),
        ("the client has ended", &leaves.ended, Reason::ClientInactive),
        ("a client whom no rule allows", &leaves.silver, Reason::AccessDenied),
    ] {
        for client in [open(leaf), open(leaf).http2(), open(leaf).version(&rustls::version::TLS12)] {
            refused(what, &client.get("/partners/1").send(), reason);
        }
    }
    refused("none", &world.stranger().get("/partners/1").send(), Reason::CertificateMissing);
    refused("no TLS", &world.plain().get("/partners/1").send(), Reason::CertificateMissing);
    // An authority's certificate counts for nothing where nobody has looked at its path.
    for (what, leaf) in [
        ("names without a word for them", &leaves.claiming),
        ("a path nobody looked at", &leaves.unit),
        // CRT-07: their authority may have revoked them, and this listener would not know.
        ("exactly this certificate, and its path not looked at", &leaves.exact),
        ("exactly this key, and its path not looked at", &leaves.keyed),
        ("this certificate of that authority, and its path not looked at", &leaves.firm),
    ] {
        refused(what, &possessing(&world, leaf).get("/partners/1").send(), Reason::CertificateRefused);
    }
    refused(
        "registered, and not of the authority",
        &possessing(&world, &leaves.own).get("/strict/1").send(),
        Reason::CertificateRefused,
    );
    refused("an ended client", &open(&leaves.ended).get("/trusted/1").send(), Reason::ClientInactive);
    world.assert_upstream_untouched();
}

/// Trap 6: a certificate told by somebody else than the proxy, or told twice.
#[test]
fn nobody_but_the_proxy_tells_a_certificate() {
    let (world, leaves) = bank();
    let told_exact = told(&leaves.exact);
    let proxied = || Client::plain(world.gateway.address("proxied"), HOST);
    for (what, call) in [
        ("the listener without TLS", world.plain().get("/partners/1")),
        ("the listener with TLS", world.stranger().get("/partners/1")),
        ("the proxy's listener, without its secret", proxied().get("/partners/1")),
    ] {
        for name in ["client-cert", "Client_Cert"] {
            if what.contains("secret") && name == "Client_Cert" {
                continue;
            }
            let answer = call.clone().header(name, &told_exact).send();
            refused(what, &answer, Reason::CertificateMissing);
        }
    }
    for (what, secrets) in
        [("another secret", &["EXAMPLE-something-else"][..]), ("the secret twice", &[SECRET; 2])]
    {
        let call = proxied().get("/partners/1").header("client-cert", &told_exact);
        let call = secrets.iter().fold(call, |call, secret| call.header("x-lb-secret", secret));
        refused(what, &call.send(), Reason::CertificateHeaderInvalid);
    }
    let other = world.stranger().certificate(&leaves.stranger);
    let own = other.get("/partners/1").header("client-cert", &told_exact).send();
    refused("another certificate in the handshake", &own, Reason::CertificateRefused);
    let expired = world.plan.third_parties.leaf("exact", |params| set_validity(params, -7_200, -3_600));
    let call = || proxied().get("/partners/1").header("x-lb-secret", SECRET);
    let twice = call().header("client-cert", &told_exact).header("client-cert", &told_exact).send();
    refused("told twice", &twice, Reason::CertificateHeaderInvalid);
    let late = call().header("client-cert", &told(&expired)).send();
    refused("told, and expired", &late, Reason::CertificateExpired);
    let unknown = call().header("client-cert", &told(&leaves.own)).send();
    refused("told, and of no authority", &unknown, Reason::CertificateRefused);
    refused("told of none", &call().send(), Reason::CertificateMissing);
    world.assert_upstream_untouched();
}

/// B12.6: a key in somebody else's hands is worth nothing without the certificate (trap 1).
#[test]
fn an_api_key_can_be_bound_to_a_certificate() {
    let (world, leaves) = bank();
    let ask = |client: Client, key: &str| client.get("/keys/1").header("x-api-key", key).send();
    let open = |leaf: &Arc<Leaf>| world.stranger().certificate(leaf);
    for (what, client, key, reason) in [
        ("no certificate", world.stranger(), "pc_exact", Reason::ApiKeyInvalid),
        ("no TLS", world.plain(), "pc_exact", Reason::ApiKeyInvalid),
        ("a stranger's", open(&leaves.stranger), "pc_exact", Reason::ApiKeyInvalid),
        ("another client's", open(&leaves.keyed), "pc_exact", Reason::ApiKeyInvalid),
        ("another client's key", open(&leaves.exact), "pc_keyed", Reason::ApiKeyInvalid),
        ("another unit", open(&leaves.other_unit), "pc_unit", Reason::ApiKeyInvalid),
        ("names nobody vouches for", possessing(&world, &leaves.claiming), "pc_unit", Reason::ApiKeyInvalid),
        ("a path nobody looked at", possessing(&world, &leaves.unit), "pc_unit", Reason::ApiKeyInvalid),
        ("an ended client's, by a thief", world.stranger(), "pc_ended", Reason::ApiKeyInvalid),
        ("an ended client", open(&leaves.ended), "pc_ended", Reason::ClientInactive),
        ("no key", open(&leaves.exact), "pc_nobody", Reason::ApiKeyInvalid),
        (
            "its key alone, and it is not said that this is enough",
            possessing(&world, &leaves.keyed),
            "pc_keyed",
            Reason::ApiKeyInvalid,
        ),
    ] {
        refused(what, &ask(client, key), reason);
    }
    let told_by_a_stranger = world
        .plain()
        .get("/keys/1")
        .header("x-api-key", "pc_exact")
        .header("client-cert", &told(&leaves.exact));
    refused("told by a stranger", &told_by_a_stranger.send(), Reason::ApiKeyInvalid);
    let own = open(&leaves.exact);
    let twice = own.get("/keys/1").header("x-api-key", "pc_exact").header("x-api-key", "pc_exact").send();
    refused("twice", &twice, Reason::CredentialsAmbiguous);
    world.assert_upstream_untouched();
    // ANS-06: what is the matter with a key that was found is for the log alone.
    for why in [
        "bound to a certificate, and there is none",
        "bound to another certificate",
        "it is client `exact`'s",
    ] {
        eventually(why, || world.gateway.output().contains(why).then_some(()));
    }
    for (client, key) in [
        (open(&leaves.exact), "pc_exact"),
        (open(&leaves.exact).http2(), "pc_exact"),
        (open(&leaves.keyed), "pc_keyed"),
        (possessing(&world, &leaves.held), "pc_held"),
        (open(&leaves.held), "pc_held"),
        (open(&leaves.unit), "pc_unit"),
        // A key that is bound to nothing counts with whatever certificate, and without.
        (open(&leaves.stranger), "pc_free"),
        (world.plain(), "pc_free"),
    ] {
        ask(client, key).assert_passed();
    }
    let proxied = Client::plain(world.gateway.address("proxied"), HOST).get("/keys/1");
    let proxied = proxied.header("x-lb-secret", SECRET).header("client-cert", &told(&leaves.exact));
    proxied.header("x-api-key", "pc_exact").send().assert_passed();
}

/// CHN-02: two credentials that must come together are one client's.
#[test]
fn a_certificate_and_a_key_must_be_one_clients() {
    let (world, leaves) = bank();
    let ask = |leaf: &Arc<Leaf>, key: &str| {
        world.stranger().certificate(leaf).get("/both/1").header("x-api-key", key).send()
    };
    refused("a key of somebody else", &ask(&leaves.exact, "pc_free"), Reason::ClientsDiffer);
    refused("nobody's certificate", &ask(&leaves.stranger, "pc_free"), Reason::CertificateRefused);
    let alone = world.stranger().certificate(&leaves.exact).get("/both/1").send();
    refused("no key", &alone, Reason::CredentialsMissing);
    world.assert_upstream_untouched();
    ask(&leaves.exact, "pc_exact").assert_passed();
}

#[test]
fn what_would_make_everybody_a_client_is_refused_by_check() {
    let plan = Plan::new(&[PARTNERS]);
    let fingerprint = Authority::new("a").client("a").fingerprint();
    plan.directory.write("secrets/pepper", PEPPER);
    let plan = plan.with(|plan| {
        plan.settings = "api_keys: { pepper: { file: secrets/pepper } }\n".to_owned();
    });
    plan.write();
    let hash = hash("pc_a");
    for (credentials, words) in [
        (
            "{ certificate: { trust: open-banking } }".to_owned(),
            "does not tell the client from others of the same authority",
        ),
        (
            "{ certificate: { trust: open-bankin, subject: { ou: a } } }".to_owned(),
            "`open-bankin` is not defined",
        ),
        ("{ certificate: { subject: { ou: a } } }".to_owned(), "does not say which certificate is meant"),
        ("{ certificate: {} }".to_owned(), "does not say which certificate is meant"),
        ("{ certificate: { registered: true } }".to_owned(), "does not say which certificate is meant"),
        ("{ certificate: { sha256: abc } }".to_owned(), "not a SHA-256 fingerprint"),
        (format!("{{ certificate: {{ sha256: \"{fingerprint}\", trust: a }} }}"), "`a` is not defined"),
        (
            format!("{{ certificate: {{ sha256: \"{fingerprint}\", trust: open-banking, verify: possession }} }}"),
            "looks at no path, so `trust` has no use",
        ),
        (
            "{ certificate: { trust: open-banking, subject: { ou: a }, verify: possession } }".to_owned(),
            "possession is enough only for a key that is pinned",
        ),
        (
            "{ certificate: { trust: [open-banking, open-banking], subject: { ou: x } } }] }\n  b: { credentials: [{ certificate: { trust: open-banking, subject: { ou: x } } }"
                .to_owned(),
            "client `a` already has it",
        ),
        (
            format!("{{ certificate: {{ sha256: [\"{fingerprint}\", \"{fingerprint}\"] }} }}"),
            "declared more than once",
        ),
        (
            format!("{{ certificate: {{ sha256: \"{fingerprint}\" }} }}] }}\n  b: {{ credentials: [{{ certificate: {{ sha256: \"{fingerprint}\" }} }}"),
            "client `a` already has it",
        ),
        (
            "{ certificate: { trust: open-banking, subject: { ou: x } } }] }\n  b: { credentials: [{ certificate: { trust: open-banking, subject: { ou: x } } }"
                .to_owned(),
            "client `a` already has it",
        ),
        (format!("{{ api_key: {{ hash: \"{hash}\", certificate: {{}} }} }}"), "which certificate is meant"),
        (
            format!("{{ api_key: {{ hash: \"{hash}\", certificate: {{ trust: open-banking }} }} }}"),
            "does not tell the client from others",
        ),
    ] {
        plan.directory
            .write("clients/a.yaml", format!("clients:\n  a: {{ credentials: [{credentials}] }}\n"));
        let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{credentials}: {said}");
    }
    // Where nobody is asked for certificates, nobody could ever use one.
    let never = plan.with(|plan| plan.ask = "never");
    never.write();
    never.directory.write(
        "clients/a.yaml",
        format!("clients:\n  a: {{ credentials: [{{ certificate: {{ sha256: \"{fingerprint}\" }} }}] }}\n"),
    );
    let check = |plan: &Plan| {
        let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    };
    let (good, said) = check(&never);
    assert!(!good && said.contains("no listener asks for client certificates"), "{said}");
    // Where no authority is known, a key counts only if it is said that the key is enough.
    let alone = never.with(|plan| {
        plan.ask = "optional";
        plan.trust = String::new();
        plan.client_certificates = "        verify: possession\n".to_owned();
    });
    alone.write();
    let (good, said) = check(&alone);
    assert!(!good && said.contains("nobody could vouch for this certificate"), "{said}");
    alone.directory.write(
        "clients/a.yaml",
        format!("clients:\n  a: {{ credentials: [{{ certificate: {{ sha256: \"{fingerprint}\", verify: possession }} }}] }}\n"),
    );
    let (good, said) = check(&alone);
    assert!(good, "{said}");
}
