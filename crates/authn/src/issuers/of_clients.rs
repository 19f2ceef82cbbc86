//! Tokens that registered clients sign themselves: which client one leads to, and with whose key it is verified.

use std::sync::Arc;

use portcullis_core::json::{Limits, Object, Value};
use portcullis_core::{Client, Identity, Moment, Reason, Rejection};
use portcullis_jose::{CompactJws, VerifiedJws};

use super::{Issuer, KeyIdRule, Keys, SignatureError};
use crate::jwt::{ClientKey, ClientKeys, PublishedKeys};
use crate::tokens::KnownToken;

/// The client whose key has verified a token.
pub(super) struct Owner {
    pub(super) client: Arc<Client>,
    /// The generation of the set, where the client publishes it.
    pub(super) published: Option<u64>,
}

impl Owner {
    fn of(client: &Arc<Client>) -> Self {
        Self { client: client.clone(), published: None }
    }
}

impl Issuer {
    /// Finds the one client a token leads to, by the key it names or else by its subject, and verifies it with that
    /// client's key.
    ///
    /// SECURITY: where the subject is a client who publishes its keys, none but that client's own are tried, whatever
    /// the token says of its key: another client may have given a key of its own the same name.
    pub(super) async fn try_clients<'t>(
        &self,
        keys: &ClientKeys,
        jws: &CompactJws<'t>,
        now: Moment,
    ) -> Result<(VerifiedJws<'t>, Owner), SignatureError> {
        let header = jws.header();
        if self.key_id == KeyIdRule::Required && header.key_id.is_none() {
            return Err(SignatureError::KeyUnnamed);
        }
        let claims = jws.unverified_claims(Limits::default()).ok();
        let subject = claims.as_ref().and_then(|claims| claims.get("sub")).and_then(Value::as_text);
        let (key_id, subject) = (header.key_id.as_deref(), subject.map(AsRef::as_ref));
        let verifies = |own: &&ClientKey| Some((jws.verify(&own.key).ok()?, Owner::of(&own.client)));
        if let Some(PublishedKeys { source, client, .. }) = keys.published(subject) {
            let held = keys.candidates_of(&client.name, key_id, header.algorithm);
            if let Some(verified) = held.iter().find_map(verifies) {
                return Ok(verified);
            }
            let tried = self.try_source(source, jws, now).await;
            if let Err(SignatureError::KeyUnknown | SignatureError::NoKeyFits) = tried {
                stand_in(jws);
            }
            let (verified, generation) = tried?;
            return Ok((verified, Owner { client: client.clone(), published: Some(generation) }));
        }
        let candidates = keys.candidates(key_id, subject, header.algorithm);
        if candidates.is_empty() {
            stand_in(jws);
            return Err(SignatureError::KeyUnknown);
        }
        candidates.iter().find_map(verifies).ok_or(SignatureError::Wrong)
    }

    /// Whether a token that is remembered would still be verified by the same keys: what clients publish changes under
    /// one generation of the entry (JKS-08, JKS-09).
    pub(crate) fn still_holds(&self, known: &KnownToken, now: Moment) -> bool {
        let (Keys::OfClients(keys), Some(generation)) = (&self.keys, known.published) else { return true };
        let client = known.identity.client.as_ref().map(|client| &*client.name);
        keys.published(client).is_some_and(|published| published.source.generation(now) == Some(generation))
    }

    /// The client itself. SECURITY: it signs for itself, so it may name nobody else as the subject, and grants itself
    /// no scope: what it may do is said by its own record.
    pub(super) fn identity_of_client(
        &self,
        claims: Object,
        ends_ms: Option<i64>,
        client: Arc<Client>,
    ) -> Result<Identity, Rejection> {
        let identity = self.identity(claims, ends_ms)?;
        if identity.subject != client.name {
            return Err(Rejection::new(Reason::TokenClaimInvalid)
                .because("`sub` is not the client whose key signed the token"));
        }
        Ok(Identity {
            key: format!("client:{}", client.name).into(),
            client: Some(client),
            scopes: Arc::default(),
            ..identity
        })
    }
}

/// Does the work of a verification where there is no key to try. Whatever it says, nobody's signature is good.
fn stand_in(jws: &CompactJws<'_>) {
    let _ = ClientKeys::stand_in(jws.header().algorithm).map(|key| jws.verify(key).is_ok());
}
