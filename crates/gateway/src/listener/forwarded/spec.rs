//! `client_certificate_header` as written.

use http::HeaderName;
use ipnet::IpNet;
use portcullis_authn::ProxyProofSpec;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Spanned};

use super::format::{Format, Placement, WORDS, Word};
use crate::listener::spec::{self, Purpose, RevocationSpec};

/// How a proxy in front tells client certificates.
#[derive(Clone, Debug)]
pub(crate) struct ForwardedSpec {
    pub(super) from: Vec<IpNet>,
    pub(super) proof: ProxyProofSpec,
    pub(super) placement: Placement,
    pub(super) verdicts: Vec<(HeaderName, Vec<u8>)>,
    pub(super) purpose: Purpose,
    pub(super) judge: JudgeSpec,
}

/// Who verifies.
#[derive(Clone, Debug)]
pub(super) enum JudgeSpec {
    Ours {
        trust: Vec<(Spanned<String>, Spanned<String>)>,
        intermediates: Option<Spanned<String>>,
        revocation: Option<RevocationSpec>,
    },
    Proxy {
        trusted_as: Spanned<String>,
        hash_suffices: bool,
    },
}

impl ForwardedSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`client_certificate_header`", faults)?;
        let from = fields.require("from", faults).and_then(|node| spec::ranges(node, faults));
        let proof = fields.require("proxy", faults).and_then(|node| ProxyProofSpec::read(node, faults));
        let word = fields.require("format", faults).and_then(|node| node.one_of(WORDS, faults));
        let (header, chain) = (fields.get("header"), fields.get("chain_header"));
        let verdicts = fields.get("verdict").map_or(Some(Vec::new()), |node| verdicts(node, faults));
        let purpose = spec::purpose(fields.get("extended_key_usage"), faults);
        let judge = word.and_then(|word| JudgeSpec::read(&mut fields, word, faults));
        fields.finish(faults);
        let placement = placement(word?, node.place, header, chain, faults);
        let (word, verdicts, judge) = (word?, verdicts?, judge?);
        // FWD-05: where nobody here verifies, somebody must have said that they did.
        if matches!(judge, JudgeSpec::Proxy { .. }) && !word.vouches && verdicts.is_empty() {
            faults.push(
                Diagnostic::error(
                    "missing_key",
                    node.place,
                    "`trusted_as` leaves verifying to the proxy, so `verdict` must say how it tells the result",
                )
                .note("nginx: `verdict: { x-ssl-client-verify: SUCCESS }`; HAProxy: `{ x-ssl-client-verify: \"0\", x-ssl-client-used: \"1\" }`"),
            );
            return None;
        }
        Some(Self { from: from?, proof: proof?, placement: placement?, verdicts, purpose: purpose?, judge })
    }

    /// Whether nothing but the address shows who the proxy is.
    pub(crate) const fn is_address_alone(&self) -> bool {
        self.proof.is_address_alone()
    }

    /// The names under which policies know the certificates.
    pub(crate) fn trust_names(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.verified_names().chain(self.vouched_name())
    }

    /// The names of authorities.
    pub(crate) fn verified_names(&self) -> impl Iterator<Item = &Spanned<String>> {
        let ours = match &self.judge {
            JudgeSpec::Ours { trust, .. } => trust.as_slice(),
            JudgeSpec::Proxy { .. } => &[],
        };
        ours.iter().map(|(name, _)| name)
    }

    /// The name for which a proxy answers.
    pub(crate) const fn vouched_name(&self) -> Option<&Spanned<String>> {
        match &self.judge {
            JudgeSpec::Ours { .. } => None,
            JudgeSpec::Proxy { trusted_as, .. } => Some(trusted_as),
        }
    }
}

impl JudgeSpec {
    fn read(fields: &mut Fields<'_>, word: Word, faults: &mut Faults) -> Option<Self> {
        let place = fields.place();
        let (trust, trusted_as) = (fields.get("trust"), fields.get("trusted_as"));
        let (intermediates, revocation, hash) =
            (fields.get("intermediates"), fields.get("revocation"), fields.get("hash_suffices"));
        match (trust, trusted_as) {
            (Some(trust), None) => {
                let trust = spec::trust(trust, faults);
                let intermediates = match intermediates {
                    Some(node) => node.file(faults).map(Some),
                    None => Some(None),
                };
                let revocation = match revocation {
                    Some(node) => RevocationSpec::read(node, faults).map(Some),
                    None => Some(None),
                };
                if let Some(hash) = hash {
                    no_use(
                        hash,
                        "`hash_suffices` goes with `trusted_as`: a fingerprint cannot be verified",
                        faults,
                    );
                    return None;
                }
                let trust = trust?;
                if trust.is_empty() {
                    faults.error("empty", place, "`trust` names no authority");
                    return None;
                }
                Some(Self::Ours { trust, intermediates: intermediates?, revocation: revocation? })
            }
            (None, Some(name)) => {
                let name = name.text(faults);
                if let Some(unused) = intermediates.or(revocation) {
                    no_use(
                        unused,
                        "with `trusted_as` the proxy verifies paths and asks for revocation",
                        faults,
                    );
                    return None;
                }
                let hash_suffices = match hash {
                    Some(node) if word.format != Format::Xfcc => {
                        no_use(node, "only `format: xfcc` can tell a fingerprint alone", faults);
                        return None;
                    }
                    Some(node) => node.boolean(faults)?,
                    None => false,
                };
                Some(Self::Proxy { trusted_as: name?, hash_suffices })
            }
            _ => {
                faults.push(
                    Diagnostic::error("one_key", place, "`client_certificate_header` needs either `trust` or `trusted_as`")
                        .note("`trust: { NAME: { file } }`: the gateway verifies; `trusted_as: NAME`: the proxy has verified, and policies refer to its word by that name"),
                );
                None
            }
        }
    }
}

fn no_use(node: &Node, message: &str, faults: &mut Faults) {
    faults.error("no_use", node.place, message);
}

fn placement(
    word: Word,
    place: Place,
    header: Option<&Node>,
    chain: Option<&Node>,
    faults: &mut Faults,
) -> Option<Placement> {
    let own_name = header.is_some();
    let header = match header {
        Some(node) => name(node, faults)?,
        None => match word.header {
            Some(known) => HeaderName::from_static(known),
            None => {
                faults.error(
                    "missing_key",
                    place,
                    "this `format` has no header of its own: name it in `header`",
                );
                return None;
            }
        },
    };
    let chain = match chain {
        Some(node) if word.format == Format::Xfcc => {
            no_use(node, "`format: xfcc` has its chain in the header itself", faults);
            return None;
        }
        Some(node) => Some(name(node, faults)?),
        // A proxy that has its own name for one has its own for the other.
        None if own_name => None,
        None => word.chain.map(HeaderName::from_static),
    };
    if chain.as_ref() == Some(&header) {
        faults.error("bad_header", place, "`header` and `chain_header` are the same");
        return None;
    }
    Some(Placement { format: word.format, header, chain })
}

fn verdicts(node: &Node, faults: &mut Faults) -> Option<Vec<(HeaderName, Vec<u8>)>> {
    let entries = node.named(faults)?;
    if entries.is_empty() {
        faults.error("empty", node.place, "this must not be empty");
        return None;
    }
    let read: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let name = header_name(&entry.key, faults);
            let value = entry.value.text(faults)?;
            Some((name?, value.value.into_bytes()))
        })
        .collect();
    (read.len() == entries.len()).then_some(read)
}

fn name(node: &Node, faults: &mut Faults) -> Option<HeaderName> {
    header_name(&node.text(faults)?, faults)
}

fn header_name(text: &Spanned<String>, faults: &mut Faults) -> Option<HeaderName> {
    match text.value.parse() {
        Ok(name) => Some(name),
        Err(_) => {
            faults.error("bad_header", text.place, format!("`{}` is not a header name", text.value));
            None
        }
    }
}
