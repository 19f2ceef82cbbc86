//! `identity: { name, group }`: what an API calls its callers.
//!
//! A key names one caller among all callers of the gateway. Every part of it but the last is escaped, so that no
//! choice of names can make two callers share one: `jwt:a:b:c` is subject `b:c` of issuer `a`, never subject `c`
//! of an issuer called `a:b`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_core::document::{Fields, Node};
use portcullis_core::json::Value;
use portcullis_core::{
    AuthMethod, Diagnostic, Faults, Identity, PeerCertificate, Place, Reason, Rejection, Spanned,
};

use crate::certificate;

/// The longest name of a caller, in bytes (JWT-28).
const MAX_NAME: usize = 255;

/// `identity:` as written.
#[derive(Clone, Debug)]
pub struct IdentitySpec {
    name: Vec<Spanned<Source>>,
    group: Vec<Spanned<Source>>,
}

/// Where a name or a group is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
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

    /// The authenticator whose identity has it.
    const fn method(&self) -> AuthMethod {
        match self {
            Self::Claim(_) => AuthMethod::Jwt,
            Self::ClientName | Self::ClientAttribute(_) => AuthMethod::ApiKey,
            Self::CertificateSubject(_) | Self::CertificateThumbprint => AuthMethod::Certificate,
        }
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

    /// Where `name` is written, if none of these authenticators can give what it reads.
    pub(crate) fn unfillable(&self, methods: &[AuthMethod]) -> Option<Place> {
        let filled = self.name.iter().any(|source| methods.contains(&source.value.method()));
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
        self.name.iter().chain(&self.group).all(|source| source.method() == method)
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

/// The registered client, else the issuer and the subject.
fn default_name(identity: &Identity) -> Arc<str> {
    match &identity.issuer {
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
        if let Some(identity) = identities().find(|identity| identity.method == source.method())
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
    !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control)
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

/// The key of the subject of an issuer's tokens.
pub(crate) fn token_key(issuer: &str, subject: &str) -> Arc<str> {
    key("jwt", &[issuer], subject)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_core::json::{Limits, parse_object};
    use portcullis_core::{AuthMethod, Faults, Identity};
    use serde_json::{Value, json};

    use super::{IdentityRule, IdentitySpec, token_key};
    use crate::certificate;
    use crate::testing::{certificate_der, node, only_fault, peer};

    fn rule(written: &Value) -> IdentityRule {
        let mut faults = Faults::default();
        let spec = IdentitySpec::read(&node(written), &mut faults);
        assert!(!faults.any_error(), "{faults:?}");
        IdentityRule::compile(spec.as_ref())
    }

    fn token(issuer: &str, claims: &Value) -> Identity {
        let claims = parse_object(claims.to_string().as_bytes(), Limits::default()).expect("claims");
        Identity {
            method: AuthMethod::Jwt,
            key: token_key(issuer, "s"),
            subject: "s".into(),
            issuer: Some(issuer.into()),
            client: None,
            claims: Arc::new(claims),
            scopes: Arc::default(),
            certificate: None,
            expires_at: None,
        }
    }

    fn named(written: &Value, identity: &Identity) -> Result<(String, String), &'static str> {
        let named = rule(written).name(identity, &[]).map_err(|rejection| rejection.reason().code())?;
        Ok((named.name.to_string(), named.key.to_string()))
    }

    /// JWT-28, security-reliability 2.2 `limit-identity-delimiter`.
    #[test]
    fn no_two_callers_share_a_key() {
        assert_ne!(token_key("a:b", "c"), token_key("a", "b:c"));
        assert_ne!(token_key("a%3Ab", "c"), token_key("a:b", "c"));
        let name = json!({"name": ["claims.x", "claims.x:y"]});
        let (_, short) = named(&name, &token("i", &json!({"x": "y:z"}))).expect("a name");
        let (_, long) = named(&name, &token("i", &json!({"x:y": "z"}))).expect("a name");
        assert_eq!((&*short, &*long), ("claim:i:x:y:z", "claim:i:x%3Ay:z"));
        let (_, other) = named(&name, &token("j", &json!({"x": "y:z"}))).expect("a name");
        assert_ne!(short, other, "another issuer");
        assert_ne!(&*short, &*token_key("i", "x:y:z"), "another claim");
    }

    #[test]
    fn a_claim_names_the_caller_if_it_can() {
        let name = json!({"name": "claims.act.id"});
        for (claims, expected) in [
            (json!({"act": {"id": "tpp"}}), Ok("tpp")),
            (json!({"act": {"id": 7}}), Ok("7")),
            (json!({"act.id": "x"}), Ok("x")),
            (json!({}), Err("identity_unresolved")),
            (json!({"act": {"id": null}}), Err("identity_unresolved")),
            (json!({"act": {"id": ""}}), Err("identity_unresolved")),
            (json!({"act": {"id": ["tpp"]}}), Err("identity_unresolved")),
            (json!({"act": {"id": true}}), Err("identity_unresolved")),
            (json!({"act": {"id": "a\r\nb"}}), Err("identity_unresolved")),
            (json!({"act": {"id": "x".repeat(256)}}), Err("identity_unresolved")),
        ] {
            let found = named(&name, &token("i", &claims)).map(|(name, _)| name);
            assert_eq!(found.as_deref().map_err(|code| *code), expected, "{claims}");
        }
    }

    /// The next source is for callers who lack the first, not for those whose first is bad.
    #[test]
    fn a_bad_value_is_not_stepped_over() {
        let name = json!({"name": ["claims.a", "claims.b"]});
        let found = |claims: Value| named(&name, &token("i", &claims)).map(|(name, _)| name);
        assert_eq!(found(json!({"b": "y"})).as_deref(), Ok("y"));
        assert_eq!(found(json!({"a": "x", "b": "y"})).as_deref(), Ok("x"));
        assert_eq!(found(json!({"a": ["x"], "b": "y"})), Err("identity_unresolved"));
    }

    #[test]
    fn a_certificate_names_its_holder_within_its_anchor() {
        let der = certificate_der(&[(rcgen::DnType::OrganizationalUnitName, "6f1c")], &[]);
        let ou = json!({"name": "certificate.subject.ou"});
        let (tpp, staff) = (peer(&der, "tpp"), peer(&der, "staff"));
        let (name, key) = named(&ou, &certificate::identity(&tpp)).expect("a name");
        assert_eq!((&*name, &*key), ("6f1c", "subject:2.5.4.11:1:tpp:6f1c"));
        let (_, other) = named(&ou, &certificate::identity(&staff)).expect("a name");
        assert_ne!(key, other);
        let thumbprint = json!({"name": "certificate.thumbprint"});
        let (name, key) = named(&thumbprint, &certificate::identity(&tpp)).expect("a name");
        assert_eq!(key, format!("certificate:{name}"));
        let missing = named(&json!({"name": "certificate.subject.cn"}), &certificate::identity(&tpp));
        assert_eq!(missing, Err("identity_unresolved"));
    }

    #[test]
    fn the_group_may_be_missing_but_not_broken() {
        let grouped = rule(&json!({"group": "claims.tier"}));
        let group = |claims: Value| {
            let named = grouped.name(&token("i", &claims), &[]);
            named.map(|named| named.group.map(|group| group.to_string())).map_err(|r| r.reason().code())
        };
        assert_eq!(group(json!({"tier": "gold"})), Ok(Some("gold".to_owned())));
        assert_eq!(group(json!({})), Ok(None));
        assert_eq!(group(json!({"tier": {"a": 1}})), Err("identity_unresolved"));
    }

    #[test]
    fn faults_are_told_where_they_are() {
        for (written, code, saying) in [
            (json!({}), "missing_key", "needs `name`, `group` or both"),
            (json!({"name": "sub"}), "unknown_source", "`sub` is nothing a caller can be named by"),
            (json!({"name": "claims."}), "unknown_source", "`claims.` is nothing"),
            (json!({"name": "client.tier"}), "unknown_source", "`client.tier` is nothing"),
            (json!({"name": "certificate.subject.xx"}), "unknown_source", "is nothing a caller"),
            (json!({"name": "claims.a", "grup": "claims.b"}), "unknown_key", "unknown key `grup`"),
        ] {
            let mut faults = Faults::default();
            let _ = IdentitySpec::read(&node(&written), &mut faults);
            only_fault(faults, code, saying);
        }
    }
}
