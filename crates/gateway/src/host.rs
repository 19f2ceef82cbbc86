//! The one host a request names.

use http::request::Parts;
use http::{HeaderValue, Uri, Version, header};

/// Why a request does not name one valid host. The text is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostFault {
    #[error("no host")]
    Missing,
    #[error("more than one Host header")]
    Repeated,
    #[error("the host is malformed")]
    Malformed,
    #[error("the request target and the Host header differ")]
    Differ,
}

/// The host in the form routes are looked up by: without port, lower case, without a trailing dot. Most hosts
/// are that already and are only borrowed.
///
/// # Errors
/// The request names no host, several, or one that is not a host.
pub(crate) fn of(head: &Parts) -> Result<std::borrow::Cow<'_, str>, HostFault> {
    let authority = authority(&head.uri)?;
    let mut fields = head.headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(HostFault::Repeated);
    }
    let field = field.map(text).transpose()?;
    let named = match (authority, field) {
        // RFC 9112 section 3.2.2 lets the target win; naming two hosts is a smuggler's trick (PRX-01, PRX-02).
        (Some(target), Some(field)) if !target.eq_ignore_ascii_case(field) => return Err(HostFault::Differ),
        (Some(target), _) => target,
        // HTTP/2 requests name their host in `:authority`; a Host field alone is HTTP/1.1.
        (None, Some(field)) if head.version <= Version::HTTP_11 => field,
        _ => return Err(HostFault::Missing),
    };
    normalise(named)
}

/// Whatever is no host is refused later; here it only has to be text.
fn text(value: &HeaderValue) -> Result<&str, HostFault> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| HostFault::Malformed)
}

fn authority(uri: &Uri) -> Result<Option<&str>, HostFault> {
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => Err(HostFault::Malformed),
        Some(authority) => Ok(Some(authority.as_str())),
        None => Ok(None),
    }
}

/// Most hosts are in the form routes are looked up by, with a port or without, which one pass over them shows.
fn already_normal(named: &str) -> Option<&str> {
    let (mut after_dot, mut end) = (true, named.len());
    for (at, byte) in named.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => after_dot = false,
            b'.' if !after_dot => after_dot = true,
            b':' => {
                end = at;
                break;
            }
            _ => return None,
        }
    }
    let (host, port) = named.split_at_checked(end)?;
    let digits = port.len() <= 6 && port.bytes().skip(1).all(|byte| byte.is_ascii_digit());
    (!after_dot && host.len() <= 255 && digits).then_some(host)
}

fn normalise(named: &str) -> Result<std::borrow::Cow<'_, str>, HostFault> {
    if let Some(host) = already_normal(named) {
        return Ok(host.into());
    }
    let (host, port) = if named.starts_with('[') {
        let end = named.find(']').ok_or(HostFault::Malformed)?;
        let (address, after) = named.split_at(end + 1);
        let inner =
            address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).ok_or(HostFault::Malformed)?;
        inner.parse::<std::net::Ipv6Addr>().map_err(|_| HostFault::Malformed)?;
        (
            address,
            after.strip_prefix(':').or_else(|| after.is_empty().then_some("")).ok_or(HostFault::Malformed)?,
        )
    } else {
        named.split_once(':').unwrap_or((named, ""))
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.len() > 5 {
        return Err(HostFault::Malformed);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let valid =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':');
    if host.is_empty()
        || host.len() > 255
        || host.contains("..")
        || host.starts_with('.')
        || !host.bytes().all(valid)
    {
        return Err(HostFault::Malformed);
    }
    Ok(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        host.to_ascii_lowercase().into()
    } else {
        host.into()
    })
}

#[cfg(test)]
mod tests {
    use super::{HostFault, of};
    use http::Request;

    fn host(target: &str, fields: &[&str]) -> Result<String, HostFault> {
        let mut request = Request::builder().uri(target);
        for field in fields {
            request = request.header("host", *field);
        }
        of(&request.body(()).expect("a request").into_parts().0).map(|host| host.into_owned())
    }

    #[test]
    fn spellings_of_one_host_are_one_host() {
        for field in ["api.bank.example", "API.bank.example", "api.bank.example.", "api.bank.example:8443"] {
            assert_eq!(host("/", &[field]).as_deref(), Ok("api.bank.example"), "{field}");
        }
        assert_eq!(host("/", &["[::1]:8443"]).as_deref(), Ok("[::1]"));
        assert_eq!(host("http://a.example/x", &["a.example"]).as_deref(), Ok("a.example"));
    }

    #[test]
    fn no_host_two_hosts_and_wrong_hosts_are_refused() {
        assert_eq!(host("/", &[]), Err(HostFault::Missing));
        assert_eq!(host("/", &["a", "a"]), Err(HostFault::Repeated));
        assert_eq!(host("http://a.example/", &["b.example"]), Err(HostFault::Differ));
        for bad in
            ["", ".", "a b", "a/b", "user@a", "a:x", "a..b", ".a", "a:123456", "[::1", "[zz]", "a,b", "é"]
        {
            assert!(host("/", &[bad]).is_err(), "{bad}");
        }
    }
}
