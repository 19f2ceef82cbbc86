//! What a request uses up: a token, a proof, a signature.

use std::cell::RefCell;

use portcullis_core::{Moment, Reason, Rejection, Scheme};
use portcullis_store::{Claim, ReplaySpace};

use crate::dpop::Nonces;

/// What the members of an alternative would use up.
///
/// SECURITY: it is only noted while they are judged, and claimed when all of them are good. Whoever has a stolen token
/// and not what must come with it could otherwise use it up, and its owner would be told that it is used.
#[derive(Debug, Default)]
pub struct Uses(RefCell<Vec<Use>>);

/// Something that may be used once.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) space: ReplaySpace,
    pub(crate) key: Vec<u8>,
    /// When it says it was made, in seconds since 1970.
    pub(crate) issued: i64,
    /// The first second in which it is refused for its age.
    pub(crate) until: i64,
    pub(crate) scheme: Scheme,
    /// Why it is refused if it was used before.
    pub(crate) seen: Reason,
    /// What helps where an earlier run may have taken it: a nonce shows the next one to be new.
    pub(crate) nonces: Option<Nonces>,
}

impl Uses {
    /// Notes it. What several members of an alternative would use up is one thing, and used up once: the proof that
    /// comes with a token both of them judge. It is held to the stricter of what they say.
    pub(super) fn note(&self, used: Use) {
        let mut noted = self.0.borrow_mut();
        match noted.iter_mut().find(|other| other.space == used.space && other.key == used.key) {
            Some(other) => {
                other.issued = other.issued.min(used.issued);
                other.until = other.until.max(used.until);
            }
            None => noted.push(used),
        }
    }

    /// Claims everything. `owner` is whose memory it takes.
    ///
    /// # Errors
    /// Something has been used before, or that cannot be known.
    pub(super) fn claim(&self, owner: &str, now: Moment) -> Result<(), Rejection> {
        self.0.take().iter().try_for_each(|used| used.claim(owner, now))
    }
}

impl Use {
    fn claim(&self, owner: &str, now: Moment) -> Result<(), Rejection> {
        let claim = self.space.claim_for(owner.as_bytes(), &self.key, self.issued, self.until, now);
        let claimed = match (claim, &self.nonces) {
            (Claim::Before, Some(nonces)) => Err(Rejection::new(Reason::DpopNonceRequired)
                .because("an earlier run may have taken it")
                .offering_nonce(nonces.current(now))),
            (claim, _) => claim.or_refuse(self.seen),
        };
        claimed.map_err(|rejection| rejection.of(self.scheme))
    }
}
