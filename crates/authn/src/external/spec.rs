//! `external:` as written in a chain.

use std::sync::Arc;
use std::time::Duration;

use ::http::Uri;
use ::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use portcullis_core::document::{Fields, Node};
use portcullis_core::{
    Diagnostic, Faults, FetchIdentity, FetchTrust, Place as FilePlace, SecretSpec, Spanned,
};

use super::answer::{Reading, Source};
use super::cache::Asker;
use super::http::OWN_FIELDS;
use super::key::Part;
use super::{Cache, External, Service, Told, scheme_of};
use crate::chain::Compiling;
use crate::place::{Place, Places, cookie_name, header_name, parameter_name, scheme_word};

/// How long the service may take where the policy does not say.
const TIMEOUT: Duration = Duration::from_millis(200);

/// The longest time it may be given: a caller waits that long.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time an answer may be remembered.
const LONGEST_CACHE: Duration = Duration::from_secs(3600);

/// The most calls a worker has under way where the policy does not say, and the most that may be written.
const AT_ONCE: i64 = 128;
const MOST_AT_ONCE: i64 = 4096;

/// Whom to ask, what about, and what to make of the answer.
#[derive(Clone, Debug)]
pub(crate) struct ExternalSpec {
    service: ServiceSpec,
    places: Option<Places>,
    told: Told,
    context: Vec<(String, String)>,
    timeout: Duration,
    reading: Reading,
    pass: bool,
    cache: Option<Cache>,
    at_once: usize,
}

#[derive(Clone, Debug)]
struct ServiceSpec {
    grpc: bool,
    url: Spanned<String>,
    trust: Option<Spanned<String>>,
    certificate: Option<(Spanned<String>, SecretSpec)>,
    loopback: bool,
}

impl ExternalSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`external`", faults)?;
        let (http, grpc) = (fields.get("http"), fields.get("grpc"));
        let (header, scheme) = (fields.get("header"), fields.get("scheme"));
        let (query, cookie) = (fields.get("query"), fields.get("cookie"));
        let (tell, timeout) = (fields.get("tell"), fields.get("timeout"));
        let (subject, scopes) = (fields.get("subject"), fields.get("scopes"));
        let (attributes, upstream) = (fields.get("attributes"), fields.get("upstream_headers"));
        let (deny, cache) = (fields.get("deny"), fields.get("cache"));
        let at_once = fields.get("at_once");
        fields.finish(faults);
        let service = match (http, grpc) {
            (Some(http), None) => ServiceSpec::read(http, false, faults),
            (None, Some(grpc)) => ServiceSpec::read(grpc, true, faults),
            _ => {
                faults.error("one_key", node.place, "`external` has either `http` or `grpc`");
                None
            }
        };
        let places = [
            header.map(|header| header_place(header, scheme, faults)),
            query.map(|node| parameter_name(node, faults).map(Place::Query)),
            cookie.map(|node| cookie_name(node, faults).map(Place::Cookie)),
        ];
        if let (None, Some(scheme)) = (header, scheme) {
            faults.error("misplaced_scheme", scheme.place, "`scheme` stands beside `header`");
        }
        let places = places.into_iter().flatten().collect::<Option<Vec<Place>>>();
        let told = tell.map_or_else(|| Some(TellSpec::default()), |node| TellSpec::read(node, faults));
        let timeout = timeout.map_or(Some(TIMEOUT), |node| limited(node, LONGEST_TIMEOUT, faults));
        let reading = read_reading(node.place, subject, scopes, attributes, upstream, faults);
        let pass =
            deny.map_or(Some(false), |node| node.one_of(&[("replace", false), ("pass", true)], faults));
        let cache = cache.map(|node| read_cache(node, faults));
        let at_once = at_once.map_or(Some(AT_ONCE), |node| node.integer(1..=MOST_AT_ONCE, faults));
        let (told, places) = (told?, places?);
        let places = if places.is_empty() { None } else { Some(Places::new(places)) };
        let cache = match cache {
            None => None,
            Some(read) => Some(read?),
        };
        if let Some((place, cache)) = &cache {
            check_cache(*place, cache, places.as_ref(), &told.told, faults)?;
        }
        Some(Self {
            service: service?,
            places,
            told: told.told,
            context: told.context,
            timeout: timeout?,
            reading: reading?,
            pass: pass?,
            cache: cache.map(|(_, cache)| cache),
            at_once: usize::try_from(at_once?).ok()?,
        })
    }

    /// Makes the client of the service.
    pub(crate) fn compile(&self, compiling: &Compiling<'_>, faults: &mut Faults) -> Option<External> {
        let (service, name) = self.service.compile(&self.context, compiling, faults)?;
        Some(External {
            asker: Asker::next(),
            at_once: self.at_once,
            scheme: scheme_of(self.places.as_ref()),
            places: self.places.clone(),
            service,
            name,
            timeout: self.timeout,
            told: self.told.clone(),
            reading: self.reading.clone(),
            pass: self.pass,
            cache: self.cache.clone(),
        })
    }
}

impl ServiceSpec {
    fn read(node: &Node, grpc: bool, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "the service", faults)?;
        let url = fields.require("url", faults);
        let (trust, certificate) = (fields.get("trust"), fields.get("client_certificate"));
        let loopback = fields.get("http_on_loopback");
        fields.finish(faults);
        let trust = trust.map(|node| node.file(faults));
        let certificate = certificate.map(|node| {
            let mut fields = Fields::of(node, "a client certificate", faults)?;
            let (certificate, key) = (fields.require("certificate", faults), fields.require("key", faults));
            fields.finish(faults);
            Some((certificate?.file(faults)?, key?.secret(faults)?))
        });
        let loopback = loopback.map_or(Some(false), |node| node.boolean(faults));
        Some(Self {
            grpc,
            url: url?.text(faults)?,
            trust: optional(trust)?,
            certificate: optional(certificate)?,
            loopback: loopback?,
        })
    }

    fn compile(
        &self,
        context: &[(String, String)],
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<(Service, Arc<str>)> {
        let url = &self.url;
        let uri: Option<Uri> = url.value.parse().ok();
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        let secure = scheme == Some("https");
        let authority = uri.as_ref().and_then(Uri::authority).filter(|host| !host.as_str().contains('@'));
        let host = authority.map(|authority| authority.host().to_ascii_lowercase());
        let known = secure || scheme == Some("http");
        let Some(host) = host.filter(|_| known && !url.value.contains('#')) else {
            faults.error("bad_url", url.place, format!("`{}` is not the URL of a service", url.value));
            return None;
        };
        if !secure && !self.loopback {
            faults.push(
                Diagnostic::error("bad_url", url.place, "the service is asked over https only")
                    .note("`http_on_loopback: true` allows plain http to this machine"),
            );
            return None;
        }
        let default_port = if secure { 443 } else { 80 };
        let port = authority.and_then(::http::uri::Authority::port_u16).unwrap_or(default_port);
        let trust = self.trust(compiling, faults)?;
        let made = if self.grpc {
            let client = compiling.callers.get(&url.value, &trust);
            client.map(|client| Service::Grpc { client, context: context.to_vec() })
        } else {
            let client = compiling.fetchers.get(&trust);
            client.map(|client| Service::Http { client, url: url.value.clone() })
        };
        match made {
            Ok(service) => Some((service, format!("{host}:{port}").into())),
            Err(why) => {
                faults.error("bad_service", url.place, format!("the service cannot be asked: {why}"));
                None
            }
        }
    }

    fn trust(&self, compiling: &Compiling<'_>, faults: &mut Faults) -> Option<FetchTrust> {
        let mut file = |path: &Spanned<String>| match compiling.materials.file(path.place.file, &path.value) {
            Ok(bytes) => Some(bytes),
            Err(why) => {
                faults.error("unreadable", path.place, why);
                None
            }
        };
        let anchors = self.trust.as_ref().map(&mut file);
        let chain = self.certificate.as_ref().map(|(certificate, _)| file(certificate));
        let key = self.certificate.as_ref().map(|(_, key)| key.resolve(compiling.materials, faults));
        let identity = match (chain, key) {
            (Some(chain), Some(key)) => Some(FetchIdentity { chain: chain?, key: key? }),
            _ => None,
        };
        Some(FetchTrust {
            anchors: optional(anchors)?,
            identity,
            loopback_http: self.loopback,
            ..FetchTrust::default()
        })
    }
}

/// SECURITY: a part that is written and cannot be read never counts as a part that is not written.
#[expect(clippy::option_option, reason = "absent, unreadable and read are three things")]
fn optional<T>(part: Option<Option<T>>) -> Option<Option<T>> {
    match part {
        None => Some(None),
        Some(None) => None,
        Some(read) => Some(read),
    }
}

/// `tell:`
#[derive(Clone, Debug, Default)]
struct TellSpec {
    told: Told,
    context: Vec<(String, String)>,
}

impl TellSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`tell`", faults)?;
        let (headers, certificate) = (fields.get("headers"), fields.get("certificate"));
        let (content, context) = (fields.get("content"), fields.get("context"));
        fields.finish(faults);
        let headers = headers.map_or(Some(Vec::new()), |node| field_names(node, faults));
        let certificate = certificate.map_or(Some(false), |node| node.boolean(faults));
        let content = content.map(|node| node.size(faults));
        let context = match context.map(|node| node.named(faults)) {
            None => Some(Vec::new()),
            Some(None) => None,
            Some(Some(entries)) => entries
                .iter()
                .map(|entry| Some((entry.key.value.clone(), entry.value.text(faults)?.value)))
                .collect(),
        };
        let told = Told { headers: headers?, certificate: certificate?, content: optional(content)? };
        Some(Self { told, context: context? })
    }
}

/// Names of fields that may be told, or go on to the upstream.
fn field_names(node: &Node, faults: &mut Faults) -> Option<Vec<HeaderName>> {
    let words = node.texts(faults)?;
    let names: Vec<_> = words.iter().filter_map(|word| field_name(word, faults)).collect();
    (names.len() == words.len()).then_some(names)
}

fn field_name(word: &Spanned<String>, faults: &mut Faults) -> Option<HeaderName> {
    const NEVER: &[HeaderName] = &[
        ::http::header::HOST,
        ::http::header::CONNECTION,
        ::http::header::CONTENT_LENGTH,
        CONTENT_TYPE,
        ::http::header::TRANSFER_ENCODING,
        ::http::header::TE,
        ::http::header::TRAILER,
        ::http::header::UPGRADE,
        ::http::header::EXPECT,
        ::http::header::USER_AGENT,
    ];
    match HeaderName::from_bytes(word.value.as_bytes()) {
        Ok(name) if NEVER.contains(&name) || OWN_FIELDS.contains(&name) || speaks_for_the_gateway(&name) => {
            faults.error(
                "bad_header",
                word.place,
                format!("`{name}` is a field of the message or of the gateway"),
            );
            None
        }
        Ok(name) => Some(name),
        Err(_) => {
            faults.error("bad_header", word.place, format!("`{}` is not a header name", word.value));
            None
        }
    }
}

/// Fields about one hop, and those in which the gateway itself tells an upstream where a request comes from.
fn speaks_for_the_gateway(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded")
        || name.starts_with("proxy-")
        || matches!(name, "forwarded" | "keep-alive")
}

/// The whole value of a header, or what follows a scheme in `Authorization`.
fn header_place(header: &Node, scheme: Option<&Node>, faults: &mut Faults) -> Option<Place> {
    let name = header_name(header, faults);
    let Some(scheme) = scheme else { return name.map(Place::Header) };
    let word = scheme_word(scheme, faults);
    if name? != AUTHORIZATION {
        faults.error("misplaced_scheme", scheme.place, "only `authorization` has a scheme");
        return None;
    }
    word.map(|word| Place::authorization(&word))
}

fn read_reading(
    place: FilePlace,
    subject: Option<&Node>,
    scopes: Option<&Node>,
    attributes: Option<&Node>,
    upstream: Option<&Node>,
    faults: &mut Faults,
) -> Option<Reading> {
    if subject.is_none() {
        faults.push(
            Diagnostic::error(
                "missing_key",
                place,
                "`external` needs `subject`: where the answer names the caller",
            )
            .note("write `subject: header.x-user` or `subject: body.sub`"),
        );
    }
    let subject = subject.and_then(|node| source(node, faults));
    let scopes = scopes.map(|node| source(node, faults));
    let attributes = match attributes.map(|node| node.named(faults)) {
        None => Some(Vec::new()),
        Some(None) => None,
        Some(Some(entries)) => {
            let read = |faults: &mut Faults, entry: &portcullis_core::document::Entry| {
                Some((Arc::from(entry.key.value.as_str()), source(&entry.value, faults)?))
            };
            entries.iter().map(|entry| read(faults, entry)).collect()
        }
    };
    let upstream = upstream.map_or(Some(Vec::new()), |node| field_names(node, faults));
    Some(Reading {
        subject: subject?,
        scopes: optional(scopes)?,
        attributes: attributes?,
        upstream_headers: upstream?,
    })
}

/// `header.x-user` or `body.path`.
fn source(node: &Node, faults: &mut Faults) -> Option<Source> {
    let text = node.text(faults)?;
    let read = Source::parse(&text.value);
    if read.is_none() {
        faults.push(
            Diagnostic::error("bad_source", text.place, format!("`{}` is no part of an answer", text.value))
                .note("write `header.NAME`, or `body.PATH` for a JSON body (gRPC: the dynamic metadata)"),
        );
    }
    read
}

fn read_cache(node: &Node, faults: &mut Faults) -> Option<(FilePlace, Cache)> {
    let mut fields = Fields::of(node, "`cache`", faults)?;
    let ignores = fields.get("ignores");
    let (at_most, unstated) = (fields.require("at_most", faults), fields.get("unstated"));
    fields.finish(faults);
    let ignored = match ignores {
        None => Some(Vec::new()),
        Some(node) => node.texts(faults).and_then(|words| {
            let parts: Vec<_> = words.iter().filter_map(|word| part(word, faults)).collect();
            (parts.len() == words.len()).then_some(parts)
        }),
    };
    let at_most = at_most.and_then(|node| limited(node, LONGEST_CACHE, faults));
    let unstated = unstated.map_or(Some(Duration::ZERO), |node| limited(node, LONGEST_CACHE, faults));
    let cache = Cache { ignored: ignored?, at_most: at_most?, unstated: unstated? };
    Some((node.place, cache))
}

fn part(word: &Spanned<String>, faults: &mut Faults) -> Option<Part> {
    let part = match word.value.as_str() {
        "method" => Some(Part::Method),
        "path" => Some(Part::Path),
        "query" => Some(Part::Query),
        "address" => Some(Part::Address),
        _ => None,
    };
    if part.is_none() {
        faults.push(
            Diagnostic::error(
                "unknown_word",
                word.place,
                format!("`{}` is nothing that answers may ignore", word.value),
            )
            .note("words here: method, path, query, address; what else the service is told always counts"),
        );
    }
    part
}

/// SECURITY: where the content decides too, nothing may be remembered, because the content is in no key; and where
/// the address is ignored, something else has to tell callers apart.
fn check_cache(
    place: FilePlace,
    cache: &Cache,
    places: Option<&Places>,
    told: &Told,
    faults: &mut Faults,
) -> Option<()> {
    let mut fault = |message: &str, note: &str| {
        faults.push(Diagnostic::error("cache_mixes_callers", place, message).note(note.to_owned()));
        None
    };
    if told.content.is_some() {
        return fault(
            "an answer that depends on the content cannot be remembered",
            "leave out `cache`, or `tell.content`",
        );
    }
    let identified = places.is_some() || told.certificate || !told.headers.is_empty();
    if cache.ignored.contains(&Part::Address) && !identified {
        return fault(
            "nothing in the key says who is calling",
            "name the credential's place, or take `address` out of `cache.ignores`",
        );
    }
    Some(())
}

/// A time longer than nothing and at most that long.
fn limited(node: &Node, longest: Duration, faults: &mut Faults) -> Option<Duration> {
    let time = node.duration(faults)?;
    if time > longest {
        faults.error("out_of_range", node.place, format!("at most {} seconds", longest.as_secs()));
        return None;
    }
    Some(time)
}
