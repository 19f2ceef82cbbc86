//! The credential: `keyId="…",algorithm="…",headers="…",created=…,expires=…,signature="…"`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::base::Component;

/// The longest credential that is looked at, in bytes.
const MAX_BYTES: usize = 8 << 10;
/// The most names that one signature may list.
const MAX_COVERED: usize = 64;

/// The parameters of a signature (draft 12 section 2.1).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) key_id: String,
    pub(crate) algorithm: Option<String>,
    /// What is signed, in this order; `None` where the request does not say.
    pub(crate) covered: Option<Vec<Component>>,
    pub(crate) created: Option<i64>,
    /// As written: it is signed as written.
    pub(crate) expires_text: Option<String>,
    /// Whole seconds, a fraction cut off.
    pub(crate) expires: Option<i64>,
    pub(crate) signature: Vec<u8>,
}

/// Why a credential is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParametersError {
    #[error("it is too long")]
    TooLong,
    #[error("it is not a list of parameters")]
    NotParameters,
    #[error("a parameter occurs more than once")]
    Repeated,
    #[error("it holds a parameter that is not known")]
    Unknown,
    #[error("`keyId` or `signature` is missing")]
    Missing,
    #[error("`headers` is empty, too long, names something twice, or something that cannot be signed")]
    Covered,
    #[error("`created` or `expires` is not a number of seconds")]
    Time,
    #[error("`signature` is not base64")]
    Signature,
}

/// One parameter's value as it was written.
#[derive(Clone, Copy)]
enum Value<'v> {
    Quoted(&'v str),
    Bare(&'v str),
}

#[derive(Default)]
struct Written<'v> {
    key_id: Option<&'v str>,
    algorithm: Option<&'v str>,
    headers: Option<&'v str>,
    created: Option<&'v str>,
    expires: Option<&'v str>,
    signature: Option<&'v str>,
}

impl Parameters {
    /// Reads what follows the scheme.
    pub(crate) fn parse(credential: &[u8]) -> Result<Self, ParametersError> {
        if credential.len() > MAX_BYTES {
            return Err(ParametersError::TooLong);
        }
        let text = std::str::from_utf8(credential).map_err(|_| ParametersError::NotParameters)?;
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
            return Err(ParametersError::NotParameters);
        }
        let written = Written::split(text)?;
        let key_id = written.key_id.filter(|id| !id.is_empty()).ok_or(ParametersError::Missing)?;
        let signature = written.signature.filter(|text| !text.is_empty()).ok_or(ParametersError::Missing)?;
        Ok(Self {
            key_id: key_id.to_owned(),
            algorithm: written.algorithm.map(str::to_owned),
            covered: written.headers.map(covered).transpose()?,
            created: written.created.map(|text| seconds(text, false)).transpose()?,
            expires: written.expires.map(|text| seconds(text, true)).transpose()?,
            expires_text: written.expires.map(str::to_owned),
            signature: decode_signature(signature)?,
        })
    }
}

impl<'v> Written<'v> {
    /// `name="value"`, separated by commas. SECURITY: names in any case and each of them once, or two readers would
    /// see two signatures.
    fn split(mut text: &'v str) -> Result<Self, ParametersError> {
        let mut written = Self::default();
        loop {
            let (name, rest) = text.split_once('=').ok_or(ParametersError::NotParameters)?;
            let (value, rest) = value(rest)?;
            written.set(name.trim_matches([' ', '\t']), value)?;
            let rest = rest.trim_start_matches([' ', '\t']);
            match rest.strip_prefix(',') {
                Some(next) => text = next,
                None if rest.is_empty() => return Ok(written),
                None => return Err(ParametersError::NotParameters),
            }
        }
    }

    fn set(&mut self, name: &str, value: Value<'v>) -> Result<(), ParametersError> {
        let named = |own: &str| name.eq_ignore_ascii_case(own);
        // Numbers stand bare and everything else in quotes (draft 12 section 2.1; CAV-02).
        let (place, value) = match value {
            Value::Quoted(text) if named("keyId") => (&mut self.key_id, text),
            Value::Quoted(text) if named("algorithm") => (&mut self.algorithm, text),
            Value::Quoted(text) if named("headers") => (&mut self.headers, text),
            Value::Quoted(text) if named("signature") => (&mut self.signature, text),
            Value::Bare(text) if named("created") => (&mut self.created, text),
            Value::Bare(text) if named("expires") => (&mut self.expires, text),
            Value::Quoted(_) if named("created") || named("expires") => return Err(ParametersError::Time),
            Value::Quoted(_) | Value::Bare(_) => return Err(ParametersError::Unknown),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(ParametersError::Repeated),
        }
    }
}

/// The value at the start of the text, and what comes behind it.
fn value(text: &str) -> Result<(Value<'_>, &str), ParametersError> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, rest) = quoted.split_once('"').ok_or(ParametersError::NotParameters)?;
        // Nothing here needs an escape, and readers differ in what they make of one.
        if value.contains(['\\', '\t']) {
            return Err(ParametersError::NotParameters);
        }
        return Ok((Value::Quoted(value), rest));
    }
    let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
    let (value, rest) = text.split_at(end);
    Ok((Value::Bare(value), rest))
}

fn covered(text: &str) -> Result<Vec<Component>, ParametersError> {
    let mut covered = Vec::new();
    for name in text.split(' ') {
        let component = Component::parse(name).ok_or(ParametersError::Covered)?;
        if covered.len() == MAX_COVERED || covered.contains(&component) {
            return Err(ParametersError::Covered);
        }
        covered.push(component);
    }
    Ok(covered)
}

/// Seconds since 1970; only the end may have a fraction.
fn seconds(text: &str, fraction: bool) -> Result<i64, ParametersError> {
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 15 && text.bytes().all(|b| b.is_ascii_digit());
    let whole = match text.split_once('.') {
        Some((whole, after)) if fraction && digits(after) => whole,
        Some(_) => return Err(ParametersError::Time),
        None => text,
    };
    if !digits(whole) {
        return Err(ParametersError::Time);
    }
    whole.parse().map_err(|_| ParametersError::Time)
}

/// Standard base64, as it is or percent-encoded (B8). SECURITY: `%` is no character of base64, so no text means two
/// things.
fn decode_signature(text: &str) -> Result<Vec<u8>, ParametersError> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit(), digit());
                let value = high.zip(low).map(|(high, low)| high * 16 + low);
                value.and_then(|value| u8::try_from(value).ok()).ok_or(ParametersError::Signature)?
            }
            byte => byte,
        });
    }
    STANDARD.decode(&plain).map_err(|_| ParametersError::Signature)
}
