//! `issuers:`: who may sign tokens, and what their tokens must say.

mod attributes;
mod claims;
mod compile;
mod granted;
mod keys;
mod of_clients;
mod profile;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::json::{Limits, Object, Value};
use portcullis_core::{
    AuthMethod, Identity, Moment, OutboundCertificates, PeerCertificate, Place, Reason, Rejection, Scheme,
};
use portcullis_jose::{
    Algorithm, ClaimRules, CompactJws, Confirmation, IssuerRule, JwkSet, JwsLimits, VerifiedJws,
};
use portcullis_store::{ReplaySpace, Replays};

pub(crate) use attributes::{sole_value, unknown_attribute};
pub use compile::IssuersSpec;
pub(crate) use compile::{read_algorithms, sound};
pub(crate) use granted::granted;
pub use keys::check_url;
pub(crate) use keys::{REFRESH, REFRESH_BOUNDS, SERVE_STALE, SERVE_STALE_MAX, UrlSpec, file, within};
pub use profile::profile_table;

use crate::binding::Demands;
use crate::chain::Use;
use crate::clients::Clients;
use crate::identity::{is_name, is_printable, token_key};
use crate::introspection::{Introspection, Introspections, OF_CLIENT};
use crate::jwt::ClientKeys;
use crate::keys::{CertificateKeys, EntryId, KeySource, KeySources, KeysUnavailable, NoUrl};
use crate::revoked::RevokedTokens;
use crate::tokens::KnownToken;
use attributes::CertificateClaims;
use claims::ClaimTest;
use of_clients::Owner;

/// All issuer entries.
#[derive(Debug, Default)]
pub struct Issuers {
    by_name: BTreeMap<String, Arc<Issuer>>,
    introspected: BTreeMap<String, Arc<Introspection>>,
    defined: Vec<(String, Place)>,
}

impl Issuers {
    /// The entry of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.by_name.get(name)
    }

    /// The entry of that name, if its tokens are introspected.
    pub(crate) fn introspected(&self, name: &str) -> Option<&Arc<Introspection>> {
        self.introspected.get(name)
    }

    /// The lists of revoked tokens there are.
    pub fn revoked(&self) -> impl Iterator<Item = &Arc<RevokedTokens>> {
        let introspected = |name: &&String| !self.by_name.contains_key(*name);
        let others = self.introspected.iter().filter(move |(name, _)| introspected(name));
        let others = others.filter_map(|(_, entry)| entry.terms.revoked.as_ref());
        self.by_name.values().filter_map(|issuer| issuer.revoked.as_ref()).chain(others)
    }

    /// Every name that is defined, also those whose definition has faults, and where.
    pub(crate) fn defined(&self) -> &[(String, Place)] {
        &self.defined
    }
}

/// What entries find their providers with, and what they show them. It outlives a reload.
#[derive(Clone, Copy)]
pub struct Providers<'a> {
    /// Key sets and discovered providers.
    pub keys: &'a KeySources,
    /// Providers that are asked about tokens.
    pub introspections: &'a Introspections,
    /// Our own certificates.
    pub certificates: &'a OutboundCertificates,
    /// What may be used once and has been used.
    pub replays: &'a Replays,
    /// Registered clients, who may sign for themselves.
    pub clients: &'a Clients,
}

/// What an entry asks of its tokens beyond the registered claims, also where they are introspected.
#[derive(Debug)]
pub(crate) struct Terms {
    claims: Vec<ClaimTest>,
    certificate_claims: CertificateClaims,
    cnf: CnfForm,
    bound_to: BoundTo,
    revoked: Option<Arc<RevokedTokens>>,
}

impl Terms {
    /// What the tokens must be bound to, as [`Issuer::demands`].
    pub(crate) fn demands(&self) -> Demands {
        self.bound_to.demands(!self.certificate_claims.is_empty())
    }

    /// What a token is bound to.
    ///
    /// # Errors
    /// A claim does not pass its test, or `cnf` cannot be read.
    pub(crate) fn check_static(&self, claims: &Object) -> Result<Option<Confirmation>, Rejection> {
        self.claims.iter().try_for_each(|test| test.check(claims))?;
        self.cnf.read(claims)
    }

    /// Judges what depends on the request.
    ///
    /// # Errors
    /// A list of revoked tokens names it, or a claim is not what the caller's certificate says.
    pub(crate) fn check_request(
        &self,
        token: &Identity,
        certificate: Option<&PeerCertificate>,
        now: Moment,
    ) -> Result<(), Rejection> {
        if let Some(revoked) = &self.revoked {
            revoked.check(token, now)?;
        }
        self.certificate_claims.check(&token.claims, certificate, now)
    }
}

impl CnfForm {
    fn read(self, claims: &Object) -> Result<Option<Confirmation>, Rejection> {
        Ok(match self {
            Self::Object => Confirmation::of(claims)?,
            Self::ObjectOrText => Confirmation::of_object_or_text(claims)?,
        })
    }
}

/// One entry. SECURITY: keys live inside it; there is no table of keys across issuers (JWT-26).
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) name: Arc<str>,
    pub(crate) id: EntryId,
    pub(crate) rules: ClaimRules,
    algorithms: Vec<Algorithm>,
    key_id: KeyIdRule,
    scope: Option<Arc<str>>,
    claims: Vec<ClaimTest>,
    certificate_claims: CertificateClaims,
    cnf: CnfForm,
    /// What all tokens of this issuer must be bound to, whatever an API asks for.
    bound_to: BoundTo,
    used_once: Option<ReplaySpace>,
    /// Whether its provider is asked about tokens as well, which may be tokens of clients.
    is_asked: bool,
    /// Its tokens that count no more.
    revoked: Option<Arc<RevokedTokens>>,
    keys: Keys,
}

/// What the tokens of an issuer must be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BoundTo {
    /// Nothing, unless they say so themselves.
    Nothing,
    /// The caller's certificate.
    Certificate,
    /// The caller's certificate, or a key the caller proves to hold.
    Holder,
}

impl BoundTo {
    /// The same as a binding understands it; `certificate_needed` where one is needed whatever `cnf` says.
    fn demands(self, certificate_needed: bool) -> Demands {
        Demands {
            certificate: self == Self::Certificate,
            key: false,
            holder: self == Self::Holder,
            certificate_needed,
        }
    }
}

/// In what form `cnf` may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CnfForm {
    Object,
    /// Also as text that holds the object (WS-08).
    ObjectOrText,
}

/// Whether a token must name its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyIdRule {
    Optional,
    /// When the set has more than one key.
    WhenSeveral,
    Required,
}

impl KeyIdRule {
    /// The word in a policy file.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::WhenSeveral => "when_several",
            Self::Required => "required",
        }
    }
}

#[derive(Debug)]
enum Keys {
    Fixed(JwkSet),
    Fetched(KeySource),
    /// Fetched for each caller's certificate.
    ByCertificate(CertificateKeys),
    /// Those of registered clients, who sign for themselves.
    OfClients(Arc<ClientKeys>),
}

/// The generation of keys that never change: what does change is the entry they belong to.
const FIXED: u64 = 0;

/// Why no key verified a token. To the caller these are one refusal (ANS-06).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum SignatureError {
    #[error("the issuer's tokens are not signed with this algorithm")]
    AlgorithmRefused,
    #[error("the token does not name its key")]
    KeyUnnamed,
    #[error("no key of that name")]
    KeyUnknown,
    #[error("the key does not fit the algorithm, or no key fits a token that does not name one")]
    NoKeyFits,
    #[error("no key of that name, and the token says it is from another issuer")]
    OtherIssuer,
    #[error("no key verifies the signature")]
    Wrong,
    #[error(transparent)]
    Unavailable(#[from] KeysUnavailable),
    #[error(transparent)]
    NoUrl(#[from] NoUrl),
}

impl From<SignatureError> for Rejection {
    fn from(error: SignatureError) -> Self {
        let reason = match error {
            SignatureError::AlgorithmRefused => Reason::TokenAlgorithmRefused,
            // The same answer as for a wrong signature, so that nobody learns which keys exist (ANS-06).
            SignatureError::OtherIssuer => Reason::TokenSignatureInvalid,
            SignatureError::KeyUnnamed
            | SignatureError::KeyUnknown
            | SignatureError::NoKeyFits
            | SignatureError::Wrong => Reason::TokenSignatureInvalid,
            SignatureError::NoUrl(NoUrl::CertificateMissing) => Reason::CertificateMissing,
            SignatureError::NoUrl(NoUrl::Attribute(_)) => Reason::CertificateRefused,
            SignatureError::Unavailable(_) | SignatureError::NoUrl(NoUrl::Trust(_)) => {
                return Self::new(Reason::KeysUnavailable)
                    .because(error.to_string())
                    .retry_after(Duration::from_secs(1));
            }
        };
        Self::new(reason).because(error.to_string())
    }
}

impl Issuer {
    /// Whether a token that says this of its issuer is one of this entry's. For choosing among the entries of a
    /// chain, on the word of a token nobody has verified.
    pub(crate) fn is_named(&self, iss: Option<&str>) -> bool {
        match (&self.rules.issuer, iss) {
            (IssuerRule::Required(expected) | IssuerRule::Optional(expected), Some(iss)) => {
                **expected == *iss
            }
            (IssuerRule::Optional(_) | IssuerRule::Unchecked, None)
            | (IssuerRule::OfCertificate, Some(_)) => true,
            (IssuerRule::Required(_) | IssuerRule::OfCertificate, None)
            | (IssuerRule::Unchecked, Some(_)) => false,
        }
    }

    /// Whether its keys are found by the caller's certificate, so that only verified and pinned ones may come here.
    pub(crate) const fn needs_pinned_certificate(&self) -> bool {
        matches!(self.keys, Keys::ByCertificate(_))
    }

    /// Whether registered clients sign its tokens, each its own.
    pub(crate) const fn is_of_clients(&self) -> bool {
        matches!(self.keys, Keys::OfClients(_))
    }

    /// What its tokens must be bound to. One that is nothing without a certificate speaks of one in its own way.
    pub(crate) fn demands(&self) -> Demands {
        self.bound_to.demands(self.needs_pinned_certificate() || !self.certificate_claims.is_empty())
    }

    /// The generation of the keys for a caller with that certificate, if there are any that count now.
    pub(crate) fn generation(&self, certificate: Option<&PeerCertificate>, now: Moment) -> Option<u64> {
        match &self.keys {
            Keys::Fixed(_) | Keys::OfClients(_) => Some(FIXED),
            Keys::Fetched(source) => source.generation(now),
            Keys::ByCertificate(keys) => keys.generation(certificate, now),
        }
    }

    /// Judges what depends on the request, for a token that is otherwise good: never remembered with it.
    pub(crate) fn check_request(
        &self,
        token: &KnownToken,
        certificate: Option<&PeerCertificate>,
        now: Moment,
    ) -> Result<(), Rejection> {
        token.times.check(&self.rules, now)?;
        if let Some(revoked) = &self.revoked {
            revoked.check(&token.identity, now)?;
        }
        self.certificate_claims.check(&token.identity.claims, certificate, now)
    }

    /// Whether its tokens may be used once.
    pub(crate) const fn is_used_once(&self) -> bool {
        self.used_once.is_some()
    }

    /// What a request with this token uses up, if it may be used once.
    pub(crate) fn used(&self, token: &KnownToken, scheme: Scheme) -> Option<Use> {
        let space = self.used_once.clone()?;
        // The rules demand all three claims where tokens are used once.
        let claims = &token.identity.claims;
        let text = |name: &str| claims.get(name).and_then(Value::as_text).map_or("", |text| &**text);
        let issued = token.times.issued_seconds().unwrap_or_default();
        let until_ms = token.times.unusable_from_ms(&self.rules).unwrap_or(i64::MAX);
        // SECURITY: whose token it is, whichever entry has verified it: one of another name would take it again. Where
        // nothing says whose, it is the entry's. No text holds the bytes between the two, for JSON's is UTF-8.
        let (owner, between): (_, &[u8]) = match (&self.rules.issuer, text("iss")) {
            (IssuerRule::Unchecked, _) | (_, "") => (&*self.name, &[0xff, 0xff]),
            (_, iss) => (iss, &[0xff]),
        };
        let mut key = [owner.as_bytes(), between, text("jti").as_bytes()].concat();
        if let (true, Some(client)) = (self.is_of_clients(), &token.identity.client) {
            // SECURITY: clients that sign for themselves may all say the same issuer, and none may use up another's.
            key.extend([&[0xff], client.name.as_bytes()].concat());
        }
        let until = until_ms.saturating_add(999).div_euclid(1000);
        let (seen, over) = (Reason::TokenReplayed, Reason::TokenExpired);
        Some(Use { space, key, issued, until, scheme, seen, over, nonces: None })
    }

    /// Verifies a token as far as neither the time nor the connection matters, and says with which generation of
    /// keys. What is found may be remembered for exactly these bytes.
    pub(crate) async fn verify(
        &self,
        token: &[u8],
        certificate: Option<&PeerCertificate>,
        now: Moment,
    ) -> Result<(KnownToken, u64), Rejection> {
        let jws = CompactJws::parse(token, JwsLimits::default())?;
        let (verified, generation, owner) = self.check_signature(&jws, certificate, now).await?;
        let claims = verified.claims(Limits::default())?;
        let times = self.rules.check_static(jws.header(), &claims)?;
        self.claims.iter().try_for_each(|test| test.check(&claims))?;
        let confirmation = self.cnf.read(&claims)?;
        let ends_ms = times.unusable_from_ms(&self.rules);
        let published = owner.as_ref().and_then(|owner| owner.published);
        let mut identity = match owner {
            Some(Owner { client, .. }) => self.identity_of_client(claims, ends_ms, client)?,
            None => self.identity(claims, ends_ms)?,
        };
        identity.key_id = verified.key_id().filter(|key_id| is_printable(key_id)).cloned();
        let known = KnownToken::new(Arc::new(identity), times, ends_ms, confirmation);
        Ok((known.by_published(published), generation))
    }

    /// Verifies the signature of something else than a token that this issuer has signed.
    ///
    /// # Errors
    /// As [`Self::verify`], as far as it is about the signature.
    pub(crate) async fn verify_signature<'t>(
        &self,
        jws: &CompactJws<'t>,
        now: Moment,
    ) -> Result<VerifiedJws<'t>, Rejection> {
        let (verified, _, _) = self.check_signature(jws, None, now).await?;
        Ok(verified)
    }

    async fn check_signature<'t>(
        &self,
        jws: &CompactJws<'t>,
        certificate: Option<&PeerCertificate>,
        now: Moment,
    ) -> Result<(VerifiedJws<'t>, u64, Option<Owner>), SignatureError> {
        if !self.algorithms.contains(&jws.header().algorithm) {
            return Err(SignatureError::AlgorithmRefused);
        }
        let held;
        let source = match &self.keys {
            Keys::Fixed(set) => return Ok((self.try_keys(set, jws)?, FIXED, None)),
            Keys::OfClients(keys) => {
                // Boxed: a set that is fetched is waited for, which is rare.
                let (verified, owner) = Box::pin(self.try_clients(keys, jws, now)).await?;
                return Ok((verified, FIXED, Some(owner)));
            }
            Keys::Fetched(source) => source,
            Keys::ByCertificate(keys) => {
                held = keys.find(certificate, now)?;
                &held.source
            }
        };
        let (verified, generation) = self.try_source(source, jws, now).await?;
        Ok((verified, generation, None))
    }

    /// Verifies a token with a set that is fetched, and says with which generation of it.
    async fn try_source<'t>(
        &self,
        source: &KeySource,
        jws: &CompactJws<'t>,
        now: Moment,
    ) -> Result<(VerifiedJws<'t>, u64), SignatureError> {
        let set = match source.current(now) {
            Some(set) => set,
            None => source.first(now).await?,
        };
        match (self.try_keys(&set.keys, jws), &jws.header().key_id) {
            (Ok(verified), _) => Ok((verified, set.generation)),
            (Err(SignatureError::KeyUnknown), Some(key_id)) => {
                // A token that does not even claim to be from here is no reason to ask for newer keys.
                if self.is_foreign(jws) {
                    return Err(SignatureError::OtherIssuer);
                }
                let newer = source.without(key_id, set.generation, now).await?;
                let newer = newer.ok_or(SignatureError::KeyUnknown)?;
                Ok((self.try_keys(&newer.keys, jws)?, newer.generation))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Whether a token nobody has verified names another issuer. It is only ever refused for that.
    fn is_foreign(&self, jws: &CompactJws<'_>) -> bool {
        let claims = jws.unverified_claims(Limits::default());
        let iss = claims.as_ref().ok().and_then(|claims| claims.get("iss")).and_then(Value::as_text);
        iss.is_some_and(|iss| !self.is_named(Some(iss)))
    }

    fn try_keys<'t>(&self, set: &JwkSet, jws: &CompactJws<'t>) -> Result<VerifiedJws<'t>, SignatureError> {
        let header = jws.header();
        let key_id = header.key_id.as_deref();
        let named = match self.key_id {
            KeyIdRule::Optional => true,
            KeyIdRule::WhenSeveral => key_id.is_some() || set.len() <= 1,
            KeyIdRule::Required => key_id.is_some(),
        };
        if !named {
            return Err(SignatureError::KeyUnnamed);
        }
        let mut candidates = set.candidates(key_id, header.algorithm).peekable();
        if candidates.peek().is_none() {
            // A name that is there, for another algorithm, is no reason to ask for newer keys.
            let known = key_id.is_none_or(|key_id| set.key_ids().any(|known| **known == *key_id));
            return Err(if known { SignatureError::NoKeyFits } else { SignatureError::KeyUnknown });
        }
        candidates.find_map(|key| jws.verify(key).ok()).ok_or(SignatureError::Wrong)
    }

    fn identity(&self, claims: Object, ends_ms: Option<i64>) -> Result<Identity, Rejection> {
        // SECURITY: nobody is called as the clients are that have tokens for themselves.
        let fits = |name: &&Arc<str>| is_name(name) && !(self.is_asked && name.starts_with(OF_CLIENT));
        let subject = claims.get("sub").and_then(Value::as_text).filter(fits).cloned();
        let subject = subject.ok_or_else(|| {
            Rejection::new(Reason::TokenClaimInvalid).because("`sub` is missing or cannot name a caller")
        })?;
        Ok(Identity {
            method: AuthMethod::Jwt,
            key: token_key(&self.name, &subject),
            subject,
            issuer: Some(self.name.clone()),
            client: None,
            key_id: None,
            scopes: granted(&claims, self.scope.as_deref()),
            claims: Arc::new(claims),
            certificate: None,
            // The end itself is the first moment at which the token does not count.
            expires_at: ends_ms.map(|end| end.saturating_sub(1).div_euclid(1000)),
        })
    }
}
