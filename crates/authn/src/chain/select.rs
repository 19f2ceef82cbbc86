//! Which alternative a request is for.

use std::sync::Arc;

use portcullis_core::{Reason, Rejection, Scheme};

use super::{Alternative, Evidence};
use crate::chain::addressee::addressee;
use crate::issuers::Issuer;
use crate::place::Place;
use crate::scheme::Authenticator;
use crate::token::Respondents;

/// Kinds of explicit credentials, one bit each.
pub(super) type Kinds = u32;

/// The most kinds one chain can tell apart.
pub(super) const MAX_KINDS: u32 = Kinds::BITS;

/// What tells a credential from others at the same place. It only chooses; whoever is chosen verifies.
#[derive(Clone, Debug)]
pub(crate) enum Addressed {
    /// Nothing does: what is found there is for this authenticator.
    Place,
    /// The issuer a signed token names (JWT-07).
    Issuer(Arc<Issuer>),
    /// What the token begins with, or who it says has issued it (INT-06).
    Provider(Arc<Respondents>),
}

impl Addressed {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Place, Self::Place) => true,
            (Self::Issuer(own), Self::Issuer(other)) => own.id == other.id,
            (Self::Provider(own), Self::Provider(other)) => own == other,
            (Self::Place | Self::Issuer(_) | Self::Provider(_), _) => false,
        }
    }
}

/// Tells what a request brings, and which alternative that is for.
#[derive(Debug, Default)]
pub(super) struct Selector {
    sources: Vec<Source>,
    asked: Vec<Asked>,
}

/// The explicit credentials an alternative asks for.
#[derive(Debug, Default)]
struct Asked {
    /// For each member, the kinds that will do: one for each place its credential may be at.
    members: Vec<Kinds>,
    all: Kinds,
}

impl Asked {
    /// Whether nothing is presented that it does not ask for.
    const fn allows(&self, presented: Kinds) -> bool {
        presented & !self.all == 0
    }

    /// Whether every credential it asks for is presented, and no other.
    fn is_complete(&self, presented: Kinds) -> bool {
        self.allows(presented) && self.members.iter().all(|kinds| kinds & presented != 0)
    }

    /// Whether it is complete with whatever the other is complete with.
    fn takes_all_of(&self, other: &Self) -> bool {
        self.allows(other.all)
            && self.members.iter().all(|own| other.members.iter().any(|kinds| kinds & !own == 0))
    }
}

/// One place where explicit credentials are found.
#[derive(Debug)]
struct Source {
    place: Place,
    scheme: Scheme,
    /// The kinds found there.
    kinds: Vec<(Kinds, Addressed)>,
}

impl Selector {
    /// Looks through all alternatives. `None` if they have more kinds than can be told apart.
    pub(super) fn new(alternatives: &[Alternative]) -> Option<Self> {
        let mut selector = Self::default();
        for alternative in alternatives {
            let mut asked = Asked::default();
            for member in &alternative.members {
                let kinds = selector.kinds_of(member)?;
                if kinds != 0 {
                    asked.members.push(kinds);
                    asked.all |= kinds;
                }
            }
            selector.asked.push(asked);
        }
        Some(selector)
    }

    /// Whether one alternative asks for no other explicit credentials than another, wherever they may be.
    pub(super) fn takes_all_of(&self, one: usize, other: usize) -> bool {
        self.asked.get(one).zip(self.asked.get(other)).is_some_and(|(one, other)| one.takes_all_of(other))
    }

    fn kinds_of(&mut self, member: &Authenticator) -> Option<Kinds> {
        let (Some(places), Some(scheme)) = (member.places(), member.scheme()) else { return Some(0) };
        let addressed = member.addressed();
        let mut kinds = 0;
        for place in places.iter() {
            kinds |= self.kind_at(place, scheme, &addressed)?;
        }
        Some(kinds)
    }

    fn kind_at(&mut self, place: &Place, scheme: Scheme, addressed: &Addressed) -> Option<Kinds> {
        let used: usize = self.sources.iter().map(|source| source.kinds.len()).sum();
        let source = match self.sources.iter_mut().position(|source| source.place == *place) {
            Some(at) => self.sources.get_mut(at)?,
            None => {
                self.sources.push(Source { place: place.clone(), scheme, kinds: Vec::new() });
                self.sources.last_mut()?
            }
        };
        if let Some((kind, _)) = source.kinds.iter().find(|(_, known)| known.is_same(addressed)) {
            return Some(*kind);
        }
        let kind = 1_u32.checked_shl(u32::try_from(used).ok()?)?;
        source.kinds.push((kind, addressed.clone()));
        Some(kind)
    }

    /// The alternative that decides.
    pub(super) fn select<'c>(
        &self,
        alternatives: &'c [Alternative],
        evidence: &Evidence<'_>,
    ) -> Result<&'c Alternative, Rejection> {
        let presented = self.presented(evidence)?;
        let all = || self.asked.iter().zip(alternatives);
        let complete = all()
            .find(|(asked, alternative)| asked.is_complete(presented) && alternative.is_addressed(evidence));
        if let Some((_, alternative)) = complete {
            return Ok(alternative);
        }
        // No alternative is complete. The first that asks for everything there is says what is missing.
        let incomplete = all().find(|(asked, _)| asked.allows(presented)).map(|(_, found)| found);
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
        self.asked.iter().zip(alternatives).find(|(asked, _)| asked.all == 0).map(|(_, found)| found)
    }

    fn presented(&self, evidence: &Evidence<'_>) -> Result<Kinds, Rejection> {
        let mut presented = 0;
        for source in &self.sources {
            let found = source.place.find(evidence.head);
            let found = found.map_err(|error| error.rejection(source.scheme))?;
            if let Some(credential) = found {
                presented |= source.kind(&credential, evidence);
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
        let candidates = self.kinds.iter().map(|(_, addressed)| addressed);
        let at = addressee(credential, candidates, evidence.worker);
        at.and_then(|at| self.kinds.get(at)).map_or(first, |(kind, _)| *kind)
    }
}

impl Alternative {
    /// Whether the ambient credentials it asks for are there.
    fn is_addressed(&self, evidence: &Evidence<'_>) -> bool {
        self.members.iter().all(|member| match member {
            Authenticator::Certificate(certificate) => certificate.is_addressed(evidence),
            Authenticator::Jwt(_)
            | Authenticator::Token(_)
            | Authenticator::ApiKey(_)
            | Authenticator::External(_)
            | Authenticator::Basic(_)
            | Authenticator::Hmac(_)
            | Authenticator::Signature(_)
            | Authenticator::Anonymous(_) => true,
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
