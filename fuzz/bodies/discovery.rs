//! What is done with the bytes of a provider's metadata, and what must hold whatever they are.

use http::uri::Authority;
use portcullis_authn::{Metadata, Reach};
use portcullis_core::json::{Limits, Value, parse_object};

const ISSUER: &str = "https://idp.example/t";

/// Where a document of this issuer may lead: host and port.
const PLACES: [(&str, &str); 3] = [("idp.example", "443"), ("keys.example", "443"), ("mtls.example", "8443")];

/// Reads a document. What is taken names the issuer, and leads with https to the places that are configured, by a reading
/// of its URLs that owes nothing to the one under test.
pub(crate) fn run(bytes: &[u8]) {
    let hosts = ["keys.example", "mtls.example:8443"].map(Authority::from_static);
    let reach = Reach { issuer: ISSUER, hosts: &hosts, loopback_http: false };
    let metadata = match Metadata::read(bytes, reach) {
        Ok(metadata) => metadata,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let document = parse_object(bytes, Limits::default()).expect("what was taken is JSON");
    let issuer = document.get("issuer").and_then(Value::as_text).expect("an issuer");
    assert_eq!(&**issuer, ISSUER);
    for url in
        [metadata.jwks_uri(), metadata.introspection_endpoint(false), metadata.introspection_endpoint(true)]
            .into_iter()
            .flatten()
    {
        assert!(leads_where_it_may(&url), "{url}");
    }
}

fn leads_where_it_may(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let port = port.trim_start_matches('0');
    scheme.eq_ignore_ascii_case("https")
        && !url.contains('#')
        && !authority.contains('@')
        && PLACES.iter().any(|(allowed, number)| allowed.eq_ignore_ascii_case(host) && *number == port)
}
