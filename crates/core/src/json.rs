//! JSON from strangers, read strictly.
//!
//! Tokens, key sets and introspection replies decide about access, so two readers must never disagree about
//! what they say: a repeated member name (also one spelled with escapes) is refused at every level (JWT-04),
//! and depth and list length are bounded (JWT-01).

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Bounds on what is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How deep objects and lists may nest; a bare scalar has depth 0.
    pub depth: usize,
    /// Members of one list.
    pub list: usize,
    /// Members of one object.
    pub members: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 16, list: 256, members: 256 }
    }
}

/// A JSON value. Cloning is cheap: texts, lists and objects are shared.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number written without fraction or exponent that fits.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// A string.
    Text(Arc<str>),
    /// An array.
    List(Arc<[Value]>),
    /// An object.
    Object(Arc<Object>),
}

/// A JSON object, its members in the order they were written, no name twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    members: Vec<(Arc<str>, Value)>,
}

impl Object {
    /// The member of that exact name. Objects in tokens are small, so this is a walk.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members.iter().find(|(member, _)| &**member == name).map(|(_, value)| value)
    }

    /// The value at a dotted path (`realm_access.roles`). A member whose own name contains the dots is
    /// preferred at each step, because namespaced claims such as `https://example.com/tier` exist.
    pub fn at(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.get(path) {
            return Some(value);
        }
        path.match_indices('.').find_map(|(dot, _)| {
            let (head, tail) = (path.get(..dot)?, path.get(dot + 1..)?);
            match self.get(head)? {
                Value::Object(inner) => inner.at(tail),
                _ => None,
            }
        })
    }

    /// All members, as written.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members.iter().map(|(name, value)| (&**name, value))
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl FromIterator<(Arc<str>, Value)> for Object {
    /// Later members of the same name replace earlier ones: this is for objects we make ourselves.
    fn from_iter<T: IntoIterator<Item = (Arc<str>, Value)>>(iter: T) -> Self {
        let mut object = Self::default();
        for (name, value) in iter {
            match object.members.iter_mut().find(|(member, _)| *member == name) {
                Some(slot) => slot.1 = value,
                None => object.members.push((name, value)),
            }
        }
        object
    }
}

impl Value {
    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// What kind of value it is, in JSON's words, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Why bytes are not acceptable JSON. The text never repeats input: it may reach a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

/// Reads one object and nothing after it.
///
/// # Errors
/// Not UTF-8, not JSON, not an object, trailing data, a name twice, or a bound of `limits` passed.
pub fn parse_object(bytes: &[u8], limits: Limits) -> Result<Object, JsonError> {
    match parse(bytes, limits)? {
        Value::Object(object) => Ok(Arc::unwrap_or_clone(object)),
        other => Err(JsonError(format!("expected an object, found {}", other.kind()))),
    }
}

/// Reads one value and nothing after it.
///
/// # Errors
/// As [`parse_object`], but any value will do.
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError("not UTF-8".to_owned()))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { limits, depth: 0 }.deserialize(&mut reader).map_err(|error| refuse(&error))?;
    reader.end().map_err(|_| JsonError("data after the JSON value".to_owned()))?;
    Ok(value)
}

/// serde_json's own messages can quote input, so only ours and the category pass.
fn refuse(error: &serde_json::Error) -> JsonError {
    let text = error.to_string();
    for ours in [NAME_TWICE, TOO_DEEP, LIST_TOO_LONG, TOO_MANY_MEMBERS] {
        if text.starts_with(ours) {
            return JsonError(ours.to_owned());
        }
    }
    JsonError(format!("not JSON (line {}, column {})", error.line(), error.column()))
}

const NAME_TWICE: &str = "a member name occurs twice";
const TOO_DEEP: &str = "nested too deeply";
const LIST_TOO_LONG: &str = "an array is too long";
const TOO_MANY_MEMBERS: &str = "an object has too many members";

#[derive(Clone, Copy)]
struct Strict {
    limits: Limits,
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= self.limits.depth {
            return Err(E::custom(TOO_DEEP));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "JSON numbers beyond i64 are approximate by definition")]
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Number(value as f64), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            if list.len() >= self.limits.list {
                return Err(A::Error::custom(LIST_TOO_LONG));
            }
            list.push(item);
        }
        Ok(Value::List(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members: Vec<(Arc<str>, Value)> = Vec::new();
        while let Some(name) = entries.next_key::<std::borrow::Cow<'de, str>>()? {
            if members.len() >= self.limits.members {
                return Err(A::Error::custom(TOO_MANY_MEMBERS));
            }
            if members.iter().any(|(member, _)| **member == *name) {
                return Err(A::Error::custom(NAME_TWICE));
            }
            members.push((name.as_ref().into(), entries.next_value_seed(inner)?));
        }
        Ok(Value::Object(Arc::new(Object { members })))
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Value, parse, parse_object};

    fn fails_with(input: &str, expected: &str) {
        let error = parse(input.as_bytes(), Limits::default()).expect_err(input).to_string();
        assert!(error.starts_with(expected), "{input}: {error}");
    }

    #[test]
    fn a_repeated_member_is_refused_however_it_is_spelled() {
        fails_with(r#"{"alg":1,"alg":2}"#, "a member name occurs twice");
        fails_with(r#"{"alg":1,"\u0061lg":2}"#, "a member name occurs twice");
        fails_with(r#"{"a":[{"b":{"c":1,"c":1}}]}"#, "a member name occurs twice");
    }

    #[test]
    fn bounds_hold() {
        fails_with(&format!("{}1{}", "[".repeat(17), "]".repeat(17)), "nested too deeply");
        fails_with(&"[".repeat(100_000), "nested too deeply");
        fails_with(&format!("[{}1]", "1,".repeat(256)), "an array is too long");
    }

    #[test]
    fn trailing_data_marks_and_non_objects_are_refused() {
        fails_with("{} {}", "data after the JSON value");
        fails_with("\u{feff}{}", "not JSON");
        fails_with("{\"a\":1e999}", "not JSON");
        assert!(parse_object(b"[]", Limits::default()).is_err());
        assert!(parse(&[0xff], Limits::default()).is_err());
    }

    #[test]
    fn a_dotted_path_prefers_the_literal_name() {
        let object =
            parse_object(br#"{"a.b":1,"a":{"b":2,"c":{"d":3}},"https://x.y/t":4}"#, Limits::default())
                .expect("valid");
        assert_eq!(object.at("a.b"), Some(&Value::Integer(1)));
        assert_eq!(object.at("a.c.d"), Some(&Value::Integer(3)));
        assert_eq!(object.at("https://x.y/t"), Some(&Value::Integer(4)));
        assert_eq!(object.at("a.x"), None);
    }
}
