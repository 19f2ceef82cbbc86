//! The outer object of a key set.
//!
//! The entries are cut out as text and read one by one, because one bad entry must not take the set with it
//! (JWK-01): a repeated member name inside an entry is that entry's fault alone.

use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{ENTRIES_MAX, JwkSetError};

/// The texts of the entries of `keys`.
pub(super) fn entries(bytes: &[u8]) -> Result<Vec<&str>, JwkSetError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JwkSetError::Malformed)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let entries = reader.deserialize_map(Outer).map_err(|_| JwkSetError::Malformed)?;
    reader.end().map_err(|_| JwkSetError::Malformed)?;
    if entries.len() > ENTRIES_MAX {
        return Err(JwkSetError::TooManyKeys);
    }
    Ok(entries.into_iter().map(RawValue::get).collect())
}

struct Outer;

impl<'de> Visitor<'de> for Outer {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key set")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut entries = None;
        while let Some(name) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            if name != "keys" {
                members.next_value::<IgnoredAny>()?;
            } else if entries.replace(members.next_value::<Entries<'de>>()?).is_some() {
                return Err(A::Error::custom("`keys` occurs twice"));
            }
        }
        entries.map(|entries| entries.0).ok_or_else(|| A::Error::custom("`keys` is missing"))
    }
}

struct Entries<'de>(Vec<&'de RawValue>);

impl<'de> serde::Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of keys")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                // One more than the bound is kept, so that the caller sees it was passed; the rest is only read over.
                while entries.len() <= ENTRIES_MAX {
                    match items.next_element()? {
                        Some(entry) => entries.push(entry),
                        None => return Ok(Entries(entries)),
                    }
                }
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(List)
    }
}
