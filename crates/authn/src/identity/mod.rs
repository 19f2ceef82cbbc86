//! `identity: { name, group }`: what an API calls its callers.
//!
//! A key names one caller among all callers of the gateway. Every part of it but the last is escaped, so that no
//! choice of names can make two callers share one: `jwt:a:b:c` is subject `b:c` of issuer `a`, never subject `c`
//! of an issuer called `a:b`.

mod compile;
#[cfg(test)]
mod key_id_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_core::json::Value;
use portcullis_core::{AuthMethod, Identity, PeerCertificate, Reason, Rejection, Spanned};

pub use compile::IdentitySpec;

use compile::Source;

use crate::certificate;

/// The longest name of a caller, in bytes (JWT-28).
const MAX_NAME: usize = 255;

/// Tells naming rules apart in the caches of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleId(u64);

/// How an API names its callers.
#[derive(Debug)]
pub(crate) struct IdentityRule {
    id: RuleId,
    name: Vec<Source>,
    group: Vec<Source>,
}

/// What a caller is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: Arc<str>,
    pub(crate) key: Arc<str>,
    pub(crate) group: Option<Arc<str>>,
}

impl IdentityRule {
    /// The rule of a spec; without one, the default, which all APIs share.
    pub(crate) fn compile(spec: Option<&IdentitySpec>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let plain = |sources: &[Spanned<Source>]| sources.iter().map(|source| source.value.clone()).collect();
        match spec {
            None => Self { id: RuleId(0), name: Vec::new(), group: Vec::new() },
            Some(spec) => Self {
                id: RuleId(NEXT.fetch_add(1, Ordering::Relaxed)),
                name: plain(&spec.name),
                group: plain(&spec.group),
            },
        }
    }

    /// Its mark.
    pub(crate) const fn id(&self) -> RuleId {
        self.id
    }

    /// Whether it reads nothing but what an identity of this method has itself. Then what it says may be
    /// remembered with that identity.
    pub(crate) fn reads_only(&self, method: AuthMethod) -> bool {
        self.name.iter().chain(&self.group).all(|source| source.is_of(method))
    }

    /// Names the caller. A value that is missing leaves the next source to try; one that is there and cannot be
    /// a name is refused, because the next source would name somebody else.
    pub(crate) fn name(&self, naming: &Identity, others: &[Arc<Identity>]) -> Result<Named, Rejection> {
        if naming.method == AuthMethod::Anonymous {
            let name = &naming.subject;
            return Ok(Named { name: name.clone(), key: naming.key.clone(), group: None });
        }
        let all = || std::iter::once(naming).chain(others.iter().map(|other| &**other));
        let Label { name, key } = match self.name.as_slice() {
            [] => Label { name: default_name(naming), key: naming.key.clone() },
            sources => {
                let found = first(sources, all)?;
                found.ok_or_else(|| unresolved("no source of the caller's name is present"))?
            }
        };
        let group = first(&self.group, all)?.map(|group| group.name);
        Ok(Named { name, key, group })
    }
}

/// The registered client, else the issuer and the subject. SECURITY: a certificate's common name is what its authority
/// let somebody write; it could be the name of a client, so of a certificate that is no client's it names nobody unless
/// the API says so.
fn default_name(identity: &Identity) -> Arc<str> {
    match &identity.issuer {
        _ if identity.client.is_some() => identity.subject.clone(),
        _ if identity.method == AuthMethod::Certificate => identity.key.clone(),
        Some(issuer) => {
            let mut name = String::new();
            push_segment(&mut name, issuer);
            name.push(':');
            name.push_str(&identity.subject);
            name.into()
        }
        None => identity.subject.clone(),
    }
}

/// A name, and the key of a caller who is named by it.
struct Label {
    name: Arc<str>,
    key: Arc<str>,
}

/// The first value that is there.
fn first<'a, I: Iterator<Item = &'a Identity>>(
    sources: &[Source],
    identities: impl Fn() -> I,
) -> Result<Option<Label>, Rejection> {
    for source in sources {
        if let Some(identity) = identities().find(|identity| source.may_be_of(identity))
            && let Some(found) = label(source, identity)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn label(source: &Source, identity: &Identity) -> Result<Option<Label>, Rejection> {
    let labelled = |name: Arc<str>, start: &str, qualifiers: &[&str]| {
        let key = key(start, qualifiers, &name);
        Label { name, key }
    };
    let own = |name: Arc<str>| Label { name, key: identity.key.clone() };
    Ok(match source {
        Source::Claim(path) => {
            let issuer = identity.issuer.as_deref().unwrap_or_default();
            text(identity.claims.at(path))?.map(|name| labelled(name, "claim", &[issuer, path]))
        }
        Source::ClientName => identity.client.as_ref().map(|client| own(client.name.clone())),
        Source::ClientAttribute(path) => {
            let client = identity.client.as_ref();
            text(client.and_then(|client| client.attributes.at(path)))?
                .map(|name| labelled(name, "attribute", &[path]))
        }
        Source::CertificateSubject(oid) => match identity.certificate.as_deref() {
            None => None,
            Some(certificate) => subject_value(certificate, oid)?.map(|name| {
                // Two authorities may have certified one name for two people. The count keeps the list of
                // anchors apart from what follows it.
                let count = certificate.trusted_by.len().to_string();
                let mut qualifiers: Vec<&str> = vec![oid, &count];
                qualifiers.extend(certificate.trusted_by.iter().map(|anchor| &**anchor));
                labelled(name, "subject", &qualifiers)
            }),
        },
        Source::CertificateThumbprint => identity
            .certificate
            .as_ref()
            .map(|certificate| own(certificate::thumbprint_text(certificate).into())),
    })
}

/// The one value of a subject attribute.
fn subject_value(certificate: &PeerCertificate, oid: &str) -> Result<Option<Arc<str>>, Rejection> {
    let mut values = certificate.subject_values(oid);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => usable(value).map(|value| Some(value.clone())),
        (Some(_), Some(_)) => Err(unresolved("the subject attribute is repeated")),
    }
}

fn key(start: &str, qualifiers: &[&str], value: &str) -> Arc<str> {
    let mut key = start.to_owned();
    for part in qualifiers {
        key.push(':');
        push_segment(&mut key, part);
    }
    key.push(':');
    key.push_str(value);
    key.into()
}

fn text(value: Option<&Value>) -> Result<Option<Arc<str>>, Rejection> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => usable(text).map(|text| Some(text.clone())),
        Some(Value::Integer(number)) => Ok(Some(number.to_string().into())),
        Some(other) => Err(unresolved(&format!("the caller's name is {}", other.kind()))),
    }
}

/// SECURITY: names reach headers and logs, so control characters and endless ones are refused here, once.
pub(crate) fn is_name(text: &str) -> bool {
    is_printable(text) && text.len() <= MAX_NAME
}

/// Whether it is something to read at all.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn usable(text: &Arc<str>) -> Result<&Arc<str>, Rejection> {
    is_name(text)
        .then_some(text)
        .ok_or_else(|| unresolved("the caller's name is empty, too long or not printable"))
}

fn unresolved(why: &str) -> Rejection {
    Rejection::new(Reason::IdentityUnresolved).because(why)
}

/// Appends a part of a key that more parts follow: `:` and `%` are percent-encoded.
fn push_segment(key: &mut String, part: &str) {
    for character in part.chars() {
        match character {
            ':' => key.push_str("%3A"),
            '%' => key.push_str("%25"),
            other => key.push(other),
        }
    }
}

/// The key of a client that has a token of an issuer for itself. A subject that is called the same has another one.
pub(crate) fn client_key(issuer: &str, client: &str) -> Arc<str> {
    key("oauth_client", &[issuer], client)
}

/// The key of the subject of an issuer's tokens.
pub(crate) fn token_key(issuer: &str, subject: &str) -> Arc<str> {
    key("jwt", &[issuer], subject)
}
