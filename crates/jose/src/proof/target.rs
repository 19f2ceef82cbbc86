//! Where a request goes, as a proof names it (RFC 9449 section 4.3, RFC 3986 section 6.2).

use std::borrow::Cow;
use std::fmt;

/// A URI without query and fragment, normalised by syntax and scheme (RFC 3986 sections 6.2.2 and 6.2.3): two are
/// equal exactly if they name the same place (DPP-04).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    origin: Origin,
    path: String,
}

/// A scheme and an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: Scheme,
    /// In lower case, without the scheme's own port.
    authority: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("https") {
            Some(Self::Https)
        } else if text.eq_ignore_ascii_case("http") {
            Some(Self::Http)
        } else {
            None
        }
    }

    const fn port(self) -> &'static str {
        match self {
            Self::Http => "80",
            Self::Https => "443",
        }
    }
}

impl Origin {
    /// Reads `https://api.example[:port]`; a slash at the end makes no difference.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        Self::of(Scheme::parse(scheme)?, rest.strip_suffix('/').unwrap_or(rest))
    }

    /// That of a request which came over TLS or not, to this authority.
    pub fn of_request(over_tls: bool, authority: &str) -> Option<Self> {
        Self::of(if over_tls { Scheme::Https } else { Scheme::Http }, authority)
    }

    /// Host in lower case, the scheme's own port left out. `None` where there is no host, or a user before it.
    fn of(scheme: Scheme, authority: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
        if !authority.bytes().all(plain) {
            return None;
        }
        let colon = match authority.rfind(']') {
            Some(bracket) => authority.get(bracket..)?.find(':').map(|at| bracket + at),
            None => authority.rfind(':'),
        };
        let (host, port) = match colon {
            Some(at) => (authority.get(..at)?, authority.get(at + 1..)?),
            None => (authority, ""),
        };
        let is_literal = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (!is_literal && host.contains([':', '[', ']'])) {
            return None;
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut authority = host.to_ascii_lowercase();
        if !port.is_empty() && port != scheme.port() {
            authority.push(':');
            authority.push_str(port);
        }
        Some(Self { scheme, authority })
    }
}

impl Target {
    /// Reads the `htu` of a proof. Its query and fragment are ignored, as RFC 9449 section 4.3 allows: nothing is
    /// granted by them.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let (scheme, rest) = text.split_once("://")?;
        let scheme = Scheme::parse(scheme)?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at_checked(slash)?,
            None => (rest, ""),
        };
        Self::at(Origin::of(scheme, authority)?, path)
    }

    /// A path at an origin. `None` where it is no path of a URI.
    pub fn at(origin: Origin, path: &str) -> Option<Self> {
        // What no URI holds might end one for somebody else (RFC 3986 section 2).
        const NEVER: [char; 9] = ['\\', '"', '<', '>', '^', '`', '{', '|', '}'];
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains(NEVER) {
            return None;
        }
        Some(Self { origin, path: normal_path(path)? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.origin.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.origin.authority, self.path)
    }
}

/// Percent-encodings of unreserved characters decoded, the digits of others in upper case, dot segments removed; an
/// empty path is `/`. `None` where a percent sign begins no encoding.
fn normal_path(path: &str) -> Option<String> {
    let decoded = normal_encoding(path)?;
    // A path that does not begin with a slash cannot follow an authority.
    let rest = match decoded.strip_prefix('/') {
        Some(rest) => rest,
        None if decoded.is_empty() => "",
        None => return None,
    };
    // RFC 3986 section 5.2.4.
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_dots = false;
    for segment in rest.split('/') {
        ends_in_dots = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    if ends_in_dots {
        segments.push("");
    }
    Some(format!("/{}", segments.join("/")))
}

fn normal_encoding(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        normal.push_str(before);
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            normal.push(char::from(byte));
        } else {
            normal.push('%');
            normal.push_str(&digits.to_ascii_uppercase());
        }
        rest = after.get(2..)?;
    }
    normal.push_str(rest);
    Some(Cow::Owned(normal))
}

#[cfg(test)]
mod tests {
    use super::{Origin, Target};

    /// DPP-04.
    #[test]
    fn spellings_of_one_place_are_one_and_others_are_not() {
        let origin = Origin::of_request(true, "API.example:443").expect("an origin");
        let target = Target::at(origin, "/accounts/a%2Fb").expect("a target");
        assert_eq!(target.to_string(), "https://api.example/accounts/a%2Fb");
        for (uri, same) in [
            ("https://api.example/accounts/a%2Fb", true),
            ("HTTPS://API.example:443/accounts/a%2fb?y#z", true),
            ("https://api.example/./accounts/x/../a%2Fb", true),
            ("https://api.example/%2e/accounts/x/%2E%2e/a%2Fb", true),
            ("https://api.example/%61ccounts/a%2Fb", true),
            ("https://api.example:/accounts/a%2Fb", true),
            ("https://api.example/accounts/a%2Fb?\u{e4}", true),
            ("https://api.example/accounts/a/b", false),
            ("https://api.example/accounts/a%2Fb/", false),
            ("https://api.example//accounts/a%2Fb", false),
            ("https://api.example/accounts/a%252Fb", false),
            ("https://api.example/Accounts/a%2Fb", false),
            ("https://api.example:8443/accounts/a%2Fb", false),
            ("https://api.example:0443/accounts/a%2Fb", false),
            ("http://api.example/accounts/a%2Fb", false),
            ("http://api.example:443/accounts/a%2Fb", false),
            ("https://api.example.evil/accounts/a%2Fb", false),
            ("https://api.example./accounts/a%2Fb", false),
            ("https://user@api.example/accounts/a%2Fb", false),
            ("https://api.example", false),
            ("https:///accounts/a%2Fb", false),
            ("https://api.example/accounts/a%2", false),
            ("https://api.example/accounts/a%zz", false),
            ("https://api.example\\@evil/accounts/a%2Fb", false),
            ("https://api.example/accounts/a%2Fb\u{0}", false),
            ("https://api.example/accounts/a%2Fb ", false),
            (" https://api.example/accounts/a%2Fb", false),
            ("//api.example/accounts/a%2Fb", false),
            ("/accounts/a%2Fb", false),
            ("ftp://api.example/accounts/a%2Fb", false),
            ("https://a:b:c/accounts", false),
            ("", false),
        ] {
            assert_eq!(Target::parse(uri).as_ref() == Some(&target), same, "{uri}");
        }
    }

    #[test]
    fn normalising_is_done_once_and_for_all() {
        for (uri, normal) in [
            ("https://a", Some("https://a/")),
            ("https://a/.", Some("https://a/")),
            ("https://a/..", Some("https://a/")),
            ("https://a/../../b/./c/..", Some("https://a/b/")),
            ("https://a/b//c/", Some("https://a/b//c/")),
            ("http://[::1]:8080/x", Some("http://[::1]:8080/x")),
            ("http://[::1]:80", Some("http://[::1]/")),
            ("http://[::1", None),
            ("http://::1]/", None),
            ("https://a%2e/", None),
            ("https://a/\u{e4}", None),
        ] {
            let target = Target::parse(uri);
            assert_eq!(target.as_ref().map(ToString::to_string).as_deref(), normal, "{uri}");
            if let Some(target) = target {
                assert_eq!(Target::parse(&target.to_string()), Some(target));
            }
        }
        for bad in ["api.example", "https://", "https://a/b", "https://a?b", "ftp://a", "https://u@a"] {
            assert_eq!(Origin::parse(bad), None, "{bad}");
        }
        assert_eq!(Origin::parse("https://a:443/"), Origin::of_request(true, "A"));
    }
}
