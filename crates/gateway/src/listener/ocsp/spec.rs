//! `ocsp` as written.

use std::time::Duration;

use http::Uri;
use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Faults, Spanned};

use crate::listener::limits::positive;
use crate::listener::spec::WhenUnknown;

/// How long a request waits for a responder.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer counts at most.
const CACHE: Duration = Duration::from_secs(3_600);

/// Who is asked, and what to do without an answer.
#[derive(Clone, Debug)]
pub(crate) struct OcspSpec {
    /// The one responder for all certificates.
    url: Option<String>,
    /// Whose responders are asked where a certificate names one: `host` at its usual port, or `host:port`. SECURITY: a URL in a certificate is its authority's
    /// word; which machines an authority may make us talk to is written here (RVK-01, trap 29).
    hosts: Vec<String>,
    pub(super) timeout: Duration,
    pub(super) cache: Duration,
    pub(super) when_unknown: WhenUnknown,
}

impl OcspSpec {
    /// Reads `off`, or a mapping.
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Option<Self>> {
        if matches!(&node.content, Content::Text(word) if word == "off")
            || matches!(node.content, Content::Bool(false))
        {
            return Some(None);
        }
        let mut fields = Fields::of(node, "`ocsp`", faults)?;
        let url = fields.get("url").map(|node| node.text(faults));
        let hosts = fields.get("hosts").map(|node| node.texts(faults));
        let timeout = duration(fields.get("timeout"), TIMEOUT, faults);
        let cache = duration(fields.get("cache"), CACHE, faults);
        let words = [("deny", WhenUnknown::Deny), ("allow", WhenUnknown::Allow)];
        let when_unknown = match fields.get("when_unknown") {
            Some(node) => node.one_of(&words, faults),
            None => Some(WhenUnknown::Deny),
        };
        fields.finish(faults);
        if url.is_some() == hosts.is_some() {
            faults.error(
                "one_key",
                node.place,
                "`ocsp` needs either `url`, the responder, or `hosts`, those whose responders may be asked",
            );
            return None;
        }
        let url = match url {
            Some(url) => Some(responder_url(url?, faults)?),
            None => None,
        };
        let hosts = match hosts {
            Some(hosts) => hosts?.into_iter().map(|host| host.value.to_ascii_lowercase()).collect(),
            None => Vec::new(),
        };
        let (timeout, cache, when_unknown) = (timeout?, cache?, when_unknown?);
        Some(Some(Self { url, hosts, timeout, cache, when_unknown }))
    }

    /// Whom to ask about a certificate that names this responder.
    pub(super) fn responder(&self, named: Option<&str>) -> Result<String, String> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let named = named.ok_or("the certificate names no responder")?;
        let uri: Uri = named.parse().map_err(|_| "the certificate's responder is not a URL")?;
        // SECURITY: an authority may name a host of the list, and neither another port of it nor a user.
        let usual = match uri.scheme_str() {
            Some("http") => matches!(uri.port_u16(), None | Some(80)),
            Some("https") => matches!(uri.port_u16(), None | Some(443)),
            _ => false,
        };
        let known = uri.authority().filter(|named| !named.as_str().contains('@')).is_some_and(|named| {
            let is = |own: &String| {
                named.as_str().eq_ignore_ascii_case(own) || (usual && named.host().eq_ignore_ascii_case(own))
            };
            self.hosts.iter().any(is)
        });
        match (known, uri.scheme_str()) {
            (true, Some("http" | "https")) => Ok(named.to_owned()),
            (true, _) => Err("the certificate's responder is asked by no known means".to_owned()),
            (false, _) => Err("the certificate's responder is not one of `hosts`".to_owned()),
        }
    }
}

fn duration(node: Option<&Node>, default: Duration, faults: &mut Faults) -> Option<Duration> {
    node.map_or(Some(default), |node| positive(node.duration(faults), node.place, faults))
}

fn responder_url(url: Spanned<String>, faults: &mut Faults) -> Option<String> {
    let fits = url.value.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if !fits {
        faults.error("bad_url", url.place, format!("`{}` is not an http or https URL", url.value));
        return None;
    }
    Some(url.value)
}
