//! What a token grants, as a list of scope tokens (RFC 6749 section 3.3, RFC 9068 section 2.2.3; JWT-33).

use std::sync::Arc;

use portcullis_core::json::{Object, Value};

/// The most scopes of one token: as many as an array may hold (JWT-01), so that a rule's loop over them is bounded
/// however they were written.
const SCOPES_MAX: usize = 256;

/// The scopes of a token: from the claim at a dotted path if one is given, else from `scope`, else from `scp`.
///
/// A string is split at spaces. The elements of an array are taken whole, also where they hold a space, because an
/// issuer that writes arrays has no separator. SECURITY: a claim of any other shape grants nothing, and an array
/// with one element that is not a string grants nothing: half of a list nobody understands is not a grant. Nor does
/// a string of more than 256 words.
pub fn scopes(claims: &Object, path: Option<&str>) -> Arc<[Arc<str>]> {
    let value = match path {
        Some(path) => claims.at(path),
        None => claims.get("scope").or_else(|| claims.get("scp")),
    };
    match value {
        Some(Value::Text(text)) => {
            let words = || text.split(' ').filter(|word| !word.is_empty());
            if words().nth(SCOPES_MAX).is_some() { Arc::default() } else { words().map(Arc::from).collect() }
        }
        Some(Value::List(items)) => {
            let words: Option<Vec<Arc<str>>> = items.iter().map(|item| item.as_text().cloned()).collect();
            words.unwrap_or_default().into_iter().filter(|word| !word.is_empty()).collect()
        }
        _ => Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::json::{Limits, parse_object};

    use super::scopes;

    /// JWT-33.
    #[test]
    fn scopes_are_read_in_every_shape_that_is_used() {
        let rows: &[(&str, Option<&str>, &[&str])] = &[
            (r#"{"scope":"accounts payments"}"#, None, &["accounts", "payments"]),
            (r#"{"scope":" accounts  payments "}"#, None, &["accounts", "payments"]),
            (r#"{"scp":["accounts","read all"]}"#, None, &["accounts", "read all"]),
            (r#"{"scp":"a b"}"#, None, &["a", "b"]),
            (r#"{"scope":"a","scp":["b"]}"#, None, &["a"]),
            (r#"{"realm":{"roles":["x"]},"scope":"a"}"#, Some("realm.roles"), &["x"]),
            (r#"{"scope":"a"}"#, Some("realm.roles"), &[]),
            (r#"{"scope":"a,b\tc"}"#, None, &["a,b\tc"]),
            (r#"{"scope":""}"#, None, &[]),
            (r#"{"scope":["a",7]}"#, None, &[]),
            (r#"{"scope":null,"scp":"a"}"#, None, &[]),
            (r#"{"scope":{"a":true}}"#, None, &[]),
            (r"{}", None, &[]),
        ];
        for (claims, path, expected) in rows {
            let object = parse_object(claims.as_bytes(), Limits::default()).expect(claims);
            let found = scopes(&object, *path);
            assert_eq!(found.iter().map(|scope| &**scope).collect::<Vec<_>>(), *expected, "{claims}");
        }
    }

    #[test]
    fn a_string_holds_no_more_scopes_than_an_array() {
        for (count, granted) in [(256, 256), (257, 0), (4000, 0)] {
            let words: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
            let claims = format!(r#"{{"scope":"{}"}}"#, words.join(" "));
            let object = parse_object(claims.as_bytes(), Limits::default()).expect("claims");
            assert_eq!(scopes(&object, None).len(), granted, "{count}");
        }
    }
}
