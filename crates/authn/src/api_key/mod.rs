//! `api_key`: a key of a registered client, in a header, in the query or in a cookie. Of a key nothing is public but the
//! name its line may give it.

mod credential;
mod issued;
mod key;
mod spec;
mod table;
#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::sync::Arc;

use portcullis_core::{AuthMethod, Client, Identity, Reason, Rejection, Scheme};

pub(crate) use credential::ApiKeyCredential;
pub use issued::{CannotIssue, IssuedKeys, NewKey};
pub use key::{
    BadKeyName, KeyHash, NotAKeyHash, check_key_name, generate_key, hash_key, is_mistyped, random_id,
};
pub(crate) use spec::ApiKeySpec;
pub use spec::PepperSpec;
pub use table::KeyTerms;
pub(crate) use table::{ApiKeys, KeyOwner};

use crate::certificate::Unbound;
use crate::chain::{Evidence, Outcome};
use crate::clients::identity_of;
use crate::guard::Claim;
use crate::place::Places;

/// The longest key that is looked at, in bytes.
const MAX_KEY: usize = 512;

/// The authenticator.
#[derive(Debug)]
pub(crate) struct ApiKey {
    /// The API it guards.
    api: Arc<str>,
    places: Places,
    table: Arc<ApiKeys>,
}

impl ApiKey {
    /// Where the key is looked for.
    pub(crate) const fn places(&self) -> &Places {
        &self.places
    }

    /// A key has no name beside itself: repeating one is one failure, trying others is many.
    pub(crate) fn claim(&self, evidence: &Evidence<'_>, into: &mut impl Hasher) -> Claim {
        match self.places.find(evidence.head) {
            Ok(Some(found)) => {
                into.write(&found.credential);
                Claim::Named
            }
            Ok(None) | Err(_) => Claim::Absent,
        }
    }

    /// Looks the key up among those of all declared clients.
    pub(crate) fn authenticate(&self, evidence: &Evidence<'_>) -> Outcome {
        let refused = |reason: Reason, why: &str| {
            Outcome::Rejected(Rejection::new(reason).of(Scheme::ApiKey).because(why))
        };
        let key = match self.places.find(evidence.head) {
            Ok(Some(found)) => found.credential,
            Ok(None) => return Outcome::Absent,
            Err(error) => return Outcome::Rejected(error.rejection(Scheme::ApiKey)),
        };
        if key.len() > MAX_KEY || !key.iter().all(u8::is_ascii_graphic) {
            return refused(Reason::CredentialsMalformed, "the key is too long or has characters no key has");
        }
        if is_mistyped(&key) {
            return refused(Reason::ApiKeyInvalid, "the checksum of the key is wrong");
        }
        let Some(found) = self.table.find(&key) else {
            return refused(Reason::ApiKeyInvalid, "no client has this key");
        };
        let owner = found.owner();
        // SECURITY: a key that does not count here and now is refused like one that never was: who found it somewhere
        // learns nothing about when or where to try again (ANS-06). The log says why.
        let now = evidence.now.unix_seconds();
        if let Err(why) = owner.terms.judge(&self.api, evidence.connection.address(), now) {
            let name = &owner.identity.subject;
            return refused(Reason::ApiKeyInvalid, &format!("{why}; it is client `{name}`'s"));
        }
        // SECURITY: whoever has the key alone may have found it, and learns not even that it is one (ANS-06). Who holds the
        // certificate as well may learn what is wrong with that.
        let certificate = evidence.certificate.map(AsRef::as_ref);
        match owner.bound_to.as_ref().map(|bound_to| bound_to.check(certificate, evidence.now)) {
            None | Some(Ok(())) => {}
            Some(Err(why @ Unbound::Objected(reason))) => return refused(reason, &why.to_string()),
            Some(Err(why @ (Unbound::None | Unbound::Another(_)))) => {
                let name = &owner.identity.subject;
                return refused(Reason::ApiKeyInvalid, &format!("{why}; it is client `{name}`'s"));
            }
        }
        // The key was right, so its owner may learn that it is their registration that ended.
        if owner.client_expires_at.is_some_and(|at| now >= at) {
            return refused(Reason::ClientInactive, "the client has expired");
        }
        found.note_use(now);
        Outcome::Verified(owner.identity.clone(), None)
    }
}

/// The client, until its key or itself ends.
fn identity_until(
    client: &Arc<Client>,
    method: AuthMethod,
    name: Option<Arc<str>>,
    expires_at: Option<i64>,
) -> Arc<Identity> {
    let identity = identity_of(client, method, name);
    let Some(last) = expires_at.map(|end| end.saturating_sub(1)) else { return identity };
    let expires_at = Some(identity.expires_at.map_or(last, |end| end.min(last)));
    Arc::new(Identity { expires_at, ..Arc::unwrap_or_clone(identity) })
}
