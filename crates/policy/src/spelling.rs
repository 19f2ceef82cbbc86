//! One spelling for paths that every server reads alike.

use std::borrow::Cow;

/// Characters that may stand in a path as they are or escaped, for whoever decodes the path reads both alike
/// (RFC 3986 section 3.3). All others have one spelling in a path in normal form.
const EITHER_WAY: &[u8] = b"!$&'()+,=:@";

/// The path with each character that may stand as it is standing as it is.
///
/// SECURITY: `/payments%3Arelease` and `/payments:release` are one path to an upstream that decodes, so rules, limits and
/// conditions are asked about one of them.
pub fn plainly_spelled(path: &str) -> Cow<'_, str> {
    if !path.as_bytes().contains(&b'%') {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        match after.get(..2).and_then(escaped) {
            Some(character) => {
                plain.push(character);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                plain.push('%');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The character two digits stand for, if it may stand as it is.
pub(crate) fn escaped(digits: &str) -> Option<char> {
    let byte = u8::from_str_radix(digits, 16).ok()?;
    EITHER_WAY.contains(&byte).then_some(char::from(byte))
}

#[cfg(test)]
mod tests {
    use super::plainly_spelled;

    #[test]
    fn what_may_stand_either_way_stands_as_it_is() {
        for (path, plain) in [
            ("/a/b", "/a/b"),
            ("/payments%3Arelease", "/payments:release"),
            ("/%40a%2Cb/%21%24%26%27%28%29%2B%3D", "/@a,b/!$&'()+="),
            ("/%C3%A9%20%3A", "/%C3%A9%20:"),
            ("/%", "/%"),
            ("/%3", "/%3"),
            ("/%\u{e9}", "/%\u{e9}"),
        ] {
            assert_eq!(plainly_spelled(path), plain, "{path}");
        }
    }
}
