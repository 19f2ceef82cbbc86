//! What a request uses up: a token, a proof, a signature.

use std::cell::RefCell;

use portcullis_core::{Clock, Reason, Rejection, Scheme};
use portcullis_jose::digest::sha256;
use portcullis_store::{Claim, ReplaySpace, SingleUse, claim_all};

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
    /// Why it is refused if it ends before it is claimed.
    pub(crate) over: Reason,
    /// What helps where an earlier run may have taken it: a nonce shows the next one to be new.
    pub(crate) nonces: Option<Nonces>,
}

impl Uses {
    /// Notes it. What several members of an alternative would use up is one thing, and used up once: the proof that
    /// comes with a token both of them judge. It is held to the stricter of what they say.
    pub(super) fn note(&self, mut used: Use) {
        // As long as its caller makes it; what remembers it, here and for other gateways, has no need of that.
        used.key = sha256(&used.key).to_vec();
        let mut noted = self.0.borrow_mut();
        match noted.iter_mut().find(|other| other.space == used.space && other.key == used.key) {
            Some(other) => {
                other.issued = other.issued.min(used.issued);
                other.until = other.until.max(used.until);
            }
            None => noted.push(used),
        }
    }

    /// Claims everything, or nothing. `owner` is whose memory it takes.
    ///
    /// SECURITY: by the clock as it stands now, and not when the request was opened: until its credentials were all found
    /// good, content may have been waited for, or a service of somebody else's. What has ended meanwhile may be forgotten,
    /// and would be fresh again by the older reading.
    ///
    /// # Errors
    /// Something has been used before, or that cannot be known, or it has ended.
    pub(super) async fn claim(&self, owner: &str, clock: &Clock) -> Result<(), Rejection> {
        let uses = self.0.take();
        if uses.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = uses.iter().map(Use::single).collect();
        let Err((at, claim)) = claim_all(owner.as_bytes(), &all, clock).await else { return Ok(()) };
        match uses.get(at) {
            Some(used) => used.judge(claim, clock),
            None => Err(Rejection::new(Reason::InternalError)),
        }
    }
}

impl Use {
    fn single(&self) -> SingleUse<'_> {
        SingleUse { space: &self.space, key: &self.key, issued: self.issued, until: self.until }
    }

    fn judge(&self, claim: Claim, clock: &Clock) -> Result<(), Rejection> {
        let judged = match (claim, &self.nonces) {
            (Claim::Before, Some(nonces)) => Err(Rejection::new(Reason::DpopNonceRequired)
                .because("an earlier run may have taken it")
                .offering_nonce(nonces.current(clock.now()))),
            (claim, _) => claim.or_refuse(self.seen, self.over),
        };
        judged.map_err(|rejection| rejection.of(self.scheme))
    }
}
