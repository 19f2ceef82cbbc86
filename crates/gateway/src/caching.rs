//! What caches must know of answers that depend on who the caller is (FWD-09).
//!
//! A cache between the caller and the gateway tells callers apart by the fields they send, and neither a certificate that
//! a proxy in front tells nor what the gateway tells the upstream is among these.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, VARY};

/// Fields that tell one kind of cache something else than `Cache-Control` tells all: Edge Side Includes, nginx, and
/// Akamai. Those of RFC 9213 are known by how they end.
const TARGETED: [&str; 3] = ["surrogate-control", "x-accel-expires", "edge-control"];

/// How the names of targeted fields end (RFC 9213 section 2.2).
const TARGETED_END: &str = "-cache-control";

/// The fields in which RFC 9440 tells certificates; callers send none.
const CERTIFICATES: [&str; 2] = ["client-cert", "client-cert-chain"];

/// Corrects an upstream's answer. `given` are the fields the gateway has set in the request; `told` says that a proxy in
/// front has told the caller's certificate.
///
/// An upstream that tells its answers apart by a field of ours is right towards us, and nobody before us can do the same:
/// to them the answer varies with something they do not see (RFC 9440, RFC 9110 section 12.5.5).
///
/// SECURITY: behind a proxy that ends TLS and keeps answers, the next caller would get what this one's certificate has
/// opened. Only an upstream that has said so itself is believed to have thought of that.
pub(crate) fn correct<'n>(
    headers: &mut HeaderMap,
    given: impl Iterator<Item = &'n HeaderName> + Clone,
    told: bool,
) {
    if varies_with_ours(headers, given) {
        headers.insert(VARY, HeaderValue::from_static("*"));
    }
    if !told {
        return;
    }
    let targeted =
        |name: &&HeaderName| TARGETED.contains(&name.as_str()) || name.as_str().ends_with(TARGETED_END);
    let targeted: Vec<_> = headers.keys().filter(targeted).cloned().collect();
    for name in targeted {
        headers.remove(name);
    }
    if !is_kept_for_nobody_else(headers) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn varies_with_ours<'n>(headers: &HeaderMap, given: impl Iterator<Item = &'n HeaderName> + Clone) -> bool {
    members(headers, &VARY).any(|member| {
        let is = |name: &str| member.eq_ignore_ascii_case(name.as_bytes());
        CERTIFICATES.into_iter().any(is) || given.clone().any(|name| is(name.as_str()))
    })
}

/// `private` with field names leaves the rest of the answer to everybody, so it is not enough (RFC 9111 section 5.2.2.7).
fn is_kept_for_nobody_else(headers: &HeaderMap) -> bool {
    members(headers, &CACHE_CONTROL).any(|directive| {
        [&b"no-store"[..], b"private"].into_iter().any(|kept| directive.eq_ignore_ascii_case(kept))
    })
}

fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::correct;

    fn corrected(fields: &[(&'static str, &'static str)], told: bool) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let given = [HeaderName::from_static("x-client-id")];
        correct(&mut headers, given.iter(), told);
        let lines = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")));
        lines.collect()
    }

    #[test]
    fn what_varies_with_a_field_of_ours_varies_with_everything() {
        for (vary, expected) in [
            ("accept-encoding", "vary: accept-encoding"),
            ("client-cert", "vary: *"),
            ("Accept, Client-Cert", "vary: *"),
            ("accept,X-Client-Id ", "vary: *"),
            ("client-certificate", "vary: client-certificate"),
            ("*", "vary: *"),
        ] {
            assert_eq!(corrected(&[("vary", vary)], false), [expected]);
        }
        assert_eq!(corrected(&[("vary", "accept"), ("vary", "client-cert-chain")], false), ["vary: *"]);
    }

    /// FWD-09.
    #[test]
    fn what_a_told_certificate_has_opened_is_kept_by_nobody() {
        for (fields, expected) in [
            (&[][..], &["cache-control: no-store"][..]),
            (&[("cache-control", "public, max-age=60")], &["cache-control: no-store"]),
            (&[("cache-control", "private=\"x-a\"")], &["cache-control: no-store"]),
            (&[("cache-control", "max-age=60, Private")], &["cache-control: max-age=60, Private"]),
            (&[("cache-control", "no-store")], &["cache-control: no-store"]),
            (
                &[("cache-control", "private"), ("cdn-cache-control", "max-age=60")],
                &["cache-control: private"],
            ),
            (&[("x-accel-expires", "60")], &["cache-control: no-store"]),
            (&[("surrogate-control", "max-age=60")], &["cache-control: no-store"]),
            (&[("edge-control", "cache-maxage=60m")], &["cache-control: no-store"]),
            (
                &[
                    ("netlify-cdn-cache-control", "max-age=60"),
                    ("cache-control", "no-store"),
                    ("fastly-cache-control", "max-age=60"),
                    ("fastly-cache-control", "public"),
                ],
                &["cache-control: no-store"],
            ),
            (&[("x-cache-control-by", "us")], &["x-cache-control-by: us", "cache-control: no-store"]),
        ] {
            assert_eq!(corrected(fields, true), expected);
        }
        assert!(corrected(&[], false).is_empty());
        let public = [("cache-control", "public"), ("cdn-cache-control", "max-age=60")];
        assert_eq!(corrected(&public, false).len(), 2);
    }
}
