//! An upstream as written in `gateway.yaml`, and its way to an [`Upstream`].

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, Materials, Place, SecretSpec, Spanned};
use rustls_pki_types::ServerName;

use super::url::Url;
use super::{Definition, Origin, Security, Upstream};
use crate::connect::Protocol;
use crate::tls::{self, TlsError};

/// Limit for the head of an answer, unless the file says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit for a connection, unless the file says otherwise.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// No wait may be longer: a timeout of a day is no timeout.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// One entry of `upstreams`.
#[derive(Clone, Debug)]
pub struct UpstreamSpec {
    place: Place,
    urls: Vec<Spanned<String>>,
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    http: HttpVersion,
    tls: Option<TlsSpec>,
}

/// `http: 1 | 2 | auto`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpVersion {
    One,
    Two,
    Auto,
}

/// `tls: { trust, server_name, client_certificate }`
#[derive(Clone, Debug)]
struct TlsSpec {
    place: Place,
    trust: TrustSpec,
    server_name: Option<Spanned<String>>,
    client_certificate: Option<ClientCertificateSpec>,
}

#[derive(Clone, Debug)]
enum TrustSpec {
    System(Place),
    File(Spanned<String>),
}

#[derive(Clone, Debug)]
struct ClientCertificateSpec {
    certificate: Spanned<String>,
    key: SecretSpec,
}

impl UpstreamSpec {
    /// Reads `{ urls, timeout, connect_timeout, http, tls }`.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "an upstream", faults)?;
        let urls = fields.require("urls", faults);
        let timeout = fields.get("timeout");
        let connect_timeout = fields.get("connect_timeout");
        let http = fields.get("http");
        let tls = fields.get("tls");
        fields.finish(faults);
        // Every part is read before any of them may end the reading, so that all faults are named.
        let urls = urls.and_then(|node| node.texts(faults));
        let timeout = read_optional(timeout, faults, read_timeout);
        let connect_timeout = read_optional(connect_timeout, faults, read_timeout);
        let http = read_optional(http, faults, HttpVersion::read);
        let tls = read_optional(tls, faults, TlsSpec::read);
        Some(Self {
            place: node.place,
            urls: urls?,
            timeout: timeout?,
            connect_timeout: connect_timeout?,
            http: http?.unwrap_or(HttpVersion::Auto),
            tls: tls?,
        })
    }

    /// Reads keys and certificates and makes the upstream, or says what is wrong.
    pub fn compile(&self, name: &str, materials: &dyn Materials, faults: &mut Faults) -> Option<Upstream> {
        let urls: Vec<Option<Url>> = self.urls.iter().map(|url| Url::read(url, faults)).collect();
        let urls = urls.into_iter().collect::<Option<Vec<_>>>();
        let secure = urls.as_ref().and_then(|urls| self.one_scheme(urls, faults));
        let settings = self.tls.as_ref().map(|spec| spec.compile(materials, faults));
        let (urls, secure) = (urls?, secure?);
        let (security, identity) = match settings {
            Some(settings) => settings?,
            None if secure => {
                (Security { anchors: system(self.place, faults)?, server_name: None, chain: None }, None)
            }
            None => {
                let endpoints = urls.into_iter().map(|url| url.plain(self.http)).collect();
                return Some(self.finished(name, endpoints, None));
            }
        };
        let config = tls::client_config(Arc::clone(&security.anchors), identity, self.http.offered())
            .map_err(|why| faults.error("bad_tls", self.place, why.to_string()))
            .ok()?;
        let config = Arc::new(config);
        let endpoints = urls
            .into_iter()
            .map(|url| url.secure(self.http, &config, security.server_name.as_ref()))
            .collect();
        Some(self.finished(name, endpoints, Some(security)))
    }

    fn finished(&self, name: &str, endpoints: Vec<Arc<Origin>>, security: Option<Security>) -> Upstream {
        Upstream::new(
            Definition { name: name.into(), endpoints, security },
            self.timeout.unwrap_or(DEFAULT_TIMEOUT),
            self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        )
    }

    /// Whether the endpoints use TLS. SECURITY: one plain endpoint among secure ones would now and then carry
    /// what the others protect.
    fn one_scheme(&self, urls: &[Url], faults: &mut Faults) -> Option<bool> {
        let secure = urls.first().is_some_and(|url| url.secure);
        if let Some(other) = urls.iter().find(|url| url.secure != secure) {
            faults.error("mixed_schemes", other.place, "the urls mix `http` and `https`");
            return None;
        }
        if let (Some(tls), false) = (&self.tls, secure) {
            faults.push(
                Diagnostic::error("tls_unused", tls.place, "`tls` has no meaning for `http` urls")
                    .note("write `https` urls, or leave `tls` out"),
            );
            return None;
        }
        Some(secure)
    }
}

/// Reads a key that may be missing: `Some(None)` if it is, `None` if it is there and wrong.
fn read_optional<T>(
    node: Option<&Node>,
    faults: &mut Faults,
    read: impl FnOnce(&Node, &mut Faults) -> Option<T>,
) -> Option<Option<T>> {
    node.map_or(Some(None), |node| read(node, faults).map(Some))
}

fn read_timeout(node: &Node, faults: &mut Faults) -> Option<Duration> {
    let value = node.duration(faults)?;
    if value.is_zero() || value > LONGEST_TIMEOUT {
        faults.error("out_of_range", node.place, "a timeout is longer than nothing and no longer than `1h`");
        return None;
    }
    Some(value)
}

impl HttpVersion {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        match &node.content {
            Content::Integer(1) => Some(Self::One),
            Content::Integer(2) => Some(Self::Two),
            Content::Text(word) if word == "auto" => Some(Self::Auto),
            _ => {
                faults.push(
                    Diagnostic::error("unknown_word", node.place, "this is not a version of HTTP")
                        .note("words here: `1`, `2`, `auto`"),
                );
                None
            }
        }
    }

    /// What is offered in the handshake, dearest first.
    const fn offered(self) -> &'static [Protocol] {
        match self {
            Self::One => &[Protocol::Http1],
            Self::Two => &[Protocol::Http2],
            Self::Auto => &[Protocol::Http2, Protocol::Http1],
        }
    }
}

impl TlsSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "tls of an upstream", faults)?;
        let trust = fields.get("trust");
        let server_name = fields.get("server_name");
        let client_certificate = fields.get("client_certificate");
        fields.finish(faults);
        let trust = read_optional(trust, faults, TrustSpec::read);
        let server_name = read_optional(server_name, faults, Node::text);
        let client_certificate = read_optional(client_certificate, faults, ClientCertificateSpec::read);
        Some(Self {
            place: node.place,
            trust: trust?.unwrap_or(TrustSpec::System(node.place)),
            server_name: server_name?,
            client_certificate: client_certificate?,
        })
    }

    fn compile(
        &self,
        materials: &dyn Materials,
        faults: &mut Faults,
    ) -> Option<(Security, Option<rustls::sign::CertifiedKey>)> {
        let anchors = match &self.trust {
            TrustSpec::System(place) => system(*place, faults),
            TrustSpec::File(path) => file(path, materials, faults).and_then(|pem| {
                located(tls::anchors(&pem), "bad_certificate", path.place, faults).map(Arc::new)
            }),
        };
        let server_name = read_server_name(self.server_name.as_ref(), faults);
        let identity = self.client_certificate.as_ref().map(|spec| spec.compile(materials, faults));
        let identity = match identity {
            Some(identity) => Some(identity?),
            None => None,
        };
        let chain = identity.as_ref().map(|identity| identity.cert.clone());
        Some((Security { anchors: anchors?, server_name: server_name?, chain }, identity))
    }
}

impl TrustSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        match &node.content {
            Content::Text(word) if word == "system" => Some(Self::System(node.place)),
            Content::Map(_) => node.file(faults).map(Self::File),
            _ => node.expected("`system` or `{ file: }`", faults),
        }
    }
}

impl ClientCertificateSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a client certificate", faults)?;
        let certificate = fields.require("certificate", faults);
        let key = fields.require("key", faults);
        fields.finish(faults);
        let certificate = certificate.and_then(|node| node.file(faults));
        let key = key.and_then(|node| node.secret(faults));
        Some(Self { certificate: certificate?, key: key? })
    }

    fn compile(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<rustls::sign::CertifiedKey> {
        let chain = file(&self.certificate, materials, faults);
        let key = self.key.resolve(materials, faults);
        let (chain, key) = (chain?, key?);
        let identity = tls::client_identity(&chain, key.expose());
        let place = match (&identity, &self.key) {
            (
                Err(TlsError::BadKey(_)),
                SecretSpec::File(name) | SecretSpec::Environment(name) | SecretSpec::Credential(name),
            ) => name.place,
            _ => self.certificate.place,
        };
        located(identity, "bad_certificate", place, faults)
    }
}

fn read_server_name(
    written: Option<&Spanned<String>>,
    faults: &mut Faults,
) -> Option<Option<ServerName<'static>>> {
    let Some(written) = written else { return Some(None) };
    match ServerName::try_from(written.value.clone()) {
        Ok(name) => Some(Some(name)),
        Err(_refused) => {
            let message = format!("`{}` is neither a host name nor an address", written.value);
            faults.error("bad_host", written.place, message);
            None
        }
    }
}

fn system(place: Place, faults: &mut Faults) -> Option<Arc<rustls::RootCertStore>> {
    match tls::system_anchors() {
        Ok(store) => Some(Arc::new(store)),
        Err(why) => {
            faults.push(
                Diagnostic::error("no_system_trust", place, why.to_string())
                    .note("write `tls: { trust: { file: ca.pem } }`"),
            );
            None
        }
    }
}

fn file(path: &Spanned<String>, materials: &dyn Materials, faults: &mut Faults) -> Option<Vec<u8>> {
    match materials.file(path.place.file, &path.value) {
        Ok(bytes) => Some(bytes),
        Err(why) => {
            faults.error("unreadable", path.place, why);
            None
        }
    }
}

fn located<T>(
    result: Result<T, TlsError>,
    code: &'static str,
    place: Place,
    faults: &mut Faults,
) -> Option<T> {
    result.map_err(|why| faults.error(code, place, why.to_string())).ok()
}
