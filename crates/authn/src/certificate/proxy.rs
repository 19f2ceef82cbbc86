//! How a proxy in front of the gateway proves that it is that proxy (FWD-01).

use http::{HeaderMap, HeaderName};
use portcullis_core::document::{Fields, Node};
use portcullis_core::{
    Diagnostic, Faults, Materials, Moment, PeerCertificate, Place, Secret, SecretSpec, Spanned,
};
use portcullis_jose::digest::constant_time_eq;

use super::{PinnedCertificates, PinnedSpec};

/// The fewest bytes of a secret that a stranger cannot guess.
const SECRET_BYTES: usize = 16;

/// `proxy:` as written: beside the addresses, what only the proxy can show.
#[derive(Clone, Debug)]
pub struct ProxyProofSpec {
    way: WaySpec,
}

#[derive(Clone, Debug)]
enum WaySpec {
    Certificate(PinnedSpec, Place),
    Secret { header: Spanned<String>, value: SecretSpec },
    AddressAlone,
}

/// What the proxy shows, compiled.
#[derive(Debug)]
pub struct ProxyProof(Way);

#[derive(Debug)]
enum Way {
    Certificate(PinnedCertificates),
    Secret { header: HeaderName, value: Secret },
    AddressAlone,
}

impl ProxyProofSpec {
    /// Reads `{ certificate }`, `{ secret }` or `{ address_alone }`.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let entry = node.single("way in which a proxy proves itself", faults)?;
        let (node, place) = (&entry.value, entry.key.place);
        let way = match entry.key.value.as_str() {
            "certificate" => WaySpec::Certificate(PinnedSpec::read(node, faults)?, place),
            "secret" => {
                let mut fields = Fields::of(node, "the secret of a proxy", faults)?;
                let header = fields.require("header", faults).and_then(|node| node.text(faults));
                let value = fields.require("value", faults).and_then(|node| node.secret(faults));
                fields.finish(faults);
                WaySpec::Secret { header: header?, value: value? }
            }
            "address_alone" => {
                let mut fields = Fields::of(node, "`address_alone`", faults)?;
                let because = fields.require("because", faults).and_then(|node| node.text(faults));
                fields.finish(faults);
                if because?.value.trim().is_empty() {
                    faults.error("empty", node.place, "say why the address alone proves who the proxy is");
                    return None;
                }
                WaySpec::AddressAlone
            }
            other => {
                let words = ["certificate", "secret", "address_alone"];
                faults.push(crate::scheme::unknown_word(
                    other,
                    place,
                    "a way in which a proxy proves itself",
                    &words,
                ));
                return None;
            }
        };
        Some(Self { way })
    }

    /// Whether nothing but the address shows who the proxy is.
    pub const fn is_address_alone(&self) -> bool {
        matches!(self.way, WaySpec::AddressAlone)
    }

    /// Looks up what it names. `anchors` are those the listener itself asks its clients' certificates for.
    pub fn compile(
        &self,
        anchors: &[(String, Place)],
        materials: &dyn Materials,
        faults: &mut Faults,
    ) -> Option<ProxyProof> {
        Some(ProxyProof(match &self.way {
            WaySpec::Certificate(spec, place) => {
                // SECURITY: whoever else the authority certifies could tell us any certificate.
                if !spec.is_pinned() {
                    faults.push(
                        Diagnostic::error(
                            "proxy_not_pinned",
                            *place,
                            "an authority alone does not tell the proxy from others it certifies",
                        )
                        .note("pin it: `fingerprints`, `spki`, `subject` or `san`"),
                    );
                    return None;
                }
                Way::Certificate(spec.compile(anchors, faults)?)
            }
            WaySpec::Secret { header, value } => {
                let Ok(name) = header.value.parse::<HeaderName>() else {
                    faults.error(
                        "bad_header",
                        header.place,
                        format!("`{}` is not a header name", header.value),
                    );
                    return None;
                };
                let value = value.resolve(materials, faults)?;
                if value.len() < SECRET_BYTES {
                    faults.error("secret_weak", header.place, "the secret of a proxy has 16 bytes or more");
                    return None;
                }
                Way::Secret { header: name, value }
            }
            WaySpec::AddressAlone => Way::AddressAlone,
        }))
    }
}

impl ProxyProof {
    /// Whether the peer of a connection, or the sender of this request, shows it. That it comes from one of the
    /// proxy's addresses is not asked here.
    pub fn shown(&self, headers: &HeaderMap, handshake: Option<&PeerCertificate>, now: Moment) -> bool {
        match &self.0 {
            Way::Certificate(pinned) => handshake.is_some_and(|shown| pinned.takes(shown, now)),
            Way::Secret { header, value } => {
                let mut shown = headers.get_all(header).iter();
                match (shown.next(), shown.next()) {
                    (Some(one), None) => constant_time_eq(one.as_bytes(), value.expose()),
                    _ => false,
                }
            }
            Way::AddressAlone => true,
        }
    }

    /// Whether the secret's field is there and the secret is not, or not alone. SECURITY: a proxy that adds its secret to
    /// what a stranger has sent must not be taken for somebody else, whose handshake then names the caller (FWD-06).
    pub fn is_spoiled(&self, headers: &HeaderMap, now: Moment) -> bool {
        match &self.0 {
            Way::Secret { header, .. } => headers.contains_key(header) && !self.shown(headers, None, now),
            Way::Certificate(_) | Way::AddressAlone => false,
        }
    }

    /// Whether a certificate of a handshake is the proxy's own, whenever that was. SECURITY: such a certificate
    /// names the proxy and never a caller (FWD-06).
    pub fn is_of_the_proxy(&self, handshake: &PeerCertificate) -> bool {
        match &self.0 {
            Way::Certificate(pinned) => pinned.fits(handshake),
            Way::Secret { .. } | Way::AddressAlone => false,
        }
    }

    /// The header the secret travels in.
    pub fn header(&self) -> Option<&HeaderName> {
        match &self.0 {
            Way::Secret { header, .. } => Some(header),
            Way::Certificate(_) | Way::AddressAlone => None,
        }
    }
}
