//! Callers and requests for tests.

use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use http::request::Parts;
use portcullis_core::document::{Content, Entry, Node};
use portcullis_core::json::{Limits, Object, parse_object};
use portcullis_core::{
    AuthMethod, CertificateSource, Client, Diagnostic, FileId, Identity, Moment, NameAttribute,
    PeerCertificate, Place, Principal, Spanned, SubjectAlternativeName,
};

use crate::Facts;

/// Noon of some day in 2026, by both clocks.
pub(crate) const NOON: Moment =
    Moment { unix_ms: 1_790_000_000_000, monotonic: std::time::Duration::from_secs(3_600) };

pub(crate) fn json(text: &str) -> Arc<Object> {
    Arc::new(parse_object(text.as_bytes(), Limits::default()).expect("valid JSON"))
}

pub(crate) fn shared(words: &[&str]) -> Arc<[Arc<str>]> {
    words.iter().map(|word| Arc::from(*word)).collect()
}

/// One request with everything that rules and limits look at.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) head: Parts,
    pub(crate) path_in_api: String,
    pub(crate) address: IpAddr,
    pub(crate) principal: Principal,
    pub(crate) certificate: Option<PeerCertificate>,
    pub(crate) now: Moment,
}

impl Caller {
    /// `tpp-a`, holder of a token of `bank-idp` without scopes, asking for `GET /accounts` of an API at `/v3`.
    pub(crate) fn with_token() -> Self {
        let identity = identity(AuthMethod::Jwt, "jwt:bank-idp:tpp-a", "tpp-a");
        let identity = Identity { issuer: Some("bank-idp".into()), ..identity };
        Self::of(identity)
    }

    pub(crate) fn of(identity: Identity) -> Self {
        let principal = Principal {
            name: Arc::clone(&identity.subject),
            key: Arc::clone(&identity.key),
            group: None,
            identity: Arc::new(identity),
            others: Vec::new(),
            upstream_fields: None,
        };
        let address = "192.0.2.7".parse().expect("an address");
        let (head, path_in_api) = (head("GET", "/v3/accounts"), "/accounts".to_owned());
        Self { head, path_in_api, address, principal, certificate: None, now: NOON }
    }

    pub(crate) fn asking(mut self, method: &str, path: &str) -> Self {
        self.head = head(method, &format!("/v3{path}"));
        self.path_in_api = path.to_owned();
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.head.headers.append(name, value.parse().expect("a header value"));
        self
    }

    pub(crate) fn scopes(mut self, scopes: &[&str]) -> Self {
        Arc::make_mut(&mut self.principal.identity).scopes = shared(scopes);
        self
    }

    pub(crate) fn claims(mut self, claims: &str) -> Self {
        Arc::make_mut(&mut self.principal.identity).claims = json(claims);
        self
    }

    pub(crate) fn key_id(mut self, key_id: &str) -> Self {
        Arc::make_mut(&mut self.principal.identity).key_id = Some(key_id.into());
        self
    }

    pub(crate) fn group(mut self, group: &str) -> Self {
        self.principal.group = Some(group.into());
        self
    }

    pub(crate) fn from(mut self, address: &str) -> Self {
        self.address = address.parse().expect("an address");
        self
    }

    pub(crate) fn client(mut self, name: &str, attributes: &str) -> Self {
        let client = Client {
            name: name.into(),
            attributes: json(attributes),
            plans: Arc::default(),
            expires_at: None,
        };
        Arc::make_mut(&mut self.principal.identity).client = Some(Arc::new(client));
        self
    }

    pub(crate) fn certificate(mut self, subject: &[(&str, &str)]) -> Self {
        self.certificate = Some(certificate(subject));
        self
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            head: &self.head,
            host: |_head| Some("api.bank.example".into()),
            path_in_api: &self.path_in_api,
            address: self.address,
            principal: &self.principal,
            certificate: self.certificate.as_ref(),
            granted: None,
            now: self.now,
        }
    }
}

pub(crate) fn identity(method: AuthMethod, key: &str, subject: &str) -> Identity {
    Identity {
        method,
        key: key.into(),
        subject: subject.into(),
        issuer: None,
        client: None,
        key_id: None,
        claims: Arc::new(Object::default()),
        scopes: Arc::from([]),
        certificate: None,
        expires_at: None,
    }
}

fn head(method: &str, path: &str) -> Parts {
    Request::builder().method(method).uri(path).body(()).expect("a request").into_parts().0
}

fn certificate(subject: &[(&str, &str)]) -> PeerCertificate {
    PeerCertificate {
        der: Arc::from([]),
        thumbprint: [0xab; 32],
        key_thumbprint: None,
        issuer: Vec::new(),
        subject: subject
            .iter()
            .map(|(oid, value)| NameAttribute { oid: (*oid).into(), value: (*value).into(), relative: 0 })
            .collect(),
        subject_text: "".into(),
        issuer_text: "".into(),
        serial: Arc::from([0x01, 0xff]),
        alternative_names: vec![
            SubjectAlternativeName::Dns("tpp.example".into()),
            SubjectAlternativeName::Uri("urn:tpp:1".into()),
        ],
        valid_from: 0,
        valid_until: i64::MAX,
        trusted_by: vec!["open-banking".into()],
        source: CertificateSource::Handshake,
        issuer_der: None,
        standing: portcullis_core::Standing::Good,
    }
}

/// A text that stands in the first line, from the first column.
pub(crate) fn plain(source: &str) -> Spanned<String> {
    let length = u32::try_from(source.len()).expect("short");
    Spanned::new(source.to_owned(), Place { line: 1, column: 1, length, ..Place::default() })
}

/// Policy text for tests: JSON, which every YAML reader takes too. Every value stands on a line of its own
/// number, so that places differ.
pub(crate) fn node(source: &str) -> Node {
    let value: serde_json::Value = serde_json::from_str(source).expect(source);
    let mut line = 0;
    build(&value, &mut line)
}

fn build(value: &serde_json::Value, line: &mut u32) -> Node {
    *line += 1;
    let place = Place { file: FileId(0), line: *line, column: 1, ..Place::default() };
    let content = match value {
        serde_json::Value::Null => Content::Null,
        serde_json::Value::Bool(truth) => Content::Bool(*truth),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Content::Number(number.as_f64().unwrap_or(0.0)), Content::Integer)
        }
        serde_json::Value::String(text) => Content::Text(text.clone()),
        serde_json::Value::Array(items) => {
            Content::List(items.iter().map(|item| build(item, line)).collect())
        }
        serde_json::Value::Object(members) => Content::Map(
            members
                .iter()
                .map(|(key, value)| {
                    *line += 1;
                    let place = Place { line: *line, column: 1, ..Place::default() };
                    Entry { key: Spanned::new(key.clone(), place), value: build(value, line) }
                })
                .collect(),
        ),
    };
    Node { place, content }
}

/// What a fault says, in one line: the message and whatever is said beside it.
pub(crate) fn said(fault: &Diagnostic) -> String {
    let beside = fault.label.iter().chain(fault.related.iter().map(|(_, text)| text)).chain(&fault.notes);
    beside.fold(fault.message.clone(), |said, more| said + " | " + more)
}
