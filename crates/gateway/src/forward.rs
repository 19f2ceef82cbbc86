//! What an API adds to and takes from the requests it forwards.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use portcullis_core::document::{Fields, Node};
use portcullis_core::json::{Object, Value};
use portcullis_core::{Diagnostic, Faults, PeerCertificate, Place, Principal, Reason, Rejection, Spanned};

use crate::ledger::RequestId;
use crate::listener::forwarded::CertificateText;

/// Longest value a template may make. Claims are bounded by the token's size, headers at most servers by 8 KiB.
const MAX_VALUE: usize = 4096;

/// The same with a whole certificate in it. Whoever asks for one knows what their server takes.
const MAX_CERTIFICATE: usize = 16_384;

/// `forward:` as written.
#[derive(Debug, Default)]
pub(crate) struct ForwardSpec {
    set: Vec<(Spanned<String>, Spanned<String>)>,
    remove: Vec<Spanned<String>>,
    keep_credentials: bool,
}

/// `forward:` as run.
#[derive(Debug, Default)]
pub(crate) struct Forward {
    set: Vec<(HeaderName, Template)>,
    remove: Vec<HeaderName>,
    /// Whether the credential that was checked goes on to the upstream.
    pub(crate) keep_credentials: bool,
}

/// What templates may speak of.
pub(crate) struct Subject<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) certificate: Option<&'a PeerCertificate>,
    pub(crate) request_id: RequestId,
}

#[derive(Debug, PartialEq)]
struct Template(Vec<Part>);

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Debug, PartialEq)]
enum Variable {
    IdentityName,
    IdentityGroup,
    IdentitySubject,
    IdentityMethod,
    IdentityKeyId,
    ClientName,
    ClientAttribute(String),
    Claim(String),
    CertificateThumbprint,
    CertificateSubject,
    CertificateText(CertificateText),
    RequestId,
}

impl ForwardSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`forward`", faults)?;
        let (set, remove, keep) = (fields.get("set"), fields.get("remove"), fields.get("keep_credentials"));
        fields.finish(faults);
        let mut spec = Self::default();
        for entry in set.and_then(|set| set.named(faults)).unwrap_or_default() {
            if let Some(value) = entry.value.text(faults) {
                spec.set.push((entry.key.clone(), value));
            }
        }
        spec.remove = remove.and_then(|remove| remove.texts(faults)).unwrap_or_default();
        spec.keep_credentials = keep.and_then(|keep| keep.boolean(faults)).unwrap_or(false);
        Some(spec)
    }

    pub(crate) fn compile(&self, faults: &mut Faults) -> Forward {
        let set = self.set.iter().filter_map(|(name, value)| {
            let name = header_name(name, faults)?;
            Some((name, Template::parse(value, faults)?))
        });
        Forward {
            set: set.collect::<Vec<_>>(),
            remove: self.remove.iter().filter_map(|name| header_name(name, faults)).collect(),
            keep_credentials: self.keep_credentials,
        }
    }
}

fn header_name(name: &Spanned<String>, faults: &mut Faults) -> Option<HeaderName> {
    /// These frame the message or belong to one connection; the forwarder alone decides about them.
    const RESERVED: [&str; 9] = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "proxy-connection",
    ];
    let Ok(parsed) = name.value.parse::<HeaderName>() else {
        faults.error("bad_header", name.place, format!("`{}` is not a header name", name.value));
        return None;
    };
    if RESERVED.contains(&parsed.as_str()) {
        faults.error(
            "bad_header",
            name.place,
            format!("`{}` belongs to the connection and cannot be set here", name.value),
        );
        return None;
    }
    Some(parsed)
}

impl Forward {
    /// Sets headers, after everything a caller could have forged was removed: ours come last and no
    /// caller's copy survives, not even where we have nothing to say.
    ///
    /// # Errors
    /// A value that cannot be a header value: a claim with line ends, for example.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, subject: &Subject<'_>) -> Result<(), Rejection> {
        for (name, template) in &self.set {
            match template.render(subject) {
                Some(text) => {
                    let value = value_of(&text, template.longest()).map_err(|why| {
                        Rejection::new(Reason::IdentityUnresolved)
                            .because(format!("the value for {name} {why}"))
                    })?;
                    headers.insert(name, value);
                }
                None => {
                    headers.remove(name);
                }
            }
        }
        Ok(())
    }

    /// The names this API sets.
    pub(crate) fn set_names(&self) -> impl Iterator<Item = &HeaderName> + Clone {
        self.set.iter().map(|(name, _)| name)
    }

    /// What is to be taken from a request, whichever way its name is spelled.
    pub(crate) fn removed(&self, credentials: &[HeaderName]) -> Vec<HeaderName> {
        let credentials = credentials.iter().filter(|_| !self.keep_credentials);
        self.set_names().chain(&self.remove).chain(credentials).cloned().collect()
    }
}

/// SECURITY: only visible ASCII and spaces, so that no reader behind us can see a second header or a second
/// value; a caller who controls a claim controls this text.
fn value_of(text: &str, longest: usize) -> Result<HeaderValue, &'static str> {
    if text.len() > longest {
        return Err("is too long");
    }
    if text.starts_with(' ') || text.ends_with(' ') || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err("holds characters that a header value cannot hold");
    }
    HeaderValue::from_str(text).map_err(|_| "holds characters that a header value cannot hold")
}

impl Template {
    fn parse(text: &Spanned<String>, faults: &mut Faults) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text.value.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let Some((name, tail)) = after.split_once('}') else {
                faults.error("bad_template", text.place, "`{` without `}`");
                return None;
            };
            parts.push(Part::Variable(Variable::parse(name, text.place, faults)?));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let literal = |part: &Part| {
            if let Part::Text(text) = part {
                value_of(text.trim_matches(' '), MAX_VALUE).is_ok()
            } else {
                true
            }
        };
        if !parts.iter().all(literal) {
            faults.error("bad_template", text.place, "this holds characters that a header value cannot hold");
            return None;
        }
        Some(Self(parts))
    }

    fn longest(&self) -> usize {
        let whole = |part: &Part| matches!(part, Part::Variable(Variable::CertificateText(_)));
        if self.0.iter().any(whole) { MAX_CERTIFICATE } else { MAX_VALUE }
    }

    /// `None` if any variable has no value: half a value is worse than none.
    fn render<'a>(&'a self, subject: &Subject<'a>) -> Option<Cow<'a, str>> {
        if let [Part::Variable(variable)] = self.0.as_slice() {
            return variable.value(subject);
        }
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Variable(variable) => text.push_str(&variable.value(subject)?),
            }
        }
        Some(text.into())
    }
}

impl Variable {
    const NAMES: [&'static str; 16] = [
        "identity.name",
        "identity.group",
        "identity.subject",
        "identity.method",
        "identity.key_id",
        "client.name",
        "client.attributes.NAME",
        "claims.NAME",
        "certificate.thumbprint",
        "certificate.subject",
        "certificate.rfc9440",
        "certificate.base64_der",
        "certificate.pem_url_encoded",
        "certificate.pem_one_line",
        "certificate.xfcc",
        "request.id",
    ];

    fn parse(name: &str, place: Place, faults: &mut Faults) -> Option<Self> {
        Some(match name {
            "identity.name" => Self::IdentityName,
            "identity.group" => Self::IdentityGroup,
            "identity.subject" => Self::IdentitySubject,
            "identity.method" => Self::IdentityMethod,
            "identity.key_id" => Self::IdentityKeyId,
            "client.name" => Self::ClientName,
            "certificate.thumbprint" => Self::CertificateThumbprint,
            "certificate.subject" => Self::CertificateSubject,
            "request.id" => Self::RequestId,
            _ => {
                let written = CertificateText::WORDS.iter().find(|(word, _)| *word == name);
                if let Some((_, written)) = written {
                    return Some(Self::CertificateText(*written));
                }
                if let Some(claim) = name.strip_prefix("claims.").filter(|claim| !claim.is_empty()) {
                    return Some(Self::Claim(claim.to_owned()));
                }
                if let Some(attribute) =
                    name.strip_prefix("client.attributes.").filter(|name| !name.is_empty())
                {
                    return Some(Self::ClientAttribute(attribute.to_owned()));
                }
                let mut fault =
                    Diagnostic::error("bad_template", place, format!("`{{{name}}}` is not known here"))
                        .note(format!("known: {}", Self::NAMES.join(", ")));
                if let Some(near) = portcullis_core::diagnostic::nearest(name, Self::NAMES) {
                    fault = fault.label(format!("did you mean `{{{near}}}`?"));
                }
                faults.push(fault);
                return None;
            }
        })
    }

    fn value<'a>(&self, subject: &Subject<'a>) -> Option<Cow<'a, str>> {
        let principal = subject.principal;
        let shared = |text: &'a Arc<str>| Cow::Borrowed(&**text);
        match self {
            Self::IdentityName => Some(shared(&principal.name)),
            Self::IdentityGroup => principal.group.as_ref().map(shared),
            Self::IdentitySubject => Some(shared(&principal.identity.subject)),
            Self::IdentityMethod => Some(principal.identity.method.as_str().into()),
            Self::IdentityKeyId => principal.identity.key_id.as_ref().map(shared),
            Self::ClientName => principal.client().map(|client| shared(&client.name)),
            Self::ClientAttribute(name) => scalar(&principal.client()?.attributes, name),
            Self::Claim(path) => scalar(&principal.grant().claims, path),
            Self::CertificateThumbprint => Some(hex(&subject.certificate?.thumbprint).into()),
            Self::CertificateSubject => {
                // Of some certificates only the key is known.
                Some(shared(&subject.certificate?.subject_text)).filter(|text| !text.is_empty())
            }
            Self::CertificateText(written) => written.write(subject.certificate?).map(Cow::Owned),
            Self::RequestId => Some(subject.request_id.to_string().into()),
        }
    }
}

fn scalar<'a>(object: &'a Object, path: &str) -> Option<Cow<'a, str>> {
    match object.at(path)? {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Integer(number) => Some(number.to_string().into()),
        Value::Bool(value) => Some(value.to_string().into()),
        Value::Null | Value::Number(_) | Value::List(_) | Value::Object(_) => None,
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
