//! The signature base (RFC 9421 section 2.5).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{Dictionary, FieldType, InnerList, Item, List, ListEntry, ListSerializer, Parser};

use super::component::{Component, ComponentError, Derived, How, Name};
use super::message::{Control, Message, Target};

/// Why there is nothing to sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// A component's identifier.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// Two identifiers that mean the same.
    #[error("it covers {0} twice")]
    Repeated(String),
    /// The message has no such component.
    #[error("it covers {0}, which the request does not have")]
    Missing(String),
    /// The component's value cannot be written as it should be.
    #[error("the value of {0} cannot be signed")]
    Value(String),
}

/// Reads the list of what is covered.
pub(super) fn components(list: &InnerList) -> Result<Vec<Component>, BaseError> {
    let mut components: Vec<Component> = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let component = Component::of(item)?;
        // Parameters in another order are the same component (section 2).
        if components.iter().any(|known| known.name == component.name && known.how == component.how) {
            return Err(BaseError::Repeated(component.identifier));
        }
        components.push(component);
    }
    Ok(components)
}

/// The bytes that are signed: a line for each component, and the list itself with its parameters.
pub(super) fn build(
    components: &[Component],
    list: &InnerList,
    message: &Message<'_>,
) -> Result<String, BaseError> {
    let mut base = String::with_capacity(512);
    for component in components {
        let value = value(component, message)?;
        // SECURITY: a value with a line end could pose as further lines.
        if !value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
            return Err(BaseError::Value(component.identifier.clone()));
        }
        base.push_str(&component.identifier);
        base.push_str(": ");
        base.push_str(&value);
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(&parameters(list));
    Ok(base)
}

/// The list, strictly written.
fn parameters(list: &InnerList) -> String {
    let mut serializer = ListSerializer::new();
    let mut inner = serializer.inner_list();
    inner.items(&list.items);
    inner.finish().parameters(&list.params);
    // A list with a member is never empty.
    serializer.finish().unwrap_or_default()
}

fn value(component: &Component, message: &Message<'_>) -> Result<String, BaseError> {
    let missing = || BaseError::Missing(component.identifier.clone());
    let message = match (component.how.req, &message.control) {
        (false, _) => message,
        (true, Control::Response(_, request)) => request.ok_or_else(missing)?,
        (true, Control::Request(_)) => return Err(missing()),
    };
    match &component.name {
        Name::Derived(derived) => {
            self::derived(*derived, &component.how, &message.control).ok_or_else(missing)
        }
        Name::Field(name) => {
            let fields = if component.how.tr { message.trailers } else { Some(message.headers) };
            let lines = lines(fields.ok_or_else(missing)?, name);
            if lines.is_empty() {
                // HTTP/2 says the host beside the path.
                let host = match &message.control {
                    Control::Request(target) if *name == http::header::HOST => Some(target.authority.clone()),
                    Control::Request(_) | Control::Response(..) => None,
                };
                return host.filter(|host| !host.is_empty()).ok_or_else(missing);
            }
            field(name, &lines, &component.how).ok_or_else(|| BaseError::Value(component.identifier.clone()))
        }
    }
}

fn derived(derived: Derived, how: &How, control: &Control<'_>) -> Option<String> {
    let target: &Target = match control {
        Control::Request(target) => target,
        Control::Response(status, _) => {
            return (derived == Derived::Status).then(|| status.as_str().to_owned());
        }
    };
    Some(match derived {
        Derived::Method => target.method.as_str().to_owned(),
        Derived::TargetUri => target.absolute(),
        Derived::Authority => target.authority.clone(),
        Derived::Scheme => target.scheme.to_owned(),
        Derived::RequestTarget => target.as_sent(),
        Derived::Path => target.path().to_owned(),
        Derived::Query => format!("?{}", target.uri.query().unwrap_or_default()),
        Derived::QueryParam => target.query_parameter(how.name.as_deref()?)?,
        Derived::Status => return None,
    })
}

/// The lines of a field, without white space around them.
fn lines<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).map(<[u8]>::trim_ascii).collect()
}

fn field(name: &HeaderName, lines: &[&[u8]], how: &How) -> Option<String> {
    if how.bs {
        let wrapped: Vec<_> = lines.iter().map(|line| format!(":{}:", STANDARD.encode(line))).collect();
        return Some(wrapped.join(", "));
    }
    let joined = lines.join(&b", "[..]);
    if let Some(key) = &how.key {
        let members: Dictionary = Parser::new(&joined).parse().ok()?;
        let (_, member) = members.iter().find(|(own, _)| own.as_str() == key)?;
        return Some(member_text(member));
    }
    if how.sf {
        return strictly(name, &joined);
    }
    String::from_utf8(joined).ok()
}

fn member_text(member: &ListEntry) -> String {
    match member {
        ListEntry::Item(item) => item.serialize(),
        ListEntry::InnerList(list) => parameters(list),
    }
}

/// A structured field, written strictly (section 2.1.1).
fn strictly(name: &HeaderName, value: &[u8]) -> Option<String> {
    fn written<T: FieldType<SerializeResult = Option<String>>>(value: T) -> String {
        value.serialize().unwrap_or_default()
    }
    match kind(name.as_str())? {
        Kind::Dictionary => Parser::new(value).parse::<Dictionary>().ok().map(written),
        Kind::List => Parser::new(value).parse::<List>().ok().map(written),
        Kind::Item => Parser::new(value).parse::<Item>().ok().map(|item| item.serialize()),
    }
}

/// What kind of structured field it is.
#[derive(Clone, Copy)]
enum Kind {
    Dictionary,
    List,
    Item,
}

/// The registered fields that are structured, and that requests or responses carry. Of others nobody can say how they
/// are written strictly, and so they cannot be covered that way.
fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "content-digest"
        | "repr-digest"
        | "want-content-digest"
        | "want-repr-digest"
        | "signature"
        | "signature-input"
        | "accept-signature"
        | "priority"
        | "cdn-cache-control"
        | "example-dict"
        | "permissions-policy"
        | "reporting-endpoints" => Kind::Dictionary,
        "accept-ch"
        | "cache-status"
        | "proxy-status"
        | "client-cert-chain"
        | "sec-ch-ua"
        | "sec-ch-ua-full-version-list"
        | "accept-query" => Kind::List,
        "client-cert"
        | "origin-agent-cluster"
        | "sec-ch-ua-mobile"
        | "sec-ch-ua-platform"
        | "cross-origin-opener-policy"
        | "cross-origin-embedder-policy"
        | "idempotency-key" => Kind::Item,
        _ => return None,
    })
}
