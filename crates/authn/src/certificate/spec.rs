//! `certificate:` as written in a chain, and what it has in common with others that say which certificates are meant.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Spanned};

use super::bound::never_vouched;
use super::name::{ATTRIBUTES, attribute_oid};
use super::pinned::{NamePin, NamePins, NameRule, PinnedCertificates, Pins};
use super::whole_name::WholeName;
use super::{CertificateOwners, ClientCertificate};

/// `certificate:` of a chain.
#[derive(Clone, Debug)]
pub(crate) struct CertificateSpec {
    pinned: Option<PinnedSpec>,
    registered: bool,
}

/// Which certificates are meant, as written.
#[derive(Clone, Debug)]
pub(crate) struct PinnedSpec {
    trust: Vec<Spanned<String>>,
    pins: Pins,
    possession: bool,
    /// Where a key is pinned that nobody in particular must vouch for.
    by_key_alone: Option<Place>,
}

/// What is said of a certificate beside its names and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// A path to an authority.
    Path,
    /// Possession of its key.
    Possession,
}

impl Verify {
    /// `verify: path` or `possession`, the first where it is not written.
    pub(super) fn read(node: Option<&Node>, faults: &mut Faults) -> Option<Self> {
        let words = [("path", Self::Path), ("possession", Self::Possession)];
        node.map_or(Some(Self::Path), |node| node.one_of(&words, faults))
    }
}

impl CertificateSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`certificate`", faults)?;
        let registered = fields.get("registered").map(|node| node.boolean(faults));
        let fingerprints = fields.get("fingerprints");
        let spec = PinnedSpec::take_with(&mut fields, fingerprints, faults);
        fields.finish(faults);
        let registered = registered.unwrap_or(Some(false));
        let (spec, registered) = (spec?, registered?);
        if spec.says_nothing() && registered {
            return Some(Self { pinned: None, registered });
        }
        if !spec.names_whose_word_counts() {
            faults.push(Diagnostic::error("missing_key", node.place, "`certificate` needs `trust`").note(
                "or exact keys, whoever certified them: `fingerprints`, `spki`, or `registered: true` alone",
            ));
            return None;
        }
        Some(Self { pinned: Some(spec), registered })
    }

    /// Looks the anchors up among those the listeners trust.
    pub(crate) fn compile(
        &self,
        anchors: &[(String, Place)],
        owners: &Arc<CertificateOwners>,
        faults: &mut Faults,
    ) -> Option<ClientCertificate> {
        let pinned = match &self.pinned {
            None => None,
            Some(spec) => Some(spec.compile(anchors, faults)?),
        };
        Some(ClientCertificate { pinned, registered: self.registered, owners: Arc::clone(owners) })
    }
}

impl PinnedSpec {
    /// Reads a mapping of nothing else.
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`certificate`", faults)?;
        let fingerprints = fields.get("fingerprints");
        let spec = Self::take_with(&mut fields, fingerprints, faults);
        fields.finish(faults);
        let spec = spec?;
        if !spec.names_whose_word_counts() {
            faults.push(
                Diagnostic::error("missing_key", node.place, "`certificate` needs `trust`")
                    .note("or exact keys, whoever certified them: `fingerprints` or `spki`"),
            );
            return None;
        }
        Some(spec)
    }

    /// Reads the keys among those of a mapping; `fingerprints` is the one for whole certificates, which goes by several
    /// names.
    pub(super) fn take_with(
        fields: &mut Fields<'_>,
        fingerprints: Option<&Node>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let trust = fields.get("trust").map(|node| node.texts(faults));
        let (subject, san) = (fields.get("subject"), fields.get("san"));
        let (issuer, serials, keys) = (fields.get("issuer"), fields.get("serials"), fields.get("spki"));
        let verify = fields.get("verify");
        let key = fingerprints.or(keys).map(|node| node.place);
        let by_key_alone = key.filter(|_| trust.is_none());
        let possession = Verify::read(verify, faults)? == Verify::Possession;
        if let (Some(verify), true) = (verify, possession && by_key_alone.is_none()) {
            let message = match key {
                Some(_) => "`verify: possession` looks at no path, so `trust` has no use here",
                None => "possession is enough only for a key that is pinned",
            };
            faults.push(Diagnostic::error("no_use", verify.place, message).note(
                "with `verify: possession` name the certificate (`fingerprints`, `sha256`) or its key (`spki`), and no `trust`",
            ));
            return None;
        }
        // A serial number means something only to the authority that gave it.
        if let (Some(serials), None) = (serials, issuer) {
            faults.error("missing_key", serials.place, "`serials` needs the `issuer` that gave them");
            return None;
        }
        let subject = subject.map(|node| read_rule(node, "a subject", faults));
        let issuer = issuer.map(|node| read_rule(node, "an issuer", faults));
        let serials = serials.map(|node| read_serials(node, faults));
        let keys = keys.map(|node| read_fingerprints(node, faults));
        let names = san.map(|node| read_names(node, faults));
        let fingerprints = fingerprints.map(|node| read_fingerprints(node, faults));
        Some(Self {
            possession,
            by_key_alone,
            trust: trust.unwrap_or_else(|| Some(Vec::new()))?,
            pins: Pins {
                subject: subject.unwrap_or_else(|| Some(NameRule::default()))?,
                issuer: issuer.unwrap_or_else(|| Some(NameRule::default()))?,
                serials: serials.unwrap_or_else(|| Some(Vec::new()))?,
                names: names.unwrap_or_else(|| Some(Vec::new()))?,
                fingerprints: fingerprints.unwrap_or_else(|| Some(Vec::new()))?,
                keys: keys.unwrap_or_else(|| Some(Vec::new()))?,
            },
        })
    }

    /// Whether nothing of it is written.
    fn says_nothing(&self) -> bool {
        self.trust.is_empty() && self.pins.issuer.is_empty() && !self.is_pinned()
    }

    /// Whether somebody vouches for what it demands, or the key alone decides.
    fn names_whose_word_counts(&self) -> bool {
        !self.trust.is_empty() || self.pins.name_a_key()
    }

    /// Whether it tells one holder from others of the same authority.
    pub(super) fn is_pinned(&self) -> bool {
        let Pins { subject, issuer: _, serials, names, fingerprints, keys } = &self.pins;
        !(subject.is_empty()
            && serials.is_empty()
            && names.is_empty()
            && fingerprints.is_empty()
            && keys.is_empty())
    }

    /// Looks the anchors up among those the listeners trust.
    pub(crate) fn compile(
        &self,
        anchors: &[(String, Place)],
        faults: &mut Faults,
    ) -> Option<PinnedCertificates> {
        let mut known = true;
        for anchor in &self.trust {
            if !anchors.iter().any(|(name, _)| *name == anchor.value) {
                faults.undefined("trust anchor", anchor, anchors);
                known = false;
            }
        }
        if let Some(place) = self.by_key_alone.filter(|_| !self.possession && anchors.is_empty()) {
            faults.push(never_vouched(place));
            known = false;
        }
        let mut trust: Vec<Arc<str>> = self.trust.iter().map(|anchor| anchor.value.as_str().into()).collect();
        // Their order says nothing, so two that differ in it alone are the same.
        trust.sort_unstable();
        trust.dedup();
        known.then(|| PinnedCertificates { trust, pins: self.pins.clone(), possession: self.possession })
    }
}

/// Attributes in a mapping, or whole names as text.
fn read_rule(node: &Node, whose: &str, faults: &mut Faults) -> Option<NameRule> {
    if matches!(node.content, Content::Map(_)) {
        return Some(NameRule { attributes: read_name(node, whose, faults)?, whole: Vec::new() });
    }
    let texts = node.texts(faults)?;
    let read: Vec<_> = texts
        .iter()
        .filter_map(|text| match WholeName::parse(&text.value) {
            Ok(name) => Some(name),
            Err(why) => {
                let message = format!("`{}` is not a distinguished name: {why}", text.value);
                faults.push(Diagnostic::error("bad_name", text.place, message).note(
                    "write it as `openssl x509 -noout -subject -nameopt RFC2253` does, or its attributes: `{ cn: …, o: … }`",
                ));
                None
            }
        })
        .collect();
    (read.len() == texts.len()).then_some(NameRule { attributes: Vec::new(), whole: read })
}

fn read_name(node: &Node, whose: &str, faults: &mut Faults) -> Option<Vec<NamePins>> {
    let entries = node.named(faults)?;
    if entries.is_empty() {
        faults.error("empty", node.place, "this must not be empty");
        return None;
    }
    let pins: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let word = entry.key.value.as_str();
            let oid = attribute_oid(word);
            if oid.is_none() {
                let known = ATTRIBUTES.iter().map(|(word, _)| *word);
                let mut fault = Diagnostic::error(
                    "unknown_key",
                    entry.key.place,
                    format!("`{word}` is not an attribute of {whose}"),
                )
                .note(format!(
                    "attributes here: {}, or a dotted object identifier in quotes",
                    known.clone().collect::<Vec<_>>().join(", ")
                ));
                if let Some(near) = portcullis_core::diagnostic::nearest(word, known) {
                    fault = fault.label(format!("did you mean `{near}`?"));
                }
                faults.push(fault);
            }
            let values = entry.value.texts(faults);
            Some(NamePins { oid: oid?.into(), values: plain(values?) })
        })
        .collect();
    (pins.len() == entries.len()).then_some(pins)
}

/// Serial numbers as tools print them: hex digits, colons between them ignored, leading zeros without meaning.
fn read_serials(node: &Node, faults: &mut Faults) -> Option<Vec<Arc<[u8]>>> {
    let texts = node.texts(faults)?;
    let read: Vec<Arc<[u8]>> = texts
        .iter()
        .filter_map(|text| {
            let digits: String = text.value.chars().filter(|character| *character != ':').collect();
            let digits = digits.trim_start_matches('0');
            let even = if digits.len().is_multiple_of(2) { digits.to_owned() } else { format!("0{digits}") };
            let bytes = hex_bytes(&even).filter(|bytes| !bytes.is_empty() && bytes.len() <= 20);
            if bytes.is_none() {
                faults.push(
                    Diagnostic::error(
                        "bad_serial",
                        text.place,
                        format!("`{}` is not a serial number", text.value),
                    )
                    .note("write the hex digits of `openssl x509 -noout -serial`, in quotes"),
                );
            }
            bytes.map(Into::into)
        })
        .collect();
    (read.len() == texts.len()).then_some(read)
}

fn read_names(node: &Node, faults: &mut Faults) -> Option<Vec<NamePin>> {
    let mut fields = Fields::of(node, "`san`", faults)?;
    let (dns, uri, email, ip) = (fields.get("dns"), fields.get("uri"), fields.get("email"), fields.get("ip"));
    fields.finish(faults);
    if dns.or(uri).or(email).or(ip).is_none() {
        faults.error("missing_key", node.place, "`san` needs `dns`, `uri`, `email` or `ip`");
        return None;
    }
    let dns = dns.map(|node| node.texts(faults).map(|names| NamePin::Dns(plain(names))));
    let uri = uri.map(|node| node.texts(faults).map(|names| NamePin::Uri(plain(names))));
    let email = email.map(|node| node.texts(faults).map(|names| NamePin::Email(plain(names))));
    let ip = ip.map(|node| read_addresses(node, faults).map(NamePin::Ip));
    [dns, uri, email, ip].into_iter().flatten().collect()
}

fn read_addresses(node: &Node, faults: &mut Faults) -> Option<Vec<IpAddr>> {
    let texts = node.texts(faults)?;
    let read: Vec<IpAddr> = texts
        .iter()
        .filter_map(|text| match text.value.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                faults.error("bad_address", text.place, format!("`{}` is not an IP address", text.value));
                None
            }
        })
        .collect();
    (read.len() == texts.len()).then_some(read)
}

pub(super) fn read_fingerprints(node: &Node, faults: &mut Faults) -> Option<Vec<[u8; 32]>> {
    let texts = node.texts(faults)?;
    let read: Vec<_> = texts
        .iter()
        .filter_map(|text| {
            let digest = sha256_hex(&text.value);
            if digest.is_none() {
                faults.push(
                    Diagnostic::error(
                        "bad_fingerprint",
                        text.place,
                        format!("`{}` is not a SHA-256 fingerprint", text.value),
                    )
                    .note(
                        "write the 64 hex digits of `openssl x509 -noout -fingerprint -sha256`; colons may stay",
                    ),
                );
            }
            digest
        })
        .collect();
    (read.len() == texts.len()).then_some(read)
}

/// 64 hex digits in either case, colons between them ignored.
pub(super) fn sha256_hex(text: &str) -> Option<[u8; 32]> {
    hex_bytes(&text.replace(':', ""))?.try_into().ok()
}

pub(super) fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|character| character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn plain(texts: Vec<Spanned<String>>) -> Vec<Arc<str>> {
    texts.into_iter().map(|text| text.value.into()).collect()
}
