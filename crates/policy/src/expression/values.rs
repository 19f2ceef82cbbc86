//! The facts of a request as values of an expression. Nothing is copied or converted before it is asked for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, MAP_TYPE, Type,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use http::HeaderMap;
use portcullis_core::json::{Object, Value as Json};
use portcullis_core::{Client, PeerCertificate, SubjectAlternativeName};

use super::vocabulary::subject_oid;
use crate::Facts;
use crate::spelling::plainly_spelled;

/// The variables of one request.
pub(super) struct Variables<'a>(Facts<'a>);

impl<'a> Variables<'a> {
    pub(super) const fn new(facts: Facts<'a>) -> Self {
        Self(facts)
    }
}

impl VariableResolver for Variables<'_> {
    /// Also answers whole paths (`claims.acr`), which the evaluator asks for first: the cheap way. What is
    /// missing on a path is left to the evaluator, which then walks it and reports the missing member.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let mut names = variable.split('.');
        let mut found = Found::Group(Group::variable(names.next()?, &self.0)?);
        for name in names {
            found = found.member(name).ok()??;
        }
        Some(found.into_value())
    }
}

/// A member that was looked up.
enum Found<'a> {
    Value(Box<dyn Val + 'a>),
    Json(&'a Json),
    Group(Group<'a>),
}

impl<'a> Found<'a> {
    fn text(text: &'a str) -> Self {
        Self::Value(Box::new(CelString::from(text)))
    }

    fn owned_text(text: String) -> Self {
        Self::Value(Box::new(CelString::from(text)))
    }

    fn texts(texts: impl Iterator<Item = &'a str>) -> Self {
        let items: Vec<Box<dyn Val + 'a>> =
            texts.map(|text| Box::new(CelString::from(text)) as Box<dyn Val + 'a>).collect();
        Self::Value(Box::new(CelList::from(items)))
    }

    fn member(self, name: &str) -> Result<Option<Self>, ExecutionError> {
        match self {
            Self::Group(group) => group.member(name),
            Self::Json(Json::Object(object)) => Ok(object.get(name).map(Self::Json)),
            Self::Json(_) | Self::Value(_) => Ok(None),
        }
    }

    fn into_value<'b>(self) -> CowVal<'b, 'a> {
        match self {
            Self::Value(value) => CowVal::Owned(value),
            Self::Json(json) => CowVal::Owned(json_value(json)),
            Self::Group(group) => CowVal::owned(group),
        }
    }
}

/// JSON as the evaluator's own values. Sizes were bounded when the JSON was read.
fn json_value<'a>(json: &'a Json) -> Box<dyn Val + 'a> {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(truth) => Box::new(CelBool::from(*truth)),
        Json::Integer(number) => Box::new(CelInt::from(*number)),
        Json::Number(number) => Box::new(CelDouble::from(*number)),
        Json::Text(text) => Box::new(CelString::from(&**text)),
        Json::List(items) => Box::new(CelList::from(items.iter().map(json_value).collect::<Vec<_>>())),
        Json::Object(object) => {
            let members: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> =
                object.members().map(|(name, value)| (CelMapKey::from(name), json_value(value))).collect();
            Box::new(CelMap::from(members))
        }
    }
}

/// A variable with members, or a member with members of its own.
#[derive(Clone, Copy)]
enum Group<'a> {
    Request(&'a Facts<'a>),
    Headers(&'a HeaderMap),
    Identity(&'a Facts<'a>),
    Members(&'a Object),
    Certificate(Option<&'a PeerCertificate>),
    Subject(Option<&'a PeerCertificate>),
    Client(Option<&'a Arc<Client>>),
    /// The attributes of a caller that is no registered client.
    Nothing,
}

impl fmt::Debug for Group<'_> {
    /// Facts about people do not belong into messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("group")
    }
}

impl<'a> Group<'a> {
    fn variable(name: &str, facts: &'a Facts<'a>) -> Option<Self> {
        Some(match name {
            "request" => Self::Request(facts),
            "identity" => Self::Identity(facts),
            "claims" => Self::Members(&facts.grant().claims),
            "certificate" => Self::Certificate(facts.current_certificate()),
            "client" => Self::Client(facts.principal.client()),
            _ => return None,
        })
    }

    /// `Ok(None)` if there is no such member in this request; an error if there is no saying what it is.
    fn member(self, name: &str) -> Result<Option<Found<'a>>, ExecutionError> {
        Ok(match self {
            Self::Request(facts) => request(facts, name),
            Self::Headers(headers) => header(headers, name)?.map(Found::text),
            Self::Identity(facts) => identity(facts, name),
            Self::Members(object) => object.get(name).map(Found::Json),
            // Also without a certificate, so that one `has` tells whether there is such an attribute.
            Self::Certificate(certificate) if name == "subject" => {
                Some(Found::Group(Self::Subject(certificate)))
            }
            Self::Certificate(certificate) => {
                certificate.and_then(|certificate| certificate_member(certificate, name))
            }
            Self::Subject(certificate) => match certificate {
                None => None,
                Some(certificate) => subject(certificate, name)?.map(Found::text),
            },
            Self::Client(client) => match name {
                "name" => client.map(|client| Found::text(&client.name)),
                "attributes" => Some(Found::Group(
                    client.map_or(Self::Nothing, |client| Self::Members(&client.attributes)),
                )),
                _ => None,
            },
            Self::Nothing => None,
        })
    }
}

fn request<'a>(facts: &'a Facts<'a>, name: &str) -> Option<Found<'a>> {
    Some(match name {
        "method" => Found::text(facts.head.method.as_str()),
        "path" => match plainly_spelled(facts.head.uri.path()) {
            Cow::Borrowed(path) => Found::text(path),
            Cow::Owned(path) => Found::owned_text(path),
        },
        "host" => match (facts.host)(facts.head)? {
            Cow::Borrowed(host) => Found::text(host),
            Cow::Owned(host) => Found::owned_text(host),
        },
        "headers" => Found::Group(Group::Headers(&facts.head.headers)),
        "time" => Found::Value(Box::new(CelInt::from(facts.now.unix_seconds()))),
        _ => return None,
    })
}

/// SECURITY: a field that stands there twice has no one value: whichever we took, the upstream may take the
/// other.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ExecutionError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| undecided("a header is not text")),
        (Some(_), Some(_)) => Err(undecided("a header occurs more than once")),
    }
}

fn identity<'a>(facts: &'a Facts<'a>, name: &str) -> Option<Found<'a>> {
    let (principal, naming) = (facts.principal, &*facts.principal.identity);
    match name {
        "name" => Some(Found::text(&principal.name)),
        "key" => Some(Found::text(&principal.key)),
        "group" => principal.group.as_deref().map(Found::text),
        "method" => Some(Found::text(naming.method.as_str())),
        "issuer" => naming.issuer.as_deref().map(Found::text),
        "subject" => Some(Found::text(&naming.subject)),
        "key_id" => naming.key_id.as_deref().map(Found::text),
        "scopes" => Some(Found::texts(facts.grant().scopes.iter().map(|scope| &**scope))),
        _ => None,
    }
}

fn certificate_member<'a>(certificate: &'a PeerCertificate, name: &str) -> Option<Found<'a>> {
    let names = certificate.alternative_names.iter();
    Some(match name {
        "thumbprint" => Found::owned_text(hexadecimal(&certificate.thumbprint)),
        "serial" => Found::owned_text(hexadecimal(&certificate.serial)),
        "dns_names" => Found::texts(names.filter_map(|name| match name {
            SubjectAlternativeName::Dns(name) => Some(&**name),
            _ => None,
        })),
        "uris" => Found::texts(names.filter_map(|name| match name {
            SubjectAlternativeName::Uri(uri) => Some(&**uri),
            _ => None,
        })),
        "trusted_by" => Found::texts(certificate.trusted_by.iter().map(|anchor| &**anchor)),
        _ => return None,
    })
}

fn subject<'a>(certificate: &'a PeerCertificate, name: &str) -> Result<Option<&'a str>, ExecutionError> {
    let Some(oid) = subject_oid(name) else { return Ok(None) };
    let mut values = certificate.subject_values(oid);
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| &**value)),
        (_, Some(_)) => Err(undecided("a subject attribute occurs more than once")),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn undecided(why: &str) -> ExecutionError {
    ExecutionError::InternalError(why.to_owned())
}

impl Val for Group<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Indexer for Group<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = index.downcast_ref::<CelString<'_>>().map(CelString::inner);
        let name = name.ok_or_else(|| undecided("a member's name is not text"))?;
        let found = self.member(name)?.ok_or_else(|| ExecutionError::no_such_key(name))?;
        Ok(found.into_value())
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

impl Container for Group<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        match value.downcast_ref::<CelString<'_>>() {
            Some(name) => Ok(self.member(name.inner())?.is_some()),
            None => Ok(false),
        }
    }
}
