//! The protected header of a token (RFC 7515 section 4).

use std::sync::Arc;

use portcullis_core::json::{self, Limits, Object, Value};

use super::error::{JwsError, Segment};
use crate::{Algorithm, base64url};

/// The longest `kid` (JWK-03).
pub(crate) const KEY_ID_MAX: usize = 256;

/// What a header says, as far as anything here acts on it.
///
/// SECURITY: `jwk`, `jku`, `x5u`, `x5c` and `x5t` are not even kept: a token never brings its own key, and nothing
/// it names is ever fetched (JWT-08, JWT-17). Unknown members are ignored (JWT-06).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwsHeader {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`, at most 256 bytes: opaque, and only ever compared with the `kid`s of the issuer's own set.
    pub key_id: Option<Arc<str>>,
    /// `typ`.
    pub kind: Option<Arc<str>>,
    /// `cty`.
    pub content_type: Option<Arc<str>>,
    /// `x5t#S256`: it never selects a key, but a key with another certificate does not verify the token (JWT-19).
    pub certificate_thumbprint: Option<[u8; 32]>,
}

impl JwsHeader {
    pub(super) fn read(bytes: &[u8], limits: Limits) -> Result<Self, JwsError> {
        let members =
            json::parse_object(bytes, limits).map_err(|error| JwsError::Json(Segment::Header, error))?;
        refuse_extensions(&members)?;
        let algorithm = match members.get("alg") {
            Some(Value::Text(name)) => Algorithm::parse(name).ok_or(JwsError::AlgorithmUnknown)?,
            _ => return Err(JwsError::HeaderMember("alg")),
        };
        let key_id = text(&members, "kid")?;
        if key_id.as_ref().is_some_and(|key_id| key_id.len() > KEY_ID_MAX) {
            return Err(JwsError::HeaderMember("kid"));
        }
        let certificate_thumbprint = text(&members, "x5t#S256")?
            .map(|text| base64url::decode_exactly(text.as_bytes()))
            .transpose()
            .map_err(|_| JwsError::HeaderMember("x5t#S256"))?;
        Ok(Self {
            algorithm,
            key_id,
            kind: text(&members, "typ")?,
            content_type: text(&members, "cty")?,
            certificate_thumbprint,
        })
    }
}

/// Refuses what would change the meaning of the token if it were honoured, or was meant to be.
fn refuse_extensions(members: &Object) -> Result<(), JwsError> {
    if members.get("zip").is_some() {
        return Err(JwsError::Compressed);
    }
    if members.get("b64").is_some_and(|value| *value != Value::Bool(true)) {
        return Err(JwsError::PayloadUnencoded);
    }
    match members.get("crit") {
        None => Ok(()),
        Some(Value::List(names)) => Err(critical(members, names)),
        Some(_) => Err(JwsError::CriticalMalformed),
    }
}

/// We understand no extension, so every `crit` is refused; which error it is only helps whoever reads the log.
fn critical(members: &Object, names: &[Value]) -> JwsError {
    let well_formed = !names.is_empty()
        && names.iter().enumerate().all(|(at, name)| {
            name.as_text().is_some_and(|text| members.get(text).is_some())
                && !names.iter().take(at).any(|n| n == name)
        });
    if well_formed { JwsError::CriticalUnknown } else { JwsError::CriticalMalformed }
}

fn text(members: &Object, name: &'static str) -> Result<Option<Arc<str>>, JwsError> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(Arc::clone(text))),
        Some(_) => Err(JwsError::HeaderMember(name)),
    }
}
