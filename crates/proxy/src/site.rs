//! A URL of a server that is to be asked, taken apart strictly.

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use rustls_pki_types::{DnsName, ServerName};

use crate::connect::Host;

/// Where a URL points. No user name, no fragment, a scheme that can be spoken, a port that is one.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Whether the scheme is `https`.
    pub(crate) secure: bool,
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// The name the server's certificate must carry.
    pub(crate) name: ServerName<'static>,
    /// Host and port as written.
    pub(crate) authority: Authority,
    /// `/` if there is none.
    pub(crate) path: PathAndQuery,
}

impl Site {
    /// Takes a URL apart, or says what is wrong with it as the end of a sentence that begins with the URL.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        // `http::Uri` drops a fragment without a word, so it is looked for in the text.
        if url.contains('#') {
            return Err("has a fragment");
        }
        let uri: Uri = url.parse().map_err(|_refused| "is not a url")?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("has no scheme that can be used"),
        };
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("has a user name in it");
        }
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
        let (host, name) = match bare.parse() {
            Ok(address) => (Host::Address(address), ServerName::IpAddress(address.into())),
            Err(_not_an_address) => {
                let name = DnsName::try_from(bare.to_owned()).map_err(|_refused| "names no valid host")?;
                (Host::Name(bare.into()), ServerName::DnsName(name))
            }
        };
        // `Authority` takes `+443` for a number, and a port that is none for no port; the default would hide the mistake.
        let signed = authority.port().is_some_and(|port| port.as_str().starts_with('+'));
        let port = match authority.port_u16() {
            Some(0) => return Err("has no valid port"),
            Some(_) if signed => return Err("has no valid port"),
            Some(port) => port,
            None if authority.as_str().len() > authority.host().len() => return Err("has no valid port"),
            None if secure => 443,
            None => 80,
        };
        let path = match uri.path_and_query() {
            Some(path) if !path.as_str().is_empty() => path.clone(),
            _ => PathAndQuery::from_static("/"),
        };
        Ok(Self { secure, host, port, name, authority: authority.clone(), path })
    }
}
