//! The keys of a policy that all signed requests share.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Scheme};
use portcullis_jose::{MessageAlgorithm, MessageKey};

use super::coverage::{Weakness, Weaknesses, words};
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

/// What one kind of signature is called, and what can be written about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The authenticator's word: its signatures are used up apart from those of others.
    pub(crate) word: &'static str,
    pub(crate) scheme: Scheme,
    /// Every algorithm, under its name on the wire.
    pub(crate) algorithms: &'static [(&'static str, MessageAlgorithm)],
    /// Whether all of them are taken where the policy lists none.
    pub(crate) all_by_default: bool,
    pub(crate) weaknesses: &'static [(&'static str, Weakness)],
}

/// `algorithms`, `accept_weak`, `max_age`, `leeway` and `replay`.
#[derive(Clone, Debug)]
pub(crate) struct SigningSettings {
    kind: Kind,
    algorithms: Vec<MessageAlgorithm>,
    weak: Weaknesses,
    window: Window,
    replay: Replay,
    at: Place,
}

impl SigningSettings {
    pub(crate) fn read(kind: Kind, fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Self> {
        let at = fields.place();
        let weak = Weaknesses::read(fields, kind.weaknesses, faults);
        let algorithms = if kind.all_by_default {
            let all = || kind.algorithms.iter().map(|(_, algorithm)| *algorithm).collect();
            fields.get("algorithms").map_or_else(|| Some(all()), |node| words(node, kind.algorithms, faults))
        } else {
            let written = fields.require("algorithms", faults);
            written.and_then(|node| read_algorithms(kind, node, weak.as_ref()?, faults))
        };
        let max_age = bounded(fields.get("max_age"), (DEFAULT_MAX_AGE, 1, LONGEST_MAX_AGE), faults);
        let leeway = bounded(fields.get("leeway"), (DEFAULT_LEEWAY, 0, LONGEST_LEEWAY), faults);
        let words = [("refuse", Replay::Refuse), ("allow", Replay::Allow)];
        let replay = fields.get("replay").map_or(Some(Replay::Refuse), |node| node.one_of(&words, faults));
        Some(Self {
            kind,
            algorithms: algorithms?,
            weak: weak?,
            window: Window::new(max_age?, leeway?),
            replay: replay?,
            at,
        })
    }

    /// Whether a signature may be used once only.
    pub(crate) fn refuses_replays(&self) -> bool {
        self.replay == Replay::Refuse
    }

    /// What the policy accepts although it is weak.
    pub(crate) const fn weak(&self) -> &Weaknesses {
        &self.weak
    }

    pub(crate) fn compile(
        &self,
        keys: &Arc<SignatureKeys>,
        compiling: &Compiling<'_>,
        faults: &mut Faults,
    ) -> Option<Verifier> {
        let accepted = self.algorithms.iter().map(|algorithm| {
            MessageKey::stand_in(*algorithm).map(|stand_in| Accepted {
                algorithm: *algorithm,
                stand_in,
                in_use: keys.all().any(|key| {
                    self.algorithms.iter().find(|own| key.allows(**own)).is_some_and(|own| own == algorithm)
                }),
            })
        });
        let accepted: Result<Box<[_]>, _> = accepted.collect();
        let accepted = accepted.map_err(|error| faults.error("no_randomness", self.at, error.to_string()));
        Some(Verifier {
            scheme: self.kind.scheme,
            keys: keys.clone(),
            algorithms: accepted.ok()?,
            window: self.window,
            used: self
                .refuses_replays()
                .then(|| compiling.replays.space_of_age(self.kind.word, self.window.max_age)),
        })
    }
}

fn read_algorithms(
    kind: Kind,
    node: &Node,
    weak: &Weaknesses,
    faults: &mut Faults,
) -> Option<Vec<MessageAlgorithm>> {
    let algorithms = words(node, kind.algorithms, faults)?;
    if algorithms.contains(&MessageAlgorithm::HmacSha1) && !weak.accept(Weakness::Sha1) {
        faults.push(
            Diagnostic::error(
                "weak_algorithm",
                node.place,
                "SHA-1 is broken, and nobody should sign with it any more",
            )
            .note("if its callers cannot be moved yet, say so: `accept_weak: [sha1]`"),
        );
        return None;
    }
    Some(algorithms)
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
