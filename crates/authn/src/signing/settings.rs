//! The keys of a policy that all signed requests share.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Scheme};
use portcullis_jose::{MessageAlgorithm, MessageKey};

use super::{Accepted, SignatureKeys, Verifier, Window};
use crate::chain::Compiling;

/// How long a signature is taken, where the policy does not say.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(300);
/// The longest that may be written: what may be used once is remembered for as long.
const LONGEST_MAX_AGE: Duration = Duration::from_secs(3600);
/// How far a signature may lie in the future, where the policy does not say.
const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
/// The farthest that may be written.
const LONGEST_LEEWAY: Duration = Duration::from_secs(300);

/// Whether a signature may be used again within its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// It may not.
    Refuse,
    /// It may, by the policy's own wish.
    Allow,
}

/// `max_age`, `leeway` and `replay`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SigningSettings {
    window: Window,
    replay: Replay,
}

impl SigningSettings {
    pub(crate) fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Self> {
        let max_age = bounded(fields.get("max_age"), (DEFAULT_MAX_AGE, 1, LONGEST_MAX_AGE), faults);
        let leeway = bounded(fields.get("leeway"), (DEFAULT_LEEWAY, 0, LONGEST_LEEWAY), faults);
        let words = [("refuse", Replay::Refuse), ("allow", Replay::Allow)];
        let replay = fields.get("replay").map_or(Some(Replay::Refuse), |node| node.one_of(&words, faults));
        Some(Self { window: Window::new(max_age?, leeway?), replay: replay? })
    }

    /// Whether a signature may be used once only.
    pub(crate) fn refuses_replays(self) -> bool {
        self.replay == Replay::Refuse
    }

    /// `kind` is the authenticator's word: its signatures are used up apart from those of others.
    pub(crate) fn compile(
        self,
        (kind, scheme): (&str, Scheme),
        keys: &Arc<SignatureKeys>,
        (algorithms, place): (&[MessageAlgorithm], Place),
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Verifier> {
        let accepted = algorithms.iter().map(|algorithm| {
            MessageKey::stand_in(*algorithm).map(|stand_in| Accepted { algorithm: *algorithm, stand_in })
        });
        let accepted: Result<Box<[_]>, _> = accepted.collect();
        let accepted = accepted.map_err(|error| faults.error("no_randomness", place, error.to_string()));
        Some(Verifier {
            scheme,
            keys: keys.clone(),
            algorithms: accepted.ok()?,
            window: self.window,
            used: self.refuses_replays().then(|| compiling.replays.space(kind)),
        })
    }
}

fn bounded(
    node: Option<&Node>,
    (default, shortest, longest): (Duration, u64, Duration),
    faults: &mut Faults,
) -> Option<Duration> {
    let Some(node) = node else { return Some(default) };
    let duration = node.duration(faults)?;
    if duration < Duration::from_secs(shortest) || duration > longest || duration.subsec_nanos() > 0 {
        faults.push(
            Diagnostic::error(
                "out_of_range",
                node.place,
                format!("this is {shortest}s to {}s, in whole seconds", longest.as_secs()),
            )
            .note("it cannot be switched off: a signature without an end is a password that travels"),
        );
        return None;
    }
    Some(duration)
}
