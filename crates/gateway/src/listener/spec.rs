//! Listeners as they are written under `listen` in `gateway.yaml`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, SecretSpec, Spanned};

use super::forwarded::ForwardedSpec;
use super::limits::{ListenLimits, RELOAD_LISTS, positive};
use super::ocsp::OcspSpec;
use super::proxy_protocol::ProxyProtocol;

/// One listener as written.
#[derive(Clone, Debug)]
pub struct ListenSpec {
    /// Its name.
    pub name: Spanned<String>,
    /// Where it listens. Port 0 lets the system choose.
    pub address: Spanned<SocketAddr>,
    /// `None` for a plain listener.
    pub tls: Option<TlsSpec>,
    /// How a proxy in front tells client certificates.
    pub(crate) forwarded: Option<ForwardedSpec>,
    /// Whether a proxy in front announces whom it relays for.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Its bounds.
    pub limits: ListenLimits,
}

/// The `tls` of a listener.
#[derive(Clone, Debug)]
pub struct TlsSpec {
    pub(crate) certificates: Vec<CertificateSpec>,
    pub(crate) clients: ClientCertificatesSpec,
    pub(crate) hosts: Vec<HostSpec>,
}

/// A certificate chain and its key.
#[derive(Clone, Debug)]
pub(crate) struct CertificateSpec {
    pub(crate) chain: Spanned<String>,
    pub(crate) key: SecretSpec,
    pub(crate) place: Place,
}

/// Whether clients are asked for a certificate (TLS-02).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// No.
    Never,
    /// Asked, and a connection without one is fine.
    Optional,
    /// A handshake without one fails.
    Required,
}

/// What to say of a certificate whose revocation no list speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenUnknown {
    /// Refuse it.
    Deny,
    /// Take it.
    Allow,
}

/// What to say of a certificate that does not state its purposes (CRT-02).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Take it: RFC 5280 section 4.2.1.12 puts no limit on such a certificate.
    CheckedIfPresent,
    /// Refuse it.
    Required,
}

/// What a handshake verifies of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// The path to one of the named authorities.
    Path,
    /// That the client holds its key, and nothing else (CRT-07): whose it is, the exact keys of the policies say, or
    /// the tokens bound to it.
    Possession,
}

/// `client_certificates`, of a listener or of one of its hosts.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificatesSpec {
    pub(crate) ask: Ask,
    pub(crate) verify: Verify,
    pub(crate) trust: Vec<(Spanned<String>, Spanned<String>)>,
    pub(crate) revocation: Option<RevocationSpec>,
    pub(crate) purpose: Purpose,
}

/// Whose revocation lists are asked (RVK-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Those of every certificate below the anchor.
    Chain,
    /// Those of the client's certificate alone.
    Leaf,
}

/// `revocation`
#[derive(Clone, Debug)]
pub(crate) struct RevocationSpec {
    pub(crate) lists: Vec<Spanned<String>>,
    pub(crate) when_unknown: WhenUnknown,
    pub(crate) depth: Depth,
    /// How often the files are looked at.
    pub(crate) reload: Duration,
    /// Who is asked online.
    pub(crate) ocsp: Option<OcspSpec>,
}

/// One entry of `hosts`: other settings for one server name.
#[derive(Clone, Debug)]
pub(crate) struct HostSpec {
    pub(crate) name: Spanned<String>,
    /// Those of the listener where not written.
    pub(crate) clients: Option<ClientCertificatesSpec>,
    /// Those of the listener where empty.
    pub(crate) certificates: Vec<CertificateSpec>,
}

impl ListenSpec {
    /// Reads the mapping under `listen`.
    pub fn read_all(node: &Node, faults: &mut Faults) -> Vec<Self> {
        let Some(entries) = node.named(faults) else { return Vec::new() };
        if entries.is_empty() {
            faults.error("empty", node.place, "there is no listener");
        }
        entries.iter().filter_map(|entry| Self::read(entry.key.clone(), &entry.value, faults)).collect()
    }

    fn read(name: Spanned<String>, node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a listener", faults)?;
        let address = fields.require("address", faults).and_then(|node| address(node, faults));
        let tls = fields.get("tls").map(|node| TlsSpec::read(node, faults));
        let forwarded = fields.get("client_certificate_header").map(|node| ForwardedSpec::read(node, faults));
        let proxy_protocol = fields.get("proxy_protocol").map(|node| ProxyProtocol::read(node, faults));
        let limits = fields.get("limits").map(|node| ListenLimits::read(node, faults));
        fields.finish(faults);
        if let (Some(Some(told)), Some(Some(_))) = (&forwarded, &proxy_protocol)
            && told.is_address_alone()
        {
            // SECURITY: whoever is relayed comes from the relay's address, and sends the headers they like.
            let message = "behind a relay the address alone tells nobody's headers from a proxy's";
            faults.push(
                Diagnostic::error("address_announced", node.place, message)
                    .note("with `proxy_protocol`, the proxy of `client_certificate_header` shows a `secret` or a `certificate`"),
            );
            return None;
        }
        Some(Self {
            name,
            address: address?,
            // SECURITY: a `tls` that cannot be read never turns into a plain listener.
            tls: match tls {
                Some(read) => Some(read?),
                None => None,
            },
            forwarded: match forwarded {
                Some(read) => Some(read?),
                None => None,
            },
            // SECURITY: nor does a `proxy_protocol` that cannot be read let anybody in without one.
            proxy_protocol: match proxy_protocol {
                Some(read) => Some(read?),
                None => None,
            },
            limits: limits.unwrap_or_else(|| Some(ListenLimits::default()))?,
        })
    }

    /// The names of its trust anchors and where each is defined, for policies that refer to them.
    pub fn trust_names(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.handshake_trust_names().chain(self.forwarded.iter().flat_map(ForwardedSpec::trust_names))
    }

    /// Whether it may come to know a caller's certificate: of its own handshakes, or as a proxy tells it.
    pub(crate) fn knows_certificates(&self) -> bool {
        let asks = |clients: &ClientCertificatesSpec| clients.ask != Ask::Never;
        let in_handshakes = self.tls.as_ref().is_some_and(|tls| {
            asks(&tls.clients) || tls.hosts.iter().filter_map(|host| host.clients.as_ref()).any(asks)
        });
        in_handshakes || self.forwarded.is_some()
    }

    /// Those among them that its own handshakes know.
    pub(crate) fn handshake_trust_names(&self) -> impl Iterator<Item = &Spanned<String>> {
        let tls = self.tls.iter();
        tls.flat_map(|tls| {
            let hosts = tls.hosts.iter().filter_map(|host| host.clients.as_ref());
            std::iter::once(&tls.clients)
                .chain(hosts)
                .flat_map(|clients| clients.trust.iter().map(|(name, _)| name))
        })
    }
}

fn address(node: &Node, faults: &mut Faults) -> Option<Spanned<SocketAddr>> {
    let text = node.text(faults)?;
    match text.value.parse() {
        Ok(address) => Some(Spanned::new(address, text.place)),
        Err(_) => {
            let message = format!("`{}` is not an address and port", text.value);
            faults.push(
                Diagnostic::error("bad_address", text.place, message)
                    .note("write `0.0.0.0:8443`, `127.0.0.1:8080` or `[::]:8443`"),
            );
            None
        }
    }
}

impl TlsSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "the `tls` of a listener", faults)?;
        let certificates = certificates(&mut fields, faults);
        if certificates.as_ref().is_some_and(Vec::is_empty) {
            faults.error("missing_key", node.place, "the `tls` of a listener needs `certificate` and `key`");
        }
        let clients = match fields.get("client_certificates") {
            Some(node) => ClientCertificatesSpec::read(node, faults),
            None => Some(ClientCertificatesSpec::never()),
        };
        let hosts = match fields.get("hosts") {
            Some(node) => node.named(faults).map(|entries| {
                entries
                    .iter()
                    .filter_map(|entry| HostSpec::read(entry.key.clone(), &entry.value, faults))
                    .collect()
            }),
            None => Some(Vec::new()),
        };
        fields.finish(faults);
        Some(Self { certificates: certificates?, clients: clients?, hosts: hosts? })
    }
}

/// `certificate` with `key`, or `certificates`.
fn certificates(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Vec<CertificateSpec>> {
    let (one, key, many) = (fields.get("certificate"), fields.get("key"), fields.entry("certificates"));
    match (one, key, many) {
        (None, None, None) => Some(Vec::new()),
        (Some(chain), Some(key), None) => {
            let (path, key) = (chain.file(faults), key.secret(faults));
            Some(vec![CertificateSpec { chain: path?, key: key?, place: chain.place }])
        }
        (None, None, Some(many)) => {
            let Content::List(nodes) = &many.value.content else {
                return many.value.expected("a list of certificates", faults);
            };
            let read: Vec<_> = nodes.iter().map(|node| CertificateSpec::read(node, faults)).collect();
            read.into_iter().collect()
        }
        (_, _, Some(many)) => {
            let message = "`certificates` stands in place of `certificate` and `key`, not beside them";
            faults.error("one_key", many.key.place, message);
            None
        }
        (Some(node), None, None) | (None, Some(node), None) => {
            faults.error("missing_key", node.place, "`certificate` and `key` go together");
            None
        }
    }
}

impl CertificateSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a certificate", faults)?;
        let chain = fields.require("certificate", faults).and_then(|node| node.file(faults));
        let key = fields.require("key", faults).and_then(|node| node.secret(faults));
        fields.finish(faults);
        Some(Self { chain: chain?, key: key?, place: node.place })
    }
}

impl ClientCertificatesSpec {
    pub(crate) const fn never() -> Self {
        Self {
            ask: Ask::Never,
            verify: Verify::Path,
            trust: Vec::new(),
            revocation: None,
            purpose: Purpose::CheckedIfPresent,
        }
    }

    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`client_certificates`", faults)?;
        let words = [("never", Ask::Never), ("optional", Ask::Optional), ("required", Ask::Required)];
        let ask = fields.require("ask", faults).and_then(|node| node.one_of(&words, faults));
        let words = [("path", Verify::Path), ("possession", Verify::Possession)];
        let verify = match fields.get("verify") {
            Some(node) => node.one_of(&words, faults),
            None => Some(Verify::Path),
        };
        let trust = fields.get("trust").map_or(Some(Vec::new()), |node| trust(node, faults));
        let revocation = match fields.get("revocation") {
            Some(node) => RevocationSpec::read(node, faults).map(Some),
            None => Some(None),
        };
        let purpose = purpose(fields.get("extended_key_usage"), faults);
        fields.finish(faults);
        let (ask, verify, trust, revocation) = (ask?, verify?, trust?, revocation?);
        match ask {
            Ask::Never if !trust.is_empty() || revocation.is_some() => {
                let message =
                    "`ask: never` asks for no certificate, so `trust` and `revocation` have no use here";
                faults.error("no_use", node.place, message);
                return None;
            }
            // SECURITY: one listener either knows authorities or it does not; never both by accident (CRT-07).
            Ask::Optional | Ask::Required
                if verify == Verify::Possession && (!trust.is_empty() || revocation.is_some()) =>
            {
                let message =
                    "`verify: possession` looks at no path, so `trust` and `revocation` have no use here";
                faults.error("no_use", node.place, message);
                return None;
            }
            Ask::Optional | Ask::Required if trust.is_empty() && verify == Verify::Path => {
                // SECURITY: no anchors must never come to mean "no verification" (CVE-2026-27586).
                let message = "clients are asked for certificates, but `trust` names no authority";
                faults.error("missing_key", node.place, message);
                return None;
            }
            Ask::Never | Ask::Optional | Ask::Required => {}
        }
        Some(Self { ask, verify, trust, revocation, purpose: purpose? })
    }
}

/// `extended_key_usage`
pub(crate) fn purpose(node: Option<&Node>, faults: &mut Faults) -> Option<Purpose> {
    let words = [("if_present", Purpose::CheckedIfPresent), ("required", Purpose::Required)];
    node.map_or(Some(Purpose::CheckedIfPresent), |node| node.one_of(&words, faults))
}

/// `from`: addresses and ranges of the proxies in front.
pub(crate) fn ranges(node: &Node, faults: &mut Faults) -> Option<Vec<IpNet>> {
    let texts = node.texts(faults)?;
    let read: Vec<IpNet> = texts
        .iter()
        .filter_map(|text| {
            let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
            let Some(range) = text.value.parse().ok().or_else(|| address(&text.value)) else {
                faults.push(
                    Diagnostic::error(
                        "bad_range",
                        text.place,
                        format!("`{}` is not an address or range", text.value),
                    )
                    .note("write `10.0.0.5`, `10.0.0.0/24` or `fd00::/64`"),
                );
                return None;
            };
            if IpNet::trunc(&range) != range {
                let message =
                    format!("`{}` has bits behind its prefix; is `{}` meant?", text.value, range.trunc());
                faults.error("bad_range", text.place, message);
                return None;
            }
            // SECURITY: a proxy that may be anywhere is anybody.
            if range.prefix_len() == 0 {
                faults.error("bad_range", text.place, format!("`{}` is every address there is", text.value));
                return None;
            }
            Some(range)
        })
        .collect();
    (read.len() == texts.len()).then_some(read)
}

pub(crate) fn trust(node: &Node, faults: &mut Faults) -> Option<Vec<(Spanned<String>, Spanned<String>)>> {
    let entries = node.named(faults)?;
    let read: Vec<_> =
        entries.iter().map(|entry| Some((entry.key.clone(), entry.value.file(faults)?))).collect();
    read.into_iter().collect()
}

impl RevocationSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`revocation`", faults)?;
        let lists = fields.get("crls").map(|node| match &node.content {
            Content::List(nodes) if !nodes.is_empty() => {
                let read: Vec<_> = nodes.iter().map(|node| node.text(faults)).collect();
                read.into_iter().collect()
            }
            _ => node.expected("a list of files and directories", faults),
        });
        let words = [("deny", WhenUnknown::Deny), ("allow", WhenUnknown::Allow)];
        let when_unknown = match fields.get("when_unknown") {
            Some(node) => node.one_of(&words, faults),
            None => Some(WhenUnknown::Deny),
        };
        let depths = [("chain", Depth::Chain), ("leaf", Depth::Leaf)];
        let depth = match fields.get("depth") {
            Some(node) => node.one_of(&depths, faults),
            None => Some(Depth::Chain),
        };
        let ocsp = fields.get("ocsp").map_or(Some(None), |node| OcspSpec::read(node, faults));
        let reload = match fields.get("reload") {
            Some(node) => positive(node.duration(faults), node.place, faults),
            None => Some(RELOAD_LISTS),
        };
        fields.finish(faults);
        let ocsp = ocsp?;
        if lists.is_none() && ocsp.is_none() {
            faults.error("missing_key", node.place, "`revocation` needs `crls` or `ocsp`");
            return None;
        }
        let lists = lists.unwrap_or_else(|| Some(Vec::new()))?;
        let depth = depth?;
        if lists.is_empty() && depth == Depth::Chain {
            faults.push(
                Diagnostic::error("ocsp_of_the_leaf", node.place, "`ocsp` asks about the caller's certificate alone")
                    .note("write `depth: leaf` to say that the authorities between are not looked up, or add `crls` that speak for them"),
            );
            return None;
        }
        Some(Self { lists, when_unknown: when_unknown?, depth, reload: reload?, ocsp })
    }
}

impl HostSpec {
    fn read(name: Spanned<String>, node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a host of a listener", faults)?;
        let clients = match fields.get("client_certificates") {
            Some(node) => ClientCertificatesSpec::read(node, faults).map(Some),
            None => Some(None),
        };
        let certificates = certificates(&mut fields, faults);
        fields.finish(faults);
        let written = rustls_pki_types::DnsName::try_from(name.value.as_str());
        if written.is_err() || name.value.ends_with('.') || name.value.bytes().any(|b| b.is_ascii_uppercase())
        {
            let message = format!("`{}` is not a host name in lower case", name.value);
            faults.error("bad_host", name.place, message);
            return None;
        }
        Some(Self { name, clients: clients?, certificates: certificates? })
    }
}
