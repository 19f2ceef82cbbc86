//! One API key as the store keeps it, as operators ask for it, and as it is shown to them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use portcullis_authn::{KeyHash, KeyTerms, NewKey, check_key_name, is_mistyped, moment};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bounds of a value that was made elsewhere, in bytes: what cannot be guessed, and what is looked at.
const VALUE_BYTES: std::ops::RangeInclusive<usize> = 20..=512;

/// What an operator says of a key that is to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// What it is called in logs and headers, among the keys of its client; its id where nothing is said.
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-~]([ -~]*[!-~])?$")]
    pub name: Option<String>,
    /// The moment from which it counts.
    #[schema(example = "2099-01-31")]
    pub not_before: Option<String>,
    /// The moment from which it no longer counts.
    #[schema(example = "2099-06-30T12:00:00Z")]
    pub expires: Option<String>,
    /// The APIs it may be used at; all, if none is named.
    pub apis: Option<Vec<String>>,
    /// The networks it may be used from; all, if none is named.
    pub from: Option<Vec<String>>,
    /// The key itself, where it was made elsewhere.
    pub value: Option<KeyValue>,
}

/// A key that was made elsewhere.
#[derive(Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(min_length = 20, max_length = 512, pattern = "^[!-~]+$")]
pub struct KeyValue(String);

/// SECURITY: whoever prints what was asked for does not print it.
impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What is to be different about a key.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyChange {
    /// Whether it does not count, although it is kept.
    pub disabled: Option<bool>,
    /// The moment from which it no longer counts.
    #[schema(example = "2099-06-30T12:00:00Z")]
    pub expires: Option<String>,
}

/// Whether a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It counts.
    InForce,
    /// It was disabled.
    Disabled,
    /// It does not count yet.
    NotYet,
    /// It no longer counts.
    Expired,
    /// The client is none any more.
    ClientExpired,
    /// The policy files have come to declare this key or its name themselves.
    DeclaredElsewhere,
}

/// A key as operators see it: everything but the key.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ApiKeyView {
    /// What it is asked for by.
    pub id: String,
    /// What it is called in logs and headers.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// From when on it no longer counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Whether it does not count, although it is kept.
    pub disabled: bool,
    /// Whether it counts at this moment, and if not, why.
    pub state: KeyState,
    /// The APIs it may be used at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apis: Option<Vec<String>>,
    /// The networks it may be used from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub from: Option<Vec<IpNet>>,
    /// When it was last used, if it was; after a crash up to a minute earlier than in truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// The key that takes its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// A key as it is kept: a hash under the pepper, never the key.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    hash: String,
    pub(super) name: String,
    created: i64,
    not_before: Option<i64>,
    pub(super) expires: Option<i64>,
    pub(super) disabled: bool,
    apis: Option<Vec<String>>,
    from: Option<Vec<IpNet>>,
    pub(super) last_used: Option<i64>,
    pub(super) replaced_by: Option<String>,
}

impl Record {
    /// A key an operator asks for. `hash` is of the key, which is not kept.
    ///
    /// # Errors
    /// What is wrong with what the operator says.
    pub(super) fn new(id: &str, asked: &NewApiKey, hash: KeyHash, now: i64) -> Result<Self, String> {
        let name = asked.name.as_deref().unwrap_or(id);
        check_key_name(name).map_err(|why| format!("`name`: {why}"))?;
        let (not_before, expires) =
            (second("not_before", &asked.not_before)?, second("expires", &asked.expires)?);
        check_end(expires, not_before, now)?;
        let networks = asked.from.as_ref().map(|from| from.iter().map(|text| network(text)).collect());
        let record = Self {
            hash: hash.to_string(),
            name: name.to_owned(),
            created: now,
            not_before,
            expires,
            disabled: false,
            apis: asked.apis.clone(),
            from: networks.transpose()?,
            last_used: None,
            replaced_by: None,
        };
        let empty = record.apis.as_ref().is_some_and(Vec::is_empty)
            || record.from.as_ref().is_some_and(Vec::is_empty);
        if empty {
            return Err("`apis` and `from` name at least one, or are left out".to_owned());
        }
        Ok(record)
    }

    /// A key on the same terms, which ends when it is said to, or when this one would have.
    ///
    /// # Errors
    /// What is wrong with what the operator says.
    pub(super) fn successor(
        &self,
        id: &str,
        hash: KeyHash,
        expires: &Option<String>,
        now: i64,
    ) -> Result<Self, String> {
        let expires = second("expires", expires)?.or(self.expires);
        check_end(expires, self.not_before, now)?;
        Ok(Self {
            hash: hash.to_string(),
            name: id.to_owned(),
            created: now,
            expires,
            last_used: None,
            replaced_by: None,
            ..self.clone()
        })
    }

    /// What an operator wants of it.
    ///
    /// # Errors
    /// What is wrong with what the operator says.
    pub(super) fn changed(&self, change: &ApiKeyChange) -> Result<Self, String> {
        Ok(Self {
            expires: second("expires", &change.expires)?.or(self.expires),
            disabled: change.disabled.unwrap_or(self.disabled),
            ..self.clone()
        })
    }

    /// Whether it counts at no moment at which the other one does not.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let end = |record: &Self| record.expires.unwrap_or(i64::MAX);
        self.disabled || (!other.disabled && end(self) <= end(other))
    }

    /// Whether its own terms let it count.
    pub(super) fn state(&self, now: i64) -> KeyState {
        if self.disabled {
            KeyState::Disabled
        } else if self.expires.is_some_and(|end| now >= end) {
            KeyState::Expired
        } else if self.not_before.is_some_and(|from| now < from) {
            KeyState::NotYet
        } else {
            KeyState::InForce
        }
    }

    /// The APIs it may be used at.
    pub(super) fn apis(&self) -> impl Iterator<Item = &str> {
        self.apis.iter().flatten().map(String::as_str)
    }

    /// What is looked for when the key is shown.
    ///
    /// # Errors
    /// The record is damaged.
    pub(super) fn hash(&self) -> Result<KeyHash, String> {
        self.hash.parse().map_err(|error: portcullis_authn::NotAKeyHash| error.to_string())
    }

    /// What is put in force of it.
    ///
    /// # Errors
    /// The record is damaged.
    pub(super) fn key(&self) -> Result<NewKey, String> {
        Ok(NewKey {
            hash: self.hash()?,
            name: self.name.as_str().into(),
            terms: KeyTerms {
                not_before: self.not_before,
                expires_at: self.expires,
                disabled: self.disabled,
                apis: self.apis.as_ref().map(|apis| apis.iter().map(|api| api.as_str().into()).collect()),
                networks: self.from.clone().map(Vec::into_boxed_slice),
            },
            last_used: self.last_used,
        })
    }

    /// What operators see of it.
    pub(super) fn view(&self, id: &str, last_used: Option<i64>, state: KeyState) -> ApiKeyView {
        let shown = |second: Option<i64>| second.and_then(|second| Timestamp::from_second(second).ok());
        ApiKeyView {
            id: id.to_owned(),
            name: self.name.clone(),
            created: Timestamp::from_second(self.created).unwrap_or_default(),
            not_before: shown(self.not_before),
            expires: shown(self.expires),
            disabled: self.disabled,
            state,
            apis: self.apis.clone(),
            from: self.from.clone(),
            last_used: shown(last_used.max(self.last_used)),
            replaced_by: self.replaced_by.clone(),
        }
    }
}

impl KeyValue {
    /// The key.
    ///
    /// # Errors
    /// Why this can be none. SECURITY: it is not repeated.
    pub(super) fn check(&self) -> Result<&str, String> {
        let Self(value) = self;
        if !VALUE_BYTES.contains(&value.len()) || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            let (least, most) = (VALUE_BYTES.start(), VALUE_BYTES.end());
            return Err(format!("`value` is {least} to {most} printable characters of ASCII, and no space"));
        }
        if is_mistyped(value.as_bytes()) {
            return Err(
                "`value` is a key of the form made here, and its checksum says that a character is wrong"
                    .to_owned(),
            );
        }
        Ok(value)
    }
}

fn check_end(expires: Option<i64>, not_before: Option<i64>, now: i64) -> Result<(), String> {
    if expires.is_some_and(|end| end <= not_before.unwrap_or(now).max(now)) {
        return Err("the key would end before it begins to count".to_owned());
    }
    Ok(())
}

fn second(member: &str, text: &Option<String>) -> Result<Option<i64>, String> {
    let Some(text) = text else { return Ok(None) };
    let found = moment(text).ok_or_else(|| {
        format!("`{member}` is a day such as `2027-06-30`, or a moment such as `2027-06-30T12:00:00Z`")
    });
    found.map(Some)
}

fn network(text: &str) -> Result<IpNet, String> {
    let read = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    read.filter(|network| *network == network.trunc())
        .ok_or_else(|| "`from` names networks such as `192.0.2.0/24` or `2001:db8::/32`".to_owned())
}
