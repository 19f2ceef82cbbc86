//! What the tests of this crate share: policy files from memory, certificates, tokens, requests, a key server.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use http::request::Parts;
use portcullis_core::document::{Content, Entry, Node};
use portcullis_core::{
    Callers, CertificateSource, Clock, Connection, Diagnostic, Faults, Fetch, FetchError, FetchFuture,
    FetchRequest, FetchResponse, Fetchers, FileId, ManualClock, Materials, Moment, OutboundCertificates,
    PeerCertificate, Place, Secret, Spanned,
};
use portcullis_jose::SigningKey;
use portcullis_store::Replays;
use serde_json::{Value, json};

use crate::{
    Chain, ChainSpec, Clients, ClientsSpec, Compiling, Evidence, Guard, IdentitySpec, Introspections,
    Issuers, IssuersSpec, KeySources, KnownAuthorities, Nonces, PasswordChecks, Providers, Registering,
    Validity, WorkerTokens, peer_certificate,
};

/// The second at which tests take place.
pub(crate) const NOW: i64 = 1_800_000_000;

/// A policy file written as JSON. Every value stands on a line of its own.
pub(crate) fn node(value: &Value) -> Node {
    fn build(value: &Value, line: &mut u32) -> Node {
        *line += 1;
        let place = at(*line);
        let content = match value {
            Value::Null => Content::Null,
            Value::Bool(value) => Content::Bool(*value),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Content::Integer(whole),
                None => Content::Number(number.as_f64().expect("a number")),
            },
            Value::String(text) => Content::Text(text.clone()),
            Value::Array(items) => Content::List(items.iter().map(|item| build(item, line)).collect()),
            Value::Object(members) => Content::Map(
                members
                    .iter()
                    .map(|(key, value)| Entry {
                        key: Spanned::new(key.clone(), at(*line + 1)),
                        value: build(value, line),
                    })
                    .collect(),
            ),
        };
        Node { place, content }
    }
    build(value, &mut 0)
}

pub(crate) const fn at(line: u32) -> Place {
    Place { file: FileId(0), line, column: 1, offset: line, length: 1 }
}

/// Files and secrets from memory.
#[derive(Default)]
pub(crate) struct Memory(pub(crate) HashMap<String, Vec<u8>>);

impl Memory {
    pub(crate) fn with(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.to_owned(), bytes.into());
        self
    }

    fn find(&self, name: &str) -> Result<Vec<u8>, String> {
        self.0.get(name).cloned().ok_or_else(|| format!("`{name}` is not there"))
    }
}

impl Materials for Memory {
    fn file(&self, _: FileId, path: &str) -> Result<Vec<u8>, String> {
        self.find(path)
    }

    fn directory(&self, _: FileId, _: &str) -> Result<Option<portcullis_core::NamedFiles>, String> {
        Ok(None)
    }

    fn environment(&self, name: &str) -> Result<Vec<u8>, String> {
        self.find(name)
    }

    fn credential(&self, name: &str) -> Result<Vec<u8>, String> {
        self.find(name)
    }
}

/// The codes and messages of faults.
pub(crate) fn told(faults: Faults) -> Vec<String> {
    faults.into_sorted().iter().map(|fault| format!("{}: {}", fault.code, fault.message)).collect()
}

/// Asserts that exactly one fault was found, of this code, saying this.
pub(crate) fn only_fault(faults: Faults, code: &str, saying: &str) -> Diagnostic {
    let mut all = faults.into_sorted();
    assert_eq!(all.len(), 1, "{saying}: {all:#?}");
    let fault = all.remove(0);
    assert_eq!(fault.code, code, "{fault}");
    assert!(fault.message.contains(saying), "{fault}");
    fault
}

/// Sources that ask nobody.
pub(crate) fn offline() -> KeySources {
    let refuse = Fetchers::new(|_| Ok(Arc::new(KeyServer::default())));
    KeySources::offline(refuse, Clock::Manual(ManualClock::at_unix_seconds(NOW)))
}

/// The entries, or everything that is wrong with them.
pub(crate) fn try_issuers(
    written: &Value,
    memory: &Memory,
    sources: &KeySources,
    faults: &mut Faults,
) -> Option<Issuers> {
    try_issuers_beside(&Clients::default(), written, memory, sources, faults)
}

/// The same beside registered clients.
pub(crate) fn try_issuers_beside(
    clients: &Clients,
    written: &Value,
    memory: &Memory,
    sources: &KeySources,
    faults: &mut Faults,
) -> Option<Issuers> {
    let spec = IssuersSpec::read(&node(written), faults);
    let introspections = Introspections::new(Clock::Manual(ManualClock::at_unix_seconds(NOW)), None);
    let certificates = OutboundCertificates::default();
    let replays = replays();
    let providers = Providers {
        keys: sources,
        introspections: &introspections,
        certificates: &certificates,
        replays: &replays,
        clients,
    };
    spec.map(|spec| spec.compile(memory, providers, faults))
}

pub(crate) fn issuers(written: &Value, memory: &Memory, sources: &KeySources) -> Issuers {
    let mut faults = Faults::default();
    let issuers = try_issuers(written, memory, sources, &mut faults);
    assert!(!faults.any_error(), "{:#?}", told(faults));
    issuers.expect("issuers")
}

/// A memory that began some time ago.
pub(crate) fn replays() -> Replays {
    Replays::new(moment(NOW - 600))
}

/// The pepper of all tests.
pub(crate) fn pepper() -> Secret {
    Secret::new(b"0123456789abcdef0123456789abcdef".to_vec())
}

pub(crate) fn clients(written: &Value) -> Clients {
    clients_with(written, &Memory::default())
}

/// Clients whose credentials point at files.
pub(crate) fn clients_with(written: &Value, memory: &Memory) -> Clients {
    let mut faults = Faults::default();
    let clients = compiled_clients(written, memory, &mut faults);
    assert!(!faults.any_error(), "{:#?}", told(faults));
    clients
}

/// What is wrong with them.
pub(crate) fn client_faults(written: &Value) -> Faults {
    let mut faults = Faults::default();
    let _ = compiled_clients(written, &Memory::default(), &mut faults);
    faults
}

fn compiled_clients(written: &Value, memory: &Memory, faults: &mut Faults) -> Clients {
    let mut spec = ClientsSpec::default();
    spec.read(&node(written), faults);
    let apis = [("bank".to_owned(), at(1))];
    let anchors = ["tpp", "staff"].map(|name| (name.to_owned(), at(1)));
    let pepper = pepper();
    let registering = Registering {
        apis: &apis,
        authorities: KnownAuthorities { names: &anchors, asked: true },
        ..registering(Some(&pepper), memory)
    };
    spec.compile(&registering, faults)
}

/// What clients are compiled against where there is no API and no authority.
pub(crate) fn registering<'a>(pepper: Option<&'a Secret>, memory: &'a Memory) -> Registering<'a> {
    static OFFLINE: LazyLock<KeySources> = LazyLock::new(offline);
    let authorities = KnownAuthorities { names: &[], asked: true };
    let plans = &|_: &[Spanned<String>], _: &mut Faults| Some(Arc::default());
    Registering { pepper, materials: memory, plans, apis: &[], key_sources: &OFFLINE, authorities }
}

/// What chains in tests are compiled against.
pub(crate) struct House {
    pub(crate) issuers: Issuers,
    pub(crate) clients: Clients,
    pub(crate) anchors: Vec<(String, Place)>,
    pub(crate) replays: Replays,
    pub(crate) fetchers: Fetchers,
    pub(crate) guard: Guard,
    pub(crate) callers: Callers,
    pub(crate) materials: Memory,
    pub(crate) passwords: PasswordChecks,
    pub(crate) nonces: Nonces,
}

impl House {
    pub(crate) fn new(issuers: Issuers) -> Self {
        let anchors = ["tpp", "staff"].map(|name| (name.to_owned(), at(1))).to_vec();
        let fetchers = Fetchers::new(|_| Err("nobody is asked here".to_owned()));
        let callers = Callers::new(|_, _| Err("nobody is called here".to_owned()));
        Self {
            issuers,
            clients: Clients::default(),
            anchors,
            replays: replays(),
            fetchers,
            guard: Guard::off(),
            callers,
            materials: Memory::default(),
            passwords: PasswordChecks::default(),
            nonces: Nonces::new().expect("randomness"),
        }
    }

    pub(crate) fn compile(&self, written: &Value, identity: Option<&Value>) -> Result<Chain, Faults> {
        let mut faults = Faults::default();
        let compiling = Compiling {
            api: "bank",
            issuers: &self.issuers,
            clients: &self.clients,
            trust_anchors: &self.anchors,
            certificates_asked: !self.anchors.is_empty(),
            replays: &self.replays,
            fetchers: &self.fetchers,
            guard: &self.guard,
            callers: &self.callers,
            materials: &self.materials,
            passwords: &self.passwords,
            nonces: &self.nonces,
        };
        let identity = identity.and_then(|written| IdentitySpec::read(&node(written), &mut faults));
        let chain = ChainSpec::read(&node(written), &mut faults)
            .and_then(|spec| spec.compile(identity.as_ref(), &compiling, &mut faults));
        match chain {
            Some(chain) if !faults.any_error() => Ok(chain),
            _ => Err(faults),
        }
    }

    pub(crate) fn chain(&self, written: &Value) -> Chain {
        self.compile(written, None).unwrap_or_else(|faults| panic!("{:#?}", told(faults)))
    }
}

/// A request's head.
pub(crate) fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = http::Request::builder().uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).expect("a request").into_parts().0
}

pub(crate) fn connection(certificate: Option<Arc<PeerCertificate>>) -> Connection {
    Connection {
        peer: SocketAddr::from(([192, 0, 2, 7], 4711)),
        proxy: None,
        shared: false,
        listener: "public".into(),
        tls: None,
        handshake_certificate: certificate,
    }
}

pub(crate) fn moment(unix_seconds: i64) -> Moment {
    Clock::Manual(ManualClock::at_unix_seconds(unix_seconds)).now()
}

/// A clock that stands still.
fn standing_at(now: Moment) -> &'static Clock {
    Box::leak(Box::new(Clock::Manual(ManualClock::at(now))))
}

/// What a request brings whose caller's certificate is that of the connection.
pub(crate) fn evidence<'a>(
    head: &'a Parts,
    connection: &'a Connection,
    worker: &'a WorkerTokens,
    now: Moment,
) -> Evidence<'a> {
    Evidence {
        head,
        connection,
        certificate: connection.handshake_certificate.as_ref(),
        worker,
        content: None,
        now,
        clock: standing_at(now),
        on_trial: false,
        trace: None,
        uses: None,
    }
}

/// Asks a chain, and gives the code of the refusal or the caller's key.
pub(crate) async fn ask(
    chain: &Chain,
    worker: &WorkerTokens,
    connection: &Connection,
    headers: &[(&str, &str)],
) -> Result<String, &'static str> {
    ask_at(chain, worker, connection, headers, NOW).await
}

pub(crate) async fn ask_at(
    chain: &Chain,
    worker: &WorkerTokens,
    connection: &Connection,
    headers: &[(&str, &str)],
    unix_seconds: i64,
) -> Result<String, &'static str> {
    let head = head("/accounts", headers);
    match chain.authenticate(&evidence(&head, connection, worker, moment(unix_seconds))).await {
        Ok(principal) => Ok(principal.key.to_string()),
        Err(rejection) => Err(rejection.reason().code()),
    }
}

/// Asks a chain about a whole request.
pub(crate) async fn ask_with(
    chain: &Chain,
    head: &Parts,
    content: &str,
    unix_seconds: i64,
) -> Result<String, &'static str> {
    let worker = WorkerTokens::new(1 << 20);
    let content = Whole(content.to_owned().into());
    let (connection, now) = (connection(None), moment(unix_seconds));
    let evidence = Evidence { content: Some(&content), ..evidence(head, &connection, &worker, now) };
    match chain.authenticate(&evidence).await {
        Ok(principal) => Ok(principal.key.to_string()),
        Err(rejection) => Err(rejection.reason().code()),
    }
}

/// Content that is there.
pub(crate) struct Whole(pub(crate) bytes::Bytes);

impl crate::Content for Whole {
    fn is_absent(&self) -> bool {
        self.0.is_empty()
    }

    fn read(&self, at_most: u64) -> crate::ContentFuture<'_> {
        let read = if self.0.len() as u64 > at_most {
            Err(portcullis_core::Reason::BodyTooLarge.into())
        } else {
            Ok(self.0.clone())
        };
        Box::pin(std::future::ready(read))
    }
}

/// A certificate with this subject, valid around [`NOW`].
pub(crate) fn certificate_der(subject: &[(rcgen::DnType, &str)], names: &[rcgen::SanType]) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.subject_alt_names = names.to_vec();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").der().to_vec()
}

/// The certificate of a peer whose path leads to the anchor.
pub(crate) fn peer(der: &[u8], anchor: &str) -> Arc<PeerCertificate> {
    let always = Validity { from: i64::MIN, until: i64::MAX };
    let peer = peer_certificate(der, always, vec![anchor.into()], CertificateSource::Handshake);
    Arc::new(peer.expect("a certificate"))
}

/// A peer called so.
pub(crate) fn peer_named(common_name: &str, anchor: &str) -> Arc<PeerCertificate> {
    peer(&certificate_der(&[(rcgen::DnType::CommonName, common_name)], &[]), anchor)
}

/// Claims any issuer of the tests takes, changed by `changes`; `null` removes one.
pub(crate) fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": "https://idp.example",
        "aud": "https://api.example",
        "sub": "tpp-a",
        "iat": NOW - 10,
        "exp": NOW + 300,
        "scope": "accounts",
    });
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

pub(crate) fn sign(key: &SigningKey, header: &Value, changes: &Value) -> String {
    key.sign(header.clone(), &claims(changes)).expect("a signature")
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A key set with the public halves.
pub(crate) fn jwks(keys: &[(&str, &SigningKey)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(kid, key)| key.public_jwk(kid).expect("a public key")).collect();
    json!({ "keys": keys }).to_string()
}

/// A key server in memory. It answers as scripted, the last answer again and again, and counts.
#[derive(Default)]
pub(crate) struct KeyServer {
    pub(crate) answers: Mutex<VecDeque<Answer>>,
    pub(crate) asked: Mutex<Vec<FetchRequest>>,
}

/// One scripted answer.
#[derive(Clone)]
pub(crate) enum Answer {
    Response(FetchResponse),
    Fails(FetchError),
    /// Answers after that time.
    Slow(Duration, FetchResponse),
    Panics,
}

pub(crate) fn ok(body: impl Into<String>) -> FetchResponse {
    FetchResponse::ok(body.into())
}

impl KeyServer {
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        *self.answers.lock().expect("no panic") = answers.into_iter().collect();
    }

    pub(crate) fn serve(&self, body: impl Into<String>) {
        self.answer([Answer::Response(ok(body))]);
    }

    pub(crate) fn fail(&self) {
        self.answer([Answer::Fails(FetchError::Connection("refused".to_owned()))]);
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }

    /// Sources that ask this server, on the runtime of the test.
    pub(crate) fn sources(self: &Arc<Self>, clock: &ManualClock) -> KeySources {
        let server = self.clone();
        let fetchers = Fetchers::new(move |_| Ok(server.clone()));
        KeySources::new(fetchers, Clock::Manual(clock.clone()), tokio::runtime::Handle::current())
    }
}

impl Fetch for KeyServer {
    fn fetch(&self, request: FetchRequest) -> FetchFuture<'_> {
        self.asked.lock().expect("no panic").push(request);
        let mut answers = self.answers.lock().expect("no panic");
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move {
            match answer {
                Some(Answer::Response(response)) => Ok(response),
                Some(Answer::Fails(error)) => Err(error),
                Some(Answer::Slow(time, response)) => {
                    tokio::time::sleep(time).await;
                    Ok(response)
                }
                Some(Answer::Panics) => panic!("scripted"),
                None => Err(FetchError::Connection("nothing scripted".to_owned())),
            }
        })
    }
}
