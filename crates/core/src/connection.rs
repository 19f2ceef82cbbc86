//! The connection a request arrived on, and the certificate its peer holds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::{Moment, Reason};

/// Names one set of TLS settings: a listener's own, or those of one of its `hosts`. A request whose host needs
/// another policy than its handshake had is answered 421 (TLS-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TlsPolicyId(pub u32);

/// What the handshake settled.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// Under which settings it was made.
    pub policy: TlsPolicyId,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The server name asked for, lower case.
    pub server_name: Option<Arc<str>>,
}

/// One accepted connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The caller's end: the other end of the socket, or what a trusted proxy there has announced.
    pub peer: SocketAddr,
    /// The other end of the socket, where it is a proxy that announced the caller.
    pub proxy: Option<SocketAddr>,
    /// Whether the other end is a proxy the listener trusts that has not announced the caller, so that its address is
    /// many callers'.
    pub shared: bool,
    /// The listener's name in the policy files.
    pub listener: Arc<str>,
    /// `None` on a plain listener.
    pub tls: Option<TlsFacts>,
    /// The certificate whose key the peer proved to hold in our own handshake, parsed once. SECURITY: it is not yet
    /// the caller's: where a trusted proxy stands in front, the peer is that proxy. Which certificate is the caller's
    /// is settled for each request, and whoever decides by it or tells others of it asks the request.
    pub handshake_certificate: Option<Arc<PeerCertificate>>,
}

impl Connection {
    /// The caller's address in the form limits and address lists use: an IPv4 address that travelled as
    /// `::ffff:a.b.c.d` is that IPv4 address.
    pub fn address(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// The address at the other end of the socket: the caller's, or that of the proxy in front.
    pub fn hop(&self) -> IpAddr {
        self.proxy.unwrap_or(self.peer).ip().to_canonical()
    }
}

/// How the gateway came to know a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// The peer proved possession of its key in our own handshake.
    Handshake,
    /// A proxy that the listener trusts told of it in a header.
    Proxy,
}

/// What is known of a certificate since its path was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing against it.
    #[default]
    Good,
    /// It was revoked.
    Revoked,
    /// Nothing current says whether it was revoked.
    Unknown,
    /// Its authority's responder does not know it.
    Disowned,
    /// Its path no longer holds.
    Ended,
}

/// One attribute of a subject, decoded from DER. SECURITY: never split from a printed name; legal names hold
/// commas, quotes and plus signs (OZ-06).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAttribute {
    /// Dotted object identifier (`2.5.4.11`).
    pub oid: Arc<str>,
    /// The value.
    pub value: Arc<str>,
    /// The relative distinguished name it is part of, counted from 0 in the order of the certificate.
    pub relative: u16,
}

/// One name of the subject alternative name extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectAlternativeName {
    /// `dNSName`
    Dns(Arc<str>),
    /// `uniformResourceIdentifier`
    Uri(Arc<str>),
    /// `rfc822Name`
    Email(Arc<str>),
    /// `iPAddress`
    Ip(IpAddr),
}

/// The leaf certificate of a peer.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// The bytes of the handshake or the proxy's (CRT-08). Empty where a proxy told the fingerprint alone.
    pub der: Arc<[u8]>,
    /// SHA-256 of the certificate: what `cnf.x5t#S256` is compared with (RFC 8705 section 3.1).
    pub thumbprint: [u8; 32],
    /// SHA-256 of its subject public key info, which survives a renewal under the same key. `None` where only the
    /// fingerprint is known.
    pub key_thumbprint: Option<[u8; 32]>,
    /// Subject attributes in the order of the certificate.
    pub subject: Vec<NameAttribute>,
    /// The subject as RFC 4514 text, for people only.
    pub subject_text: Arc<str>,
    /// The issuer as RFC 4514 text, for people only.
    pub issuer_text: Arc<str>,
    /// Issuer attributes in the order of the certificate.
    pub issuer: Vec<NameAttribute>,
    /// Serial number, big endian, without leading zeros.
    pub serial: Arc<[u8]>,
    /// Alternative names in the order of the certificate.
    pub alternative_names: Vec<SubjectAlternativeName>,
    /// First second since 1970 at which the whole path is valid.
    pub valid_from: i64,
    /// Last second since 1970 at which the whole path is valid and its revocation lists are current. Checked on
    /// every request, because connections outlive certificates (TLS-05).
    pub valid_until: i64,
    /// The named trust anchors its path leads to. None where only possession of the key was proved.
    pub trusted_by: Vec<Arc<str>>,
    /// How it reached us.
    pub source: CertificateSource,
    /// The certificate of its issuer, where revocation is asked for online.
    pub issuer_der: Option<Arc<[u8]>>,
    /// What has become known of it since.
    pub standing: Standing,
}

impl PeerCertificate {
    /// Whether a path to a named authority was verified. If not, its holder has shown the key and nobody has looked at
    /// anything else: neither at who issued it, nor at whether they have revoked it (CRT-07).
    pub const fn is_vouched_for(&self) -> bool {
        !self.trusted_by.is_empty()
    }

    /// Whether its path is valid, its revocation lists are current, and nothing has become known against it, at this
    /// moment.
    pub fn is_current(&self, now: Moment) -> bool {
        self.objection(now).is_none()
    }

    /// Why it does not count at this moment.
    pub fn objection(&self, now: Moment) -> Option<Reason> {
        match self.standing {
            Standing::Revoked => Some(Reason::CertificateRevoked),
            Standing::Unknown => Some(Reason::RevocationUnknown),
            Standing::Disowned => Some(Reason::CertificateRefused),
            Standing::Ended => Some(Reason::CertificateExpired),
            Standing::Good if (self.valid_from..=self.valid_until).contains(&now.unix_seconds()) => None,
            Standing::Good => Some(Reason::CertificateExpired),
        }
    }

    /// All values of one subject attribute.
    pub fn subject_values<'a>(&'a self, oid: &'a str) -> impl Iterator<Item = &'a Arc<str>> {
        self.subject.iter().filter(move |attribute| &*attribute.oid == oid).map(|attribute| &attribute.value)
    }
}
