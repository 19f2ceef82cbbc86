//! `identity:` as written in an API.

use portcullis_core::document::{Fields, Node};
use portcullis_core::{AuthMethod, Diagnostic, Faults, Identity, Place, Spanned};

use crate::certificate;

/// `identity:` as written.
#[derive(Clone, Debug)]
pub struct IdentitySpec {
    pub(super) name: Vec<Spanned<Source>>,
    pub(super) group: Vec<Spanned<Source>>,
}

/// Where a name or a group is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// `claims.path`: a claim of the token.
    Claim(Box<str>),
    /// `client.name`
    ClientName,
    /// `client.attributes.path`
    ClientAttribute(Box<str>),
    /// `certificate.subject.ou`: an attribute of the subject, by object identifier.
    CertificateSubject(Box<str>),
    /// `certificate.thumbprint`: SHA-256 of the certificate, in hex.
    CertificateThumbprint,
}

impl Source {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('.')? {
            ("claims", path) if !path.is_empty() => Some(Self::Claim(path.into())),
            ("client", "name") => Some(Self::ClientName),
            ("client", rest) => match rest.split_once('.')? {
                ("attributes", path) if !path.is_empty() => Some(Self::ClientAttribute(path.into())),
                _ => None,
            },
            ("certificate", "thumbprint") => Some(Self::CertificateThumbprint),
            ("certificate", rest) => match rest.split_once('.')? {
                ("subject", word) => {
                    Some(Self::CertificateSubject(certificate::name::attribute_oid(word)?.into()))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the identity of such an authenticator has it.
    pub(super) const fn is_of(&self, method: AuthMethod) -> bool {
        match self {
            Self::Claim(_) => method.is_token(),
            Self::ClientName | Self::ClientAttribute(_) => method.leads_to_client(),
            Self::CertificateSubject(_) | Self::CertificateThumbprint => {
                matches!(method, AuthMethod::Certificate)
            }
        }
    }

    /// Whether this one may have it: a certificate need not be a registered client's.
    pub(super) fn may_be_of(&self, identity: &Identity) -> bool {
        let of_a_client = matches!(self, Self::ClientName | Self::ClientAttribute(_));
        self.is_of(identity.method) && (!of_a_client || identity.client.is_some())
    }
}

impl IdentitySpec {
    /// Reads the mapping.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`identity`", faults)?;
        let (name, group) = (fields.get("name"), fields.get("group"));
        fields.finish(faults);
        if name.is_none() && group.is_none() {
            faults.error("missing_key", node.place, "`identity` needs `name`, `group` or both");
            return None;
        }
        let name = sources(name, faults);
        let group = sources(group, faults);
        Some(Self { name: name?, group: group? })
    }

    /// Whether callers may be in groups.
    pub fn has_groups(&self) -> bool {
        !self.group.is_empty()
    }

    /// Where `name` is written, if none of these authenticators can give what it reads.
    pub(crate) fn unfillable(&self, methods: &[AuthMethod]) -> Option<Place> {
        let filled = self.name.iter().any(|source| methods.iter().any(|method| source.value.is_of(*method)));
        self.name.first().filter(|_| !filled).map(|source| source.place)
    }
}

/// One source, or a list of which the first that is there counts.
fn sources(node: Option<&Node>, faults: &mut Faults) -> Option<Vec<Spanned<Source>>> {
    let Some(node) = node else { return Some(Vec::new()) };
    let texts = node.texts(faults)?;
    let read: Vec<_> = texts
        .iter()
        .filter_map(|text| match Source::parse(&text.value) {
            Some(source) => Some(Spanned::new(source, text.place)),
            None => {
                faults.push(
                    Diagnostic::error(
                        "unknown_source",
                        text.place,
                        format!("`{}` is nothing a caller can be named by", text.value),
                    )
                    .note(
                        "sources here: `claims.<path>`, `client.name`, `client.attributes.<path>`, \
                         `certificate.subject.<attribute>`, `certificate.thumbprint`",
                    ),
                );
                None
            }
        })
        .collect();
    (read.len() == texts.len()).then_some(read)
}
