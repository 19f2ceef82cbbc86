//! One entry of `urls`: a scheme, a host and a port, and nothing else.

use std::sync::Arc;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use portcullis_core::{Diagnostic, Faults, Place, Spanned};
use rustls_pki_types::{DnsName, ServerName};

use super::Origin;
use super::spec::HttpVersion;
use crate::connect::{Handshake, Host, Protocol};

/// One entry of `urls`, taken apart.
pub(super) struct Url {
    pub(super) place: Place,
    pub(super) secure: bool,
    host: Host,
    port: u16,
    authority: Authority,
    authority_value: HeaderValue,
    name: ServerName<'static>,
}

impl Url {
    pub(super) fn read(written: &Spanned<String>, faults: &mut Faults) -> Option<Self> {
        match Self::parse(&written.value) {
            Ok(url) => Some(Self { place: written.place, ..url }),
            Err(why) => {
                faults.push(
                    Diagnostic::error("bad_url", written.place, format!("`{}` {why}", written.value))
                        .note("write `https://host:port` or `http://host:port`"),
                );
                None
            }
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        // `http::Uri` drops a fragment without a word, so it is looked for in the text.
        if text.contains('#') {
            return Err("has a fragment");
        }
        let uri: Uri = text.parse().map_err(|_refused| "is not a url")?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("has no scheme that can be used"),
        };
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("has a user name in it");
        }
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
            return Err("has a path; requests keep the path they came with");
        }
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
        let (host, name) = match bare.parse() {
            Ok(address) => (Host::Address(address), ServerName::IpAddress(address.into())),
            Err(_not_an_address) => {
                let name = DnsName::try_from(bare.to_owned()).map_err(|_refused| "names no valid host")?;
                (Host::Name(bare.into()), ServerName::DnsName(name))
            }
        };
        let port = match (authority.port_u16(), authority.port()) {
            (Some(0), _) => return Err("has port 0"),
            (Some(port), _) => port,
            (None, None) if authority.as_str().ends_with(':') => return Err("has no port behind the colon"),
            (None, None) => default_port(secure),
            (None, Some(_)) => return Err("has no valid port"),
        };
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_refused| "names no valid host")?;
        Ok(Self {
            place: Place::default(),
            secure,
            host,
            port,
            authority: authority.clone(),
            authority_value: value,
            name,
        })
    }

    pub(super) fn plain(self, version: HttpVersion) -> Arc<Origin> {
        // Without a handshake there is nobody to ask: HTTP/2 is spoken only where the file says so.
        let protocol = match version {
            HttpVersion::Two => Protocol::Http2,
            HttpVersion::One | HttpVersion::Auto => Protocol::Http1,
        };
        Arc::new(self.origin(Scheme::HTTP, Some(protocol), None))
    }

    pub(super) fn secure(
        self,
        version: HttpVersion,
        config: &Arc<rustls::ClientConfig>,
        server_name: Option<&ServerName<'static>>,
    ) -> Arc<Origin> {
        let protocol = match version {
            HttpVersion::One => Some(Protocol::Http1),
            HttpVersion::Two => Some(Protocol::Http2),
            HttpVersion::Auto => None,
        };
        let server_name = server_name.unwrap_or(&self.name).clone();
        let handshake = Handshake { config: Arc::clone(config), server_name };
        Arc::new(self.origin(Scheme::HTTPS, protocol, Some(handshake)))
    }

    fn origin(self, scheme: Scheme, protocol: Option<Protocol>, handshake: Option<Handshake>) -> Origin {
        Origin {
            host: self.host,
            port: self.port,
            scheme,
            authority: self.authority,
            authority_value: self.authority_value,
            protocol,
            handshake,
        }
    }
}

const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}
