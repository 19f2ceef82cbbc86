//! `basic`: user name and password of a registered client (RFC 7617), in `Authorization` or in the content.
//!
//! What is slow about it happens elsewhere: [`PasswordChecks`] has threads of its own and room for so many waiting
//! requests and no more, and a worker remembers for a short time which passwords were right ([`PasswordMemory`]).

mod checks;
mod credential;
mod extraction;
mod memory;
mod spec;
#[cfg(test)]
mod tests;
mod user_pass;
mod users;

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Challenge, Identity, Reason, Rejection, Scheme};

pub use checks::{CheckCounts, PasswordChecks};
pub(crate) use credential::BasicCredential;
pub(crate) use memory::PasswordMemory;
pub(crate) use spec::BasicSpec;
pub use user_pass::{UserPass, UserPassError};
pub(crate) use users::Users;

use crate::chain::{Evidence, Outcome};
use crate::guard::Claim;
use crate::place::Places;
use checks::Busy;
use extraction::Extraction;

/// The authenticator.
#[derive(Debug)]
pub(crate) struct Basic {
    realm: Arc<str>,
    source: Source,
    /// Whether a password counts without a name.
    empty_username: bool,
    /// How long a password that was right need not be checked again.
    remember: Duration,
    users: Arc<Users>,
    checks: PasswordChecks,
}

/// Where name and password are.
#[derive(Debug)]
enum Source {
    Head(Places),
    Content(Extraction),
}

impl Basic {
    /// Where the credential is looked for in the head.
    pub(crate) const fn places(&self) -> Option<&Places> {
        match &self.source {
            Source::Head(places) => Some(places),
            Source::Content(_) => None,
        }
    }

    /// Whether name and password are in the content.
    pub(crate) const fn reads_content(&self) -> bool {
        matches!(self.source, Source::Content(_))
    }

    /// RFC 7617 section 2.1: names and passwords are UTF-8.
    pub(crate) fn challenge(&self) -> Challenge {
        let challenge = Challenge::new(Scheme::Basic, self.realm.clone()).with("charset", "UTF-8");
        match &self.source {
            Source::Head(_) => challenge,
            Source::Content(_) => challenge.with("in", "body"),
        }
    }

    /// The name of the user. SECURITY: also of one in the content, which is read for it: were all of them one name, whoever
    /// has a good password of their own would have every guess at others forgiven, and make their neighbours wait.
    pub(crate) async fn claim(&self, evidence: &Evidence<'_>, into: &mut impl Hasher) -> Claim {
        let Ok(Some(given)) = self.given(evidence).await else { return Claim::Absent };
        let mark = self.users.find(given.user()).and_then(|user| self.checks.mark(&user.hash, &given));
        if mark.is_some_and(|mark| evidence.worker.passwords().knows(&mark, evidence.now)) {
            return Claim::Known;
        }
        into.write(given.user().as_bytes());
        Claim::Named
    }

    /// Checks name and password. Waits for its turn among others, and for the check.
    pub(crate) async fn authenticate(&self, evidence: &Evidence<'_>) -> Outcome {
        let given = match self.given(evidence).await {
            Ok(Some(given)) => given,
            Ok(None) => return Outcome::Absent,
            Err(rejection) => return Outcome::Rejected(rejection.of(Scheme::Basic)),
        };
        match self.judge(&given, evidence).await {
            Ok(identity) => Outcome::Verified(identity, None),
            Err(rejection) => Outcome::Rejected(rejection.of(Scheme::Basic)),
        }
    }

    async fn given(&self, evidence: &Evidence<'_>) -> Result<Option<UserPass>, Rejection> {
        let given = match &self.source {
            Source::Head(places) => {
                let found = places.find(evidence.head).map_err(|error| error.rejection(Scheme::Basic))?;
                found.map(|found| UserPass::parse(&found.credential)).transpose()?
            }
            Source::Content(extraction) => extraction.read(&evidence.content().await?)?,
        };
        Ok(given.map(|given| given.with_name(self.empty_username)).transpose()?)
    }

    async fn judge(&self, given: &UserPass, evidence: &Evidence<'_>) -> Result<Arc<Identity>, Rejection> {
        let refused = |why: &str| Rejection::new(Reason::PasswordInvalid).because(why);
        let Some(user) = self.users.find(given.user()) else {
            // SECURITY: a name nobody has costs what somebody's costs, and always the same for the same name. What
            // comes of it does not matter, not even if it should fit (BAS-01).
            if let Some(somebody) = self.users.stand_in(given.user(), &self.checks) {
                evidence.worker.passwords().verify(&self.checks, &somebody.hash, given).await?;
            }
            return Err(refused("nobody has this user name"));
        };
        let mark = self.checks.mark(&user.hash, given);
        let memory = evidence.worker.passwords();
        if !mark.is_some_and(|mark| memory.is_remembered(&mark, evidence.now)) {
            if !memory.verify(&self.checks, &user.hash, given).await? {
                return Err(refused("the password is wrong"));
            }
            if let Some(mark) = mark {
                memory.remember(mark, evidence.now, self.remember);
            }
        }
        // The password was right, so its owner may learn that it is their registration that ended.
        if user.client_expires_at.is_some_and(|end| evidence.now.unix_seconds() >= end) {
            return Err(Rejection::new(Reason::ClientInactive).because("the client has expired"));
        }
        Ok(user.identity.clone())
    }
}

impl From<Busy> for Rejection {
    fn from(busy: Busy) -> Self {
        Self::new(Reason::PasswordChecksBusy).because(busy.to_string()).retry_after(Duration::from_secs(1))
    }
}

impl From<UserPassError> for Rejection {
    fn from(error: UserPassError) -> Self {
        Self::new(Reason::CredentialsMalformed).because(error.to_string())
    }
}
