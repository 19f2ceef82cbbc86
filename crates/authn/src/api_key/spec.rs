//! `api_key:` as written in a chain, and `api_keys:` as written in `gateway.yaml`.

use std::time::Duration;

use http::header::AUTHORIZATION;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Materials, Secret, SecretSpec};

use super::ApiKey;
use crate::chain::Compiling;
use crate::place::{Place, Places, cookie_name, header_name, parameter_name, scheme_word};

/// The shortest pepper, in bytes: the output length of the hash it keys (RFC 2104 section 3).
const MIN_PEPPER: usize = 32;

/// How long a key is kept after its end, where it is not written.
const KEEP_EXPIRED: Duration = Duration::from_hours(30 * 24);

/// `api_keys: { pepper, keep_expired }`: the secret under which keys are stored, and how long those that were made over
/// the admin API are kept after their end.
#[derive(Clone, Debug)]
pub struct PepperSpec {
    pepper: SecretSpec,
    keep_expired: Duration,
    place: portcullis_core::Place,
}

impl PepperSpec {
    /// Reads the mapping.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`api_keys`", faults)?;
        let (pepper, keep) = (fields.require("pepper", faults), fields.get("keep_expired"));
        fields.finish(faults);
        let keep_expired = keep.map_or(Some(KEEP_EXPIRED), |node| node.duration(faults));
        let pepper = pepper?;
        Some(Self { pepper: pepper.secret(faults)?, keep_expired: keep_expired?, place: pepper.place })
    }

    /// How long a key that was made over the admin API is kept after its end.
    pub const fn keep_expired(&self) -> Duration {
        self.keep_expired
    }

    /// Fetches the secret. A short one is refused: with a guessable pepper the stored hashes can be searched.
    pub fn compile(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<Secret> {
        let secret = self.pepper.resolve(materials, faults)?;
        if secret.len() < MIN_PEPPER {
            faults.push(
                Diagnostic::error(
                    "weak_secret",
                    self.place,
                    format!("the pepper is {} bytes long, {MIN_PEPPER} are needed", secret.len()),
                )
                .note("make one with `openssl rand -base64 32`"),
            );
            return None;
        }
        Some(secret)
    }
}

/// Where an alternative takes the key from.
#[derive(Clone, Debug)]
pub(crate) struct ApiKeySpec {
    places: Places,
    at: portcullis_core::Place,
}

impl ApiKeySpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`api_key`", faults)?;
        let (header, scheme) = (fields.get("header"), fields.get("scheme"));
        let (query, cookie) = (fields.get("query"), fields.get("cookie"));
        fields.finish(faults);
        if header.is_none() && query.is_none() && cookie.is_none() {
            faults.push(
                Diagnostic::error("missing_key", node.place, "`api_key` needs a place the key is read from")
                    .note("write `header: x-api-key`, `query: api_key`, `cookie: key`, or several of them"),
            );
            return None;
        }
        let read = [
            header.map(|header| header_place(header, scheme, faults)),
            query.map(|node| parameter_name(node, faults).map(Place::Query)),
            cookie.map(|node| cookie_name(node, faults).map(Place::Cookie)),
        ];
        if let (None, Some(scheme)) = (header, scheme) {
            misplaced_scheme(scheme, faults);
            return None;
        }
        let places = read.into_iter().flatten().collect::<Option<Vec<Place>>>()?;
        Some(Self { places: Places::new(places), at: node.place })
    }

    pub(crate) fn compile(&self, compiling: &Compiling<'_>, faults: &mut Faults) -> Option<ApiKey> {
        let table = compiling.clients.api_keys();
        if table.is_none() {
            faults.push(
                Diagnostic::error("missing_pepper", self.at, "`api_key` needs a pepper to look keys up with")
                    .note("add `api_keys: { pepper: { file: secrets/pepper } }` to gateway.yaml"),
            );
        }
        Some(ApiKey { api: compiling.api.into(), places: self.places.clone(), table: table?.clone() })
    }
}

/// The whole value of a header, or what follows a scheme in `Authorization`.
fn header_place(header: &Node, scheme: Option<&Node>, faults: &mut Faults) -> Option<Place> {
    let name = header_name(header, faults);
    let Some(scheme) = scheme else { return name.map(Place::Header) };
    let word = scheme_word(scheme, faults);
    if name? != AUTHORIZATION {
        misplaced_scheme(scheme, faults);
        return None;
    }
    word.map(|word| Place::authorization(&word))
}

fn misplaced_scheme(scheme: &Node, faults: &mut Faults) {
    faults.push(
        Diagnostic::error("misplaced_scheme", scheme.place, "only `authorization` has a scheme")
            .note("elsewhere the key is the whole value: leave `scheme` out"),
    );
}
