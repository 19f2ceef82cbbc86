//! `discover:` of an issuer, as written in `gateway.yaml`.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, FetchTrust, Materials, Place, Spanned};

use super::document::{has_sound_port, is_loopback};
use super::{Discovery, DiscoverySettings};
use crate::issuers::{REFRESH, REFRESH_BOUNDS, SERVE_STALE, SERVE_STALE_MAX, file, sound, within};
use crate::keys::KeySources;

/// Which documents are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Documents {
    OAuth,
    OpenId,
    Both,
}

/// `discover:` as written.
#[derive(Clone, Debug)]
pub(crate) struct DiscoverSpec {
    place: Place,
    documents: Documents,
    hosts: Vec<Spanned<String>>,
    trust: Option<Spanned<String>>,
    loopback_http: bool,
    pub(crate) refresh: Duration,
    pub(crate) serve_stale: Duration,
}

impl DiscoverSpec {
    /// Reads `true`, or a mapping of settings.
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        if matches!(node.content, Content::Bool(true)) {
            return Some(Self {
                place: node.place,
                documents: Documents::Both,
                hosts: Vec::new(),
                trust: None,
                loopback_http: false,
                refresh: REFRESH,
                serve_stale: SERVE_STALE,
            });
        }
        if !matches!(node.content, Content::Map(_)) {
            return node.expected("`true`, or a mapping of settings", faults);
        }
        let mut fields = Fields::of(node, "`discover`", faults)?;
        let words = [("oauth", Documents::OAuth), ("openid", Documents::OpenId), ("either", Documents::Both)];
        let documents = fields.get("document").map(|node| node.one_of(&words, faults));
        let hosts = fields.get("hosts").map(|node| node.texts(faults));
        let trust = fields.get("trust").map(|node| node.file(faults));
        let loopback = fields.get("http_on_loopback").map(|node| node.boolean(faults));
        let refresh = fields
            .get("refresh")
            .map(|node| within(node, REFRESH_BOUNDS.0, REFRESH_BOUNDS.1, "30s to 1h", faults));
        let stale = fields
            .get("serve_stale")
            .map(|node| within(node, Duration::ZERO, SERVE_STALE_MAX, "0s to 24h", faults));
        fields.finish(faults);
        Some(Self {
            place: node.place,
            documents: sound(documents)?.unwrap_or(Documents::Both),
            hosts: sound(hosts)?.unwrap_or_default(),
            trust: sound(trust)?,
            loopback_http: sound(loopback)?.unwrap_or(false),
            refresh: sound(refresh)?.unwrap_or(REFRESH),
            serve_stale: sound(stale)?.unwrap_or(SERVE_STALE),
        })
    }

    /// Finds the provider, living or new. `issuer` is the entry's own.
    pub(crate) fn compile(
        &self,
        issuer: Option<&Spanned<String>>,
        materials: &dyn Materials,
        sources: &KeySources,
        faults: &mut Faults,
    ) -> Option<Arc<Discovery>> {
        let Some(issuer) = issuer else {
            faults.push(
                Diagnostic::error("missing_key", self.place, "`discover` needs `issuer`")
                    .note("it is the URL below which the provider describes itself"),
            );
            return None;
        };
        let documents = documents(issuer, self.documents, self.loopback_http, faults);
        let anchors = match &self.trust {
            None => Some(None),
            Some(path) => file(path, materials, faults).map(Some),
        };
        let hosts: Option<Vec<_>> =
            self.hosts.iter().map(|host| read_host(host, faults)).collect::<Vec<_>>().into_iter().collect();
        let settings = DiscoverySettings {
            issuer: issuer.value.as_str().into(),
            documents: documents?,
            hosts: hosts?,
            trust: FetchTrust {
                anchors: anchors?,
                identity: None,
                loopback_http: self.loopback_http,
                plain_http: false,
            },
            serve_stale: self.serve_stale,
        };
        let place = self.trust.as_ref().map_or(self.place, |path| path.place);
        sources.discovery(settings).map_err(|why| faults.error("bad_trust", place, why)).ok()
    }
}

/// A host, and its port if that is not the one of https.
fn read_host(text: &Spanned<String>, faults: &mut Faults) -> Option<Authority> {
    let host = text.value.parse::<Authority>().ok();
    let host = host.filter(|host| !text.value.contains('@') && has_sound_port(host));
    if host.is_none() {
        faults.push(
            Diagnostic::error("bad_host", text.place, format!("`{}` is not a host", text.value))
                .note("write a name or an address, and a port if it is not 443: `keys.idp.example:8443`"),
        );
    }
    host
}

/// Where the documents are: RFC 8414 section 3.1 puts its part between host and path, OpenID Connect behind both.
fn documents(
    issuer: &Spanned<String>,
    which: Documents,
    loopback_http: bool,
    faults: &mut Faults,
) -> Option<Vec<String>> {
    let text = issuer.value.as_str();
    let uri = text.parse::<Uri>().ok().filter(|_| !text.contains(['#', '?', '@']));
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?, uri.path())));
    let Some((scheme, authority, path)) = parts else {
        let message = format!("`{text}` is not an absolute URL without user, query and fragment");
        faults.error("bad_url", issuer.place, message);
        return None;
    };
    let plain = scheme == "http" && loopback_http && is_loopback(authority.host());
    if scheme != "https" && !plain {
        faults.push(
            Diagnostic::error("plain_http", issuer.place, "a provider is discovered with https only")
                .note("whoever could change the answer on its way could sign tokens"),
        );
        return None;
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    let oauth = format!("{scheme}://{authority}/.well-known/oauth-authorization-server{path}");
    let openid = format!("{scheme}://{authority}{path}/.well-known/openid-configuration");
    Some(match which {
        Documents::OAuth => vec![oauth],
        Documents::OpenId => vec![openid],
        Documents::Both => vec![oauth, openid],
    })
}
