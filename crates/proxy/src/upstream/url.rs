//! One entry of `urls`: a scheme, a host and a port, and nothing else.

use std::sync::Arc;

use http::HeaderValue;
use http::uri::Scheme;
use portcullis_core::{Diagnostic, Faults, Place, Spanned};
use rustls_pki_types::ServerName;

use super::Origin;
use super::spec::HttpVersion;
use crate::connect::{Handshake, Protocol};
use crate::site::Site;

/// One entry of `urls`, taken apart.
pub(super) struct Url {
    pub(super) place: Place,
    pub(super) secure: bool,
    site: Site,
    authority_value: HeaderValue,
}

impl Url {
    pub(super) fn read(written: &Spanned<String>, faults: &mut Faults) -> Option<Self> {
        match Self::parse(written) {
            Ok(url) => Some(url),
            Err(why) => {
                faults.push(
                    Diagnostic::error("bad_url", written.place, format!("`{}` {why}", written.value))
                        .note("write `https://host:port` or `http://host:port`"),
                );
                None
            }
        }
    }

    fn parse(written: &Spanned<String>) -> Result<Self, &'static str> {
        let site = Site::parse(&written.value)?;
        if site.path.as_str() != "/" {
            return Err("has a path; requests keep the path they came with");
        }
        let authority_value =
            HeaderValue::from_str(site.authority.as_str()).map_err(|_refused| "names no valid host")?;
        Ok(Self { place: written.place, secure: site.secure, site, authority_value })
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
        let server_name = server_name.unwrap_or(&self.site.name).clone();
        let handshake = Handshake { config: Arc::clone(config), server_name };
        Arc::new(self.origin(Scheme::HTTPS, protocol, Some(handshake)))
    }

    fn origin(self, scheme: Scheme, protocol: Option<Protocol>, handshake: Option<Handshake>) -> Origin {
        Origin {
            host: self.site.host,
            port: self.site.port,
            scheme,
            authority: self.site.authority,
            authority_value: self.authority_value,
            protocol,
            handshake,
        }
    }
}
