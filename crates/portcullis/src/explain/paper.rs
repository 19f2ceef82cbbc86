//! What a token says of itself, for people. Nothing of it is verified here.

use portcullis_jose::base64url;
use serde_json::{Map, Value};

/// A JSON Web Token as it is written.
pub(super) struct Paper {
    head: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Paper {
    /// Reads the token of `Authorization: Bearer`; `None` if it is no JSON Web Token.
    pub(super) fn of(authorization: &[u8]) -> Option<Self> {
        let (_scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
        let mut parts = token.split(|byte| *byte == b'.');
        let (head, claims) = (parts.next()?, parts.next()?);
        let read = |part: &[u8]| match serde_json::from_slice(&base64url::decode(part).ok()?).ok()? {
            Value::Object(members) => Some(members),
            _ => None,
        };
        Some(Self { head: read(head)?, claims: read(claims)? })
    }

    /// What it says, a line each; `now` is the second since 1970.
    pub(super) fn lines(&self, now: i64) -> Vec<String> {
        let named = |members: &Map<String, Value>, names: &[&str]| {
            let said = names.iter().filter_map(|name| Some(format!("{name} {}", shown(members.get(*name)?))));
            said.collect::<Vec<_>>().join(", ")
        };
        let times = ["iat", "nbf", "exp"].iter().filter_map(|name| {
            let second = self.claims.get(*name)?.as_f64()?;
            Some(format!("{name} {}", ago(second, now)))
        });
        let mut lines = vec![
            named(&self.head, &["alg", "kid", "typ"]),
            named(&self.claims, &["iss", "aud", "sub"]),
            named(&self.claims, &["client_id", "azp", "scope", "scp", "jti"]),
            times.collect::<Vec<_>>().join(", "),
        ];
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// What it is bound to, in the words of the claim.
    pub(super) fn binding(&self) -> Option<String> {
        let members = self.claims.get("cnf")?.as_object()?;
        let said = members.iter().map(|(name, value)| format!("{name} {}", shown(value)));
        Some(said.collect::<Vec<_>>().join(", "))
    }
}

/// A value on one line, without what a terminal would take for a command.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let plain: String = text.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect();
    if plain.chars().count() > 120 { plain.chars().take(119).chain(['…']).collect() } else { plain }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "for people, in seconds")]
fn ago(second: f64, now: i64) -> String {
    let distance = second - now as f64;
    let words = |seconds: f64| match seconds.abs() as i64 {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7_200 => format!("{} min", seconds / 60),
        seconds if seconds < 172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    };
    if distance < 0.0 { format!("{} ago", words(distance)) } else { format!("in {}", words(distance)) }
}

#[cfg(test)]
mod tests {
    use portcullis_jose::base64url;
    use serde_json::json;

    use super::Paper;

    #[test]
    fn a_token_is_told_in_lines() {
        let part = |value: serde_json::Value| base64url::encode(value.to_string().as_bytes());
        let head = part(json!({"alg": "PS256", "kid": "2026\n10"}));
        let claims = part(json!({
            "iss": "https://idp.example", "aud": ["a", "b"], "exp": 1_000_252, "iat": 999_000, "scope": "accounts",
            "cnf": {"x5t#S256": "Jx4"}, "secret": "never shown",
        }));
        let paper = Paper::of(format!("Bearer {head}.{claims}.c2ln").as_bytes()).expect("a token");
        assert_eq!(
            paper.lines(1_000_000),
            [
                "alg PS256, kid 2026\u{fffd}10",
                "iss https://idp.example, aud [\"a\",\"b\"]",
                "scope accounts",
                "iat 16 min ago, exp in 4 min",
            ]
        );
        assert_eq!(paper.binding().as_deref(), Some("x5t#S256 Jx4"));
        for other in ["Bearer opaque", "Bearer a.b.c", "", "Basic YQ==", "Bearer e30.W10.x"] {
            assert!(Paper::of(other.as_bytes()).is_none(), "{other}");
        }
    }
}
