//! `dpop:` as written beside a token's issuer.

use std::time::Duration;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults};
use portcullis_jose::{Algorithm, Origin, Skew};

use super::Dpop;
use crate::chain::Compiling;
use crate::issuers::read_algorithms;

/// The default for `max_age`.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The longest `max_age`: so long every proof is remembered.
const MAX_AGE_MAX: Duration = Duration::from_mins(5);
/// The default for `leeway`.
const LEEWAY: Duration = Duration::from_secs(10);
/// The algorithms of FAPI 2.0, which are also those that clients have.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Es256, Algorithm::Ps256, Algorithm::EdDsa];
/// The name of the memory for used proofs. One for all APIs: a proof is for one place only.
const SPACE: &str = "dpop";

/// How proofs are to be judged.
#[derive(Clone, Debug)]
pub(crate) struct DpopSpec {
    required: bool,
    algorithms: Vec<Algorithm>,
    max_age: Duration,
    leeway: Duration,
    nonce_required: bool,
    origin: Option<Origin>,
}

/// The words that stand alone, or behind `use`.
const USE: &[(&str, bool)] = &[("required", true), ("optional", false)];

impl DpopSpec {
    /// Reads `dpop: required`, or the mapping with `use: required` and more.
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let plain = Self {
            required: true,
            algorithms: ALGORITHMS.to_vec(),
            max_age: MAX_AGE,
            leeway: LEEWAY,
            nonce_required: false,
            origin: None,
        };
        if !matches!(node.content, Content::Map(_)) {
            return Some(Self { required: node.one_of(USE, faults)?, ..plain });
        }
        let mut fields = Fields::of(node, "`dpop`", faults)?;
        let required = fields.require("use", faults).and_then(|node| node.one_of(USE, faults));
        let algorithms = fields.get("algorithms").map(|node| read_public_algorithms(node, faults));
        let max_age = fields.get("max_age").map(|node| within(node, MAX_AGE_MAX, "1s to 5m", faults));
        let leeway = fields.get("leeway").map(|node| read_leeway(node, faults));
        let nonce = fields.get("nonce").map(|node| node.one_of(USE, faults));
        let origin = fields.get("url").map(|node| read_origin(node, faults));
        fields.finish(faults);
        Some(Self {
            required: required?,
            algorithms: algorithms.unwrap_or(Some(plain.algorithms))?,
            max_age: max_age.unwrap_or(Some(plain.max_age))?,
            leeway: leeway.unwrap_or(Some(plain.leeway))?,
            nonce_required: nonce.unwrap_or(Some(false))?,
            origin: origin.map_or(Some(None), |read| read.map(Some))?,
        })
    }

    pub(crate) fn compile(&self, compiling: &Compiling<'_>) -> Dpop {
        Dpop {
            required: self.required,
            algorithms: self.algorithms.clone(),
            max_age_ms: milliseconds(self.max_age),
            leeway_ms: milliseconds(self.leeway),
            nonce_required: self.nonce_required,
            origin: self.origin.clone(),
            used: compiling.replays.space(SPACE),
            nonces: compiling.nonces.clone(),
        }
    }
}

/// DPP-02: a proof brings its own key, so no key of it can be a secret.
fn read_public_algorithms(node: &Node, faults: &mut Faults) -> Option<Vec<Algorithm>> {
    let written = read_algorithms(node, faults)?;
    if let Some(symmetric) = written.iter().find(|algorithm| algorithm.value.is_symmetric()) {
        faults.push(
            Diagnostic::error(
                "symmetric_proof",
                symmetric.place,
                format!("`{}` cannot make a proof", symmetric.value),
            )
            .note("whoever could check such a proof could also make it"),
        );
        return None;
    }
    Some(written.into_iter().map(|algorithm| algorithm.value).collect())
}

fn within(node: &Node, most: Duration, words: &str, faults: &mut Faults) -> Option<Duration> {
    let duration = node.duration(faults)?;
    if duration < Duration::from_secs(1) || duration > most {
        faults.error("out_of_range", node.place, format!("this must be {words}"));
        return None;
    }
    Some(duration)
}

fn read_leeway(node: &Node, faults: &mut Faults) -> Option<Duration> {
    let leeway = node.duration(faults)?;
    if leeway > Skew::MAXIMUM {
        faults.error("out_of_range", node.place, "a leeway is at most `1m`");
        return None;
    }
    Some(leeway)
}

fn read_origin(node: &Node, faults: &mut Faults) -> Option<Origin> {
    let text = node.text(faults)?;
    let origin = Origin::parse(&text.value);
    if origin.is_none() {
        faults.push(
            Diagnostic::error("bad_url", text.place, format!("`{}` is not a scheme and a host", text.value))
                .note("write what callers put before the path, such as `https://api.bank.example`"),
        );
    }
    origin
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
