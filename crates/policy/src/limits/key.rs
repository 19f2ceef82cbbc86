//! Whose counter a request is counted on.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_core::json::Value;
use portcullis_core::{Identity, Principal};

use super::LimitFacts;

/// What a limit counts by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Per {
    Identity,
    Client,
    Api,
    Address,
    /// A claim of the token, by its dotted path.
    Claim(Arc<str>),
}

impl Per {
    pub(super) const WORDS: [(&'static str, Self); 4] = [
        ("identity", Self::Identity),
        ("client", Self::Client),
        ("api", Self::Api),
        ("address", Self::Address),
    ];

    /// As it is written.
    pub(super) fn word(&self) -> Cow<'static, str> {
        match self {
            Self::Identity => "identity".into(),
            Self::Client => "client".into(),
            Self::Api => "api".into(),
            Self::Address => "address".into(),
            Self::Claim(path) => format!("claims.{path}").into(),
        }
    }

    /// SECURITY: only from what was proven or from the connection itself, never from what a caller writes into a
    /// request (LIM-08). A limit has counters of its own, so keys of different kinds never meet, except for the
    /// two kinds of `client`.
    fn key<'a>(&self, facts: &LimitFacts<'a>) -> Result<Key<'a>, Uncountable> {
        Ok(match self {
            Self::Identity => Key::Borrowed(&known(facts)?.key),
            Self::Client => match known(facts)?.client() {
                Some(client) => Key::Borrowed(&client.name),
                // A caller who is no registered client counts alone, apart from all clients: no client's name
                // holds a control character.
                None => Key::Built(format!("\u{1}{}", known(facts)?.key)),
            },
            Self::Api => Key::Borrowed("api"),
            Self::Address => Key::Address(AddressKey::of(facts.address.ok_or(Uncountable::NoAddress)?)),
            Self::Claim(path) => claim(path, known(facts)?.grant())?,
        })
    }
}

/// A request does not have what a limit counts by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Uncountable {
    #[error("the token has no claim `{0}` that is text or an integer")]
    NoClaim(Arc<str>),
    /// No request comes from nowhere: an operator has not said it.
    #[error("the caller's address is not known")]
    NoAddress,
    /// Asked before anybody was: no policy that compiles leads here.
    #[error("the caller is not known yet")]
    Unknown,
}

fn known<'a>(facts: &LimitFacts<'a>) -> Result<&'a Principal, Uncountable> {
    facts.principal.ok_or(Uncountable::Unknown)
}

/// SECURITY: with the issuer's entry, because two issuers may say the same of different people. What is counted by a
/// claim cannot be counted without it: no other key would be the caller's.
fn claim<'a>(path: &Arc<str>, token: &Identity) -> Result<Key<'a>, Uncountable> {
    let issuer = token.issuer.as_deref().unwrap_or_default();
    match token.claims.at(path) {
        Some(Value::Text(text)) => Ok(Key::Built(format!("{}:{issuer}\u{1}{text}", issuer.len()))),
        Some(Value::Integer(number)) => Ok(Key::Built(format!("{}:{issuer}\u{2}{number}", issuer.len()))),
        _ => Err(Uncountable::NoClaim(path.clone())),
    }
}

/// The key of a counter.
pub(super) enum Key<'a> {
    Borrowed(&'a str),
    Address(AddressKey),
    Built(String),
}

impl<'a> Key<'a> {
    /// The key of a request under a limit. One subject alone costs no allocation.
    ///
    /// # Errors
    /// The request does not have what the limit counts by.
    pub(super) fn of(per: &[Per], facts: &LimitFacts<'a>) -> Result<Self, Uncountable> {
        if let [one] = per {
            return one.key(facts);
        }
        let mut joined = String::new();
        for per in per {
            // SECURITY: with their lengths, so that no choice of one part imitates another pair.
            let part = per.key(facts)?;
            let part = part.as_str();
            // Writing to a string cannot fail.
            let _ = write!(joined, "{}:{part}", part.len());
        }
        Ok(Self::Built(joined))
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Address(address) => address.as_str(),
            Self::Built(text) => text,
        }
    }
}

/// An IPv4 address, or the first 64 bits of an IPv6 address, in hexadecimal. SECURITY: whoever has one IPv6
/// address has the 2^64 of its network, so only the network counts (LIM-01).
#[derive(Clone, Copy)]
pub(super) struct AddressKey {
    text: [u8; 17],
    length: usize,
}

impl AddressKey {
    fn of(address: IpAddr) -> Self {
        let mut key = Self { text: [0; 17], length: 0 };
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                key.push(b'4');
                v4.octets().into_iter().for_each(|byte| key.push_hexadecimal(byte));
            }
            IpAddr::V6(v6) => {
                key.push(b'6');
                v6.octets().into_iter().take(8).for_each(|byte| key.push_hexadecimal(byte));
            }
        }
        key
    }

    fn push_hexadecimal(&mut self, byte: u8) {
        for digit in [byte >> 4, byte & 15] {
            self.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.text.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }

    fn as_str(&self) -> &str {
        // Always ASCII, and if it were not, all addresses would share one count: stricter, never laxer.
        self.text.get(..self.length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("")
    }
}
