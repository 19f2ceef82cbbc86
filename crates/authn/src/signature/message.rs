//! A message, as far as a signature can speak of it (RFC 9421 section 2.2).

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

/// A request or a response.
#[derive(Clone, Copy, Debug)]
pub struct Message<'m> {
    /// What it is.
    pub control: Control<'m>,
    /// Its fields.
    pub headers: &'m HeaderMap,
    /// Its trailers, where they are known.
    pub trailers: Option<&'m HeaderMap>,
}

/// What a message says beside its fields.
#[derive(Clone, Copy, Debug)]
pub enum Control<'m> {
    /// A request.
    Request(&'m Target),
    /// A response, with the request it answers where that is known.
    Response(StatusCode, Option<&'m Message<'m>>),
}

/// What a request is for, as its sender sees it.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) method: Method,
    pub(super) scheme: &'static str,
    /// Lower case, without the port that the scheme implies.
    pub(super) authority: String,
    pub(super) uri: Uri,
    pub(super) version: Version,
}

impl Target {
    /// Reads it off the head of a request. `scheme` is the one the caller used, also where TLS ends in front of us.
    pub fn of(head: &Parts, scheme: &'static str) -> Self {
        let authority = match head.headers.get(header::HOST) {
            Some(host) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
            None => head.uri.authority().map(ToString::to_string).unwrap_or_default(),
        };
        Self {
            method: head.method.clone(),
            scheme,
            authority: normal(authority, scheme),
            uri: head.uri.clone(),
            version: head.version,
        }
    }

    pub(super) fn path(&self) -> &str {
        match self.uri.path() {
            "" => "/",
            path => path,
        }
    }

    /// The absolute target.
    pub(super) fn absolute(&self) -> String {
        let query = self.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        // `*` is about the server itself, and no path (RFC 9110 section 7.1).
        let path = if self.uri.path() == "*" { "" } else { self.path() };
        format!("{}://{}{path}{query}", self.scheme, self.authority)
    }

    /// What stood in the request line, or in its place.
    pub(super) fn as_sent(&self) -> String {
        if self.version < Version::HTTP_2 && self.uri.scheme().is_some() {
            return self.uri.to_string();
        }
        match self.uri.path_and_query() {
            Some(target) if !target.as_str().is_empty() => target.as_str().to_owned(),
            _ => "/".to_owned(),
        }
    }

    /// The value of the query's one parameter of that name, which is written in the canonical encoding, and so is
    /// the value (section 2.2.8). SECURITY: a parameter that occurs twice has no value: a reader behind us could take
    /// the other one.
    pub(super) fn query_parameter(&self, name: &str) -> Option<String> {
        let query = self.uri.query().unwrap_or_default();
        let mut found = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
            if canonical(own) == name && found.replace(canonical(value)).is_some() {
                return None;
            }
        }
        found
    }
}

fn normal(authority: String, scheme: &str) -> String {
    let mut authority = authority.to_ascii_lowercase();
    let implied = if scheme == "https" { ":443" } else { ":80" };
    if authority.ends_with(implied) {
        authority.truncate(authority.len() - implied.len());
    }
    authority
}

/// Reads a piece of a query as a form (WHATWG URL section 5.1) and writes it with every byte encoded that is not a
/// letter, a digit or one of `*-._`.
fn canonical(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digit =
            |at: usize| char::from(*after.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (byte, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => {
                plain.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => plain.push(b' '),
            (byte, _) => plain.push(byte),
        }
        rest = after;
    }
    // What is no UTF-8 is replaced, as a form reader does.
    let plain = String::from_utf8_lossy(&plain);
    let mut written = String::with_capacity(plain.len());
    for byte in plain.bytes() {
        match byte {
            b'*' | b'-' | b'.' | b'_' => written.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => written.push(char::from(byte)),
            byte => written.push_str(&format!("%{byte:02X}")),
        }
    }
    written
}
