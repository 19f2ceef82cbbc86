//! `Signature-Input` and `Signature` (RFC 9421 section 4).

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{Dictionary, InnerList, ListEntry, Parameters, Parser};

/// What is signed, by label.
pub(crate) const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
/// The signatures, by label.
pub(crate) const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// The longest that both fields together may be, in bytes.
const MAX_BYTES: usize = 16 << 10;
/// The most signatures of one request that are looked at.
const MAX_SIGNATURES: usize = 8;
/// The most components one signature may cover.
const MAX_COVERED: usize = 64;

/// The signatures of a message.
#[derive(Debug)]
pub(crate) struct Signatures {
    inputs: Dictionary,
    values: Dictionary,
}

/// One signature.
#[derive(Debug)]
pub(crate) struct Input<'s> {
    pub(crate) list: &'s InnerList,
    pub(crate) value: &'s [u8],
    pub(crate) key_id: &'s str,
    pub(crate) algorithm: Option<&'s str>,
    pub(crate) created: i64,
    pub(crate) expires: Option<i64>,
    pub(crate) nonce: Option<&'s str>,
    pub(crate) tag: Option<&'s str>,
}

/// Why the fields are malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// More than is looked at.
    #[error("the signatures are too long or too many")]
    TooLong,
    /// A field is no dictionary.
    #[error("Signature-Input or Signature is not a dictionary")]
    NotDictionary,
    /// A label's value is not of its kind, or is in one of the fields only.
    #[error("a label is not a list of components in Signature-Input and bytes in Signature")]
    Label,
    /// A parameter that must be there is not, or one is of the wrong kind.
    #[error("the parameter `{0}` is missing or of the wrong kind")]
    Parameter(&'static str),
    /// Nothing is covered, or more than is looked at.
    #[error("it covers nothing, or too much")]
    Covered,
}

impl Signatures {
    /// Reads both fields.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, InputError> {
        let (inputs, values) = (joined(headers, &SIGNATURE_INPUT), joined(headers, &SIGNATURE));
        if inputs.len().saturating_add(values.len()) > MAX_BYTES {
            return Err(InputError::TooLong);
        }
        let parse = |field: &[u8]| Parser::new(field).parse().map_err(|_| InputError::NotDictionary);
        let (inputs, values): (Dictionary, Dictionary) = (parse(&inputs)?, parse(&values)?);
        if inputs.len() > MAX_SIGNATURES || values.len() > MAX_SIGNATURES {
            return Err(InputError::TooLong);
        }
        Ok(Self { inputs, values })
    }

    /// Every label, in the order of `Signature-Input`.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        self.inputs.keys().map(|label| label.as_str())
    }

    /// The `tag` of a label, for choosing only.
    pub(crate) fn tag(&self, label: &str) -> Option<&str> {
        text(&self.list(label)?.params, "tag").ok()?
    }

    /// The `keyid` of a label, for choosing only.
    pub(crate) fn key_id(&self, label: &str) -> Option<&str> {
        text(&self.list(label)?.params, "keyid").ok()?
    }

    /// The signature of that label.
    pub(crate) fn input(&self, label: &str) -> Result<Input<'_>, InputError> {
        let list = self.list(label).ok_or(InputError::Label)?;
        let value = self.values.iter().find(|(own, _)| own.as_str() == label).map(|(_, value)| value);
        let Some(ListEntry::Item(value)) = value else { return Err(InputError::Label) };
        if list.items.is_empty() || list.items.len() > MAX_COVERED {
            return Err(InputError::Covered);
        }
        Ok(Input {
            list,
            value: value.bare_item.as_byte_sequence().ok_or(InputError::Label)?,
            key_id: text(&list.params, "keyid")?
                .filter(|id| !id.is_empty())
                .ok_or(InputError::Parameter("keyid"))?,
            algorithm: text(&list.params, "alg")?,
            created: number(&list.params, "created")?.ok_or(InputError::Parameter("created"))?,
            expires: number(&list.params, "expires")?,
            nonce: text(&list.params, "nonce")?,
            tag: text(&list.params, "tag")?,
        })
    }

    fn list(&self, label: &str) -> Option<&InnerList> {
        match self.inputs.iter().find(|(own, _)| own.as_str() == label)? {
            (_, ListEntry::InnerList(list)) => Some(list),
            (_, ListEntry::Item(_)) => None,
        }
    }
}

/// One field over several lines is one dictionary (RFC 9651 section 4.2).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    lines.join(&b", "[..])
}

fn text<'p>(parameters: &'p Parameters, name: &'static str) -> Result<Option<&'p str>, InputError> {
    let Some((_, value)) = parameters.iter().find(|(own, _)| own.as_str() == name) else { return Ok(None) };
    value.as_string().map(|text| Some(text.as_str())).ok_or(InputError::Parameter(name))
}

fn number(parameters: &Parameters, name: &'static str) -> Result<Option<i64>, InputError> {
    let Some((_, value)) = parameters.iter().find(|(own, _)| own.as_str() == name) else { return Ok(None) };
    value.as_integer().map(|number| Some(i64::from(number))).ok_or(InputError::Parameter(name))
}
