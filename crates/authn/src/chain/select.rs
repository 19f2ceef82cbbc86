//! Which alternative a request is for.

use portcullis_core::{Reason, Rejection, Scheme};

use super::{Alternative, Evidence};
use crate::issuers::Issuer;
use crate::jwt::addressee;
use crate::place::Place;
use crate::scheme::Authenticator;

/// Kinds of explicit credentials, one bit each.
pub(super) type Kinds = u32;

/// The most kinds one chain can tell apart.
pub(super) const MAX_KINDS: u32 = Kinds::BITS;

/// Tells what a request brings, and which alternative that is for.
#[derive(Debug, Default)]
pub(super) struct Selector {
    sources: Vec<Source>,
    /// For each alternative, the explicit credentials it asks for.
    asked: Vec<Kinds>,
}

/// One place where explicit credentials are found.
#[derive(Debug)]
struct Source {
    place: Place,
    scheme: Scheme,
    /// The kinds found there, with the issuer where they are tokens.
    kinds: Vec<(Kinds, Option<std::sync::Arc<Issuer>>)>,
}

impl Selector {
    /// Looks through all alternatives. `None` if they have more kinds than can be told apart.
    pub(super) fn new(alternatives: &[Alternative]) -> Option<Self> {
        let mut selector = Self::default();
        for alternative in alternatives {
            let mut asked = 0;
            for member in &alternative.members {
                asked |= selector.kind_of(member)?;
            }
            selector.asked.push(asked);
        }
        Some(selector)
    }

    /// What an alternative asks for.
    pub(super) fn asked(&self, alternative: usize) -> Kinds {
        self.asked.get(alternative).copied().unwrap_or_default()
    }

    fn kind_of(&mut self, member: &Authenticator) -> Option<Kinds> {
        let (Some(place), Some(scheme)) = (member.place(), member.scheme()) else { return Some(0) };
        let issuer = match member {
            Authenticator::Jwt(jwt) => Some(jwt.issuer()),
            Authenticator::Certificate(_) | Authenticator::ApiKey(_) | Authenticator::Anonymous(_) => None,
        };
        let used: usize = self.sources.iter().map(|source| source.kinds.len()).sum();
        let source = match self.sources.iter_mut().position(|source| source.place == *place) {
            Some(at) => self.sources.get_mut(at)?,
            None => {
                self.sources.push(Source { place: place.clone(), scheme, kinds: Vec::new() });
                self.sources.last_mut()?
            }
        };
        let same = |known: &Option<std::sync::Arc<Issuer>>| {
            known.as_ref().map(|issuer| issuer.id) == issuer.map(|issuer| issuer.id)
        };
        if let Some((kind, _)) = source.kinds.iter().find(|(_, known)| same(known)) {
            return Some(*kind);
        }
        let kind = 1_u32.checked_shl(u32::try_from(used).ok()?)?;
        source.kinds.push((kind, issuer.cloned()));
        Some(kind)
    }

    /// The alternative that decides.
    pub(super) fn select<'c>(
        &self,
        alternatives: &'c [Alternative],
        evidence: &Evidence<'_>,
    ) -> Result<&'c Alternative, Rejection> {
        let presented = self.presented(evidence)?;
        let all = || self.asked.iter().copied().zip(alternatives);
        let complete =
            all().find(|(asked, alternative)| *asked == presented && alternative.is_addressed(evidence));
        if let Some((_, alternative)) = complete {
            return Ok(alternative);
        }
        // No alternative is complete. The first that asks for everything there is says what is missing.
        let incomplete = all().find(|(asked, _)| asked & presented == presented).map(|(_, found)| found);
        match (presented, incomplete) {
            (0, _) => Ok(self.ambient(alternatives, evidence).ok_or(Reason::CredentialsMissing)?),
            (_, Some(alternative)) => Ok(alternative),
            (_, None) => Err(Rejection::new(Reason::CredentialsAmbiguous)
                .because("credentials are presented that no alternative asks for together")),
        }
    }

    /// With no explicit credential, a certificate may still be one that an alternative refuses to know.
    fn ambient<'c>(
        &self,
        alternatives: &'c [Alternative],
        evidence: &Evidence<'_>,
    ) -> Option<&'c Alternative> {
        evidence.certificate?;
        self.asked.iter().zip(alternatives).find(|(asked, _)| **asked == 0).map(|(_, found)| found)
    }

    fn presented(&self, evidence: &Evidence<'_>) -> Result<Kinds, Rejection> {
        let mut presented = 0;
        for source in &self.sources {
            let found = source.place.find(&evidence.head.headers);
            let found = found.map_err(|error| error.rejection(source.scheme))?;
            if let Some(credential) = found {
                presented |= source.kind(credential, evidence);
            }
        }
        Ok(presented)
    }
}

impl Source {
    /// The kind of a credential found here. A token that names none of the issuers is for the first of them, which
    /// says what is wrong with it.
    fn kind(&self, credential: &[u8], evidence: &Evidence<'_>) -> Kinds {
        let first = self.kinds.first().map_or(0, |(kind, _)| *kind);
        if self.kinds.len() <= 1 {
            return first;
        }
        let issuers = self.kinds.iter().filter_map(|(_, issuer)| issuer.as_deref());
        let at = addressee(credential, issuers, evidence).unwrap_or_default();
        self.kinds.get(at).map_or(first, |(kind, _)| *kind)
    }
}

impl Alternative {
    /// Whether the ambient credentials it asks for are there.
    fn is_addressed(&self, evidence: &Evidence<'_>) -> bool {
        self.members.iter().all(|member| match member {
            Authenticator::Certificate(certificate) => certificate.is_addressed(evidence),
            Authenticator::Jwt(_) | Authenticator::ApiKey(_) | Authenticator::Anonymous(_) => true,
        })
    }

    /// Whether another alternative that asks for the same explicit credentials can never be reached behind this
    /// one, because everything ambient it asks for suits this one as well.
    pub(super) fn shadows(&self, later: &Self) -> bool {
        let certificate = |alternative: &'_ Self| {
            alternative.members.iter().position(|member| matches!(member, Authenticator::Certificate(_)))
        };
        let (Some(own), their) = (certificate(self), certificate(later)) else { return true };
        let their = their.and_then(|at| later.members.get(at));
        match (self.members.get(own), their) {
            (Some(Authenticator::Certificate(own)), Some(Authenticator::Certificate(their))) => {
                own.covers(their)
            }
            _ => false,
        }
    }
}
