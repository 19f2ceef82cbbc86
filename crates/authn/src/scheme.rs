//! The closed set of authenticators. A new one is a folder of its own and one variant in each of the two enums
//! here; the compiler lists the rest.

use std::hash::Hasher;
use std::sync::Arc;

use http::HeaderValue;
use portcullis_core::document::{Entry, Node};
use portcullis_core::{
    AuthMethod, Challenge, Diagnostic, Faults, Place as FilePlace, Scheme, diagnostic::nearest,
};

use crate::anonymous::{Anonymous, AnonymousSpec};
use crate::api_key::{ApiKey, ApiKeySpec};
use crate::basic::{Basic, BasicSpec};
use crate::certificate::{CertificateSpec, ClientCertificate};
use crate::chain::{Addressed, Compiling, Evidence, Outcome};
use crate::external::{External, ExternalSpec};
use crate::guard::Claim;
use crate::hmac::{Hmac, HmacSpec};
use crate::identity::IdentityRule;
use crate::jwt::{Jwt, JwtSpec};
use crate::place::Places;
use crate::signature::{Signature, SignatureSpec};
use crate::token::{Token, TokenSpec};

/// An authenticator as written in a chain, with the place of its name.
#[derive(Clone, Debug)]
pub(crate) enum AuthenticatorSpec {
    Jwt(JwtSpec, FilePlace),
    Token(TokenSpec, FilePlace),
    Certificate(CertificateSpec, FilePlace),
    ApiKey(ApiKeySpec, FilePlace),
    Basic(BasicSpec, FilePlace),
    /// Boxed: it says more than all the others together.
    External(Box<ExternalSpec>, FilePlace),
    Hmac(HmacSpec, FilePlace),
    Signature(SignatureSpec, FilePlace),
    Anonymous(AnonymousSpec, FilePlace),
}

/// An authenticator at run time.
#[derive(Debug)]
pub(crate) enum Authenticator {
    Jwt(Jwt),
    Token(Token),
    Certificate(ClientCertificate),
    ApiKey(ApiKey),
    Basic(Basic),
    External(Box<External>),
    Hmac(Hmac),
    Signature(Signature),
    Anonymous(Anonymous),
}

/// The words that name authenticators.
pub(crate) const WORDS: &[&str] =
    &["jwt", "token", "certificate", "api_key", "basic", "hmac", "signature", "external", "anonymous"];

/// The words of `identity_from`: the authenticators whose identity can name a caller.
pub(crate) const NAMING: &[(&str, AuthMethod)] = &[
    ("jwt", AuthMethod::Jwt),
    ("token", AuthMethod::Token),
    ("certificate", AuthMethod::Certificate),
    ("api_key", AuthMethod::ApiKey),
    ("basic", AuthMethod::Basic),
    ("external", AuthMethod::External),
    ("hmac", AuthMethod::Hmac),
    ("signature", AuthMethod::Signature),
];

impl AuthenticatorSpec {
    /// Reads `jwt: { … }`.
    pub(crate) fn read(entry: &Entry, faults: &mut Faults) -> Option<Self> {
        let (node, place): (&Node, _) = (&entry.value, entry.key.place);
        match entry.key.value.as_str() {
            "jwt" => JwtSpec::read(node, faults).map(|spec| Self::Jwt(spec, place)),
            "token" => TokenSpec::read(node, faults).map(|spec| Self::Token(spec, place)),
            "certificate" => CertificateSpec::read(node, faults).map(|spec| Self::Certificate(spec, place)),
            "api_key" => ApiKeySpec::read(node, faults).map(|spec| Self::ApiKey(spec, place)),
            "basic" => BasicSpec::read(node, faults).map(|spec| Self::Basic(spec, place)),
            "external" => ExternalSpec::read(node, faults).map(|spec| Self::External(Box::new(spec), place)),
            "hmac" => HmacSpec::read(node, faults).map(|spec| Self::Hmac(spec, place)),
            "signature" => SignatureSpec::read(node, faults).map(|spec| Self::Signature(spec, place)),
            "anonymous" => AnonymousSpec::read(node, faults).map(|spec| Self::Anonymous(spec, place)),
            other => {
                faults.push(unknown(other, place, WORDS));
                None
            }
        }
    }

    pub(crate) fn compile(&self, compiling: &Compiling<'_>, faults: &mut Faults) -> Option<Authenticator> {
        match self {
            Self::Jwt(spec, _) => spec.compile(compiling, faults).map(Authenticator::Jwt),
            Self::Token(spec, _) => spec.compile(compiling, faults).map(Authenticator::Token),
            Self::Certificate(spec, _) => {
                let owners = compiling.clients.certificates();
                spec.compile(compiling.trust_anchors, owners, faults).map(Authenticator::Certificate)
            }
            Self::ApiKey(spec, _) => spec.compile(compiling, faults).map(Authenticator::ApiKey),
            Self::Basic(spec, _) => spec.compile(compiling, faults).map(Authenticator::Basic),
            Self::External(spec, _) => {
                spec.compile(compiling, faults).map(|external| Authenticator::External(Box::new(external)))
            }
            Self::Hmac(spec, _) => {
                spec.compile(compiling.clients.hmac_keys(), compiling, faults).map(Authenticator::Hmac)
            }
            Self::Signature(spec, _) => {
                let keys = compiling.clients.signature_keys();
                spec.compile(keys, compiling, faults).map(Authenticator::Signature)
            }
            Self::Anonymous(spec, _) => Some(Authenticator::Anonymous(spec.compile())),
        }
    }

    pub(crate) const fn method(&self) -> AuthMethod {
        match self {
            Self::Jwt(..) => AuthMethod::Jwt,
            Self::Token(..) => AuthMethod::Token,
            Self::Certificate(..) => AuthMethod::Certificate,
            Self::ApiKey(..) => AuthMethod::ApiKey,
            Self::Basic(..) => AuthMethod::Basic,
            Self::External(..) => AuthMethod::External,
            Self::Hmac(..) => AuthMethod::Hmac,
            Self::Signature(..) => AuthMethod::Signature,
            Self::Anonymous(..) => AuthMethod::Anonymous,
        }
    }

    /// Where its name is written.
    pub(crate) const fn place(&self) -> FilePlace {
        match self {
            Self::Jwt(_, place)
            | Self::Token(_, place)
            | Self::Certificate(_, place)
            | Self::ApiKey(_, place)
            | Self::Basic(_, place)
            | Self::External(_, place)
            | Self::Hmac(_, place)
            | Self::Signature(_, place)
            | Self::Anonymous(_, place) => *place,
        }
    }
}

impl Authenticator {
    /// Judges what the request brings for it. `rule` is given where it names the caller and nothing else that is
    /// proven matters for the name.
    pub(crate) async fn authenticate(&self, evidence: &Evidence<'_>, rule: Option<&IdentityRule>) -> Outcome {
        match self {
            Self::Jwt(jwt) => jwt.authenticate(evidence, rule).await,
            Self::Token(token) => token.authenticate(evidence, rule).await,
            Self::Certificate(certificate) => certificate.authenticate(evidence),
            Self::ApiKey(key) => key.authenticate(evidence),
            // Boxed, so that the rare checking does not widen the future of every request.
            Self::Basic(basic) => Box::pin(basic.authenticate(evidence)).await,
            Self::External(external) => external.authenticate(evidence).await,
            Self::Hmac(hmac) => hmac.authenticate(evidence).await,
            Self::Signature(signature) => signature.authenticate(evidence).await,
            Self::Anonymous(anonymous) => anonymous.authenticate(),
        }
    }

    pub(crate) const fn method(&self) -> AuthMethod {
        match self {
            Self::Jwt(_) => AuthMethod::Jwt,
            Self::Token(_) => AuthMethod::Token,
            Self::Certificate(_) => AuthMethod::Certificate,
            Self::ApiKey(_) => AuthMethod::ApiKey,
            Self::Basic(_) => AuthMethod::Basic,
            Self::External(_) => AuthMethod::External,
            Self::Hmac(_) => AuthMethod::Hmac,
            Self::Signature(_) => AuthMethod::Signature,
            Self::Anonymous(_) => AuthMethod::Anonymous,
        }
    }

    /// What is presented for it claims to be, before anything of it is checked: what failures are counted by. A new
    /// authenticator says here which name a guesser would have to repeat (a user, a key's id), or feeds the whole
    /// credential where it has no name, and whether it is known already.
    pub(crate) async fn claim(&self, evidence: &Evidence<'_>, into: &mut impl Hasher) -> Claim {
        match self {
            Self::Jwt(jwt) => jwt.claim(evidence, into),
            Self::Token(token) => token.claim(evidence, into),
            Self::Certificate(_) => match evidence.certificate {
                Some(certificate) => {
                    into.write(&certificate.thumbprint);
                    Claim::Named
                }
                None => Claim::Absent,
            },
            Self::ApiKey(key) => key.claim(evidence, into),
            Self::Basic(basic) => basic.claim(evidence, into).await,
            Self::External(external) => external.claim(evidence, into),
            Self::Hmac(hmac) => hmac.claim(evidence, into),
            Self::Signature(signature) => signature.claim(evidence, into),
            Self::Anonymous(_) => Claim::Absent,
        }
    }

    /// Why it asks for nothing, if it is `anonymous`.
    pub(crate) const fn anonymous_because(&self) -> Option<&Arc<str>> {
        match self {
            Self::Anonymous(anonymous) => Some(anonymous.because()),
            Self::Jwt(_)
            | Self::Token(_)
            | Self::Certificate(_)
            | Self::ApiKey(_)
            | Self::Basic(_)
            | Self::External(_)
            | Self::Hmac(_)
            | Self::Signature(_) => None,
        }
    }

    /// Where its credential is looked for; `None` where it is part of the connection, or nothing is asked for.
    pub(crate) fn places(&self) -> Option<&Places> {
        match self {
            Self::Jwt(jwt) => Some(jwt.places()),
            Self::Token(token) => Some(token.places()),
            Self::ApiKey(key) => Some(key.places()),
            Self::Basic(basic) => basic.places(),
            Self::External(external) => external.places(),
            Self::Hmac(hmac) => Some(hmac.places()),
            Self::Signature(signature) => Some(signature.places()),
            Self::Certificate(_) | Self::Anonymous(_) => None,
        }
    }

    /// What tells its credentials from those of others at the same place.
    pub(crate) fn addressed(&self) -> Addressed {
        match self {
            Self::Jwt(jwt) => Addressed::Issuer(jwt.issuer().clone()),
            Self::Token(token) => Addressed::Provider(token.asked().clone()),
            Self::Certificate(_)
            | Self::ApiKey(_)
            | Self::Basic(_)
            | Self::External(_)
            | Self::Hmac(_)
            | Self::Signature(_)
            | Self::Anonymous(_) => Addressed::Place,
        }
    }

    /// Whether a credential at one place can be told to be this one's or the other's by what it says.
    pub(crate) fn shares_places_with(&self, other: &Self) -> bool {
        let both_tokens = self.method().is_token() && other.method().is_token();
        self.method() == other.method() || both_tokens
    }

    /// The scheme its credential is refused under.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        match self {
            Self::Jwt(_) | Self::Token(_) => Some(Scheme::Bearer),
            Self::Certificate(_) => Some(Scheme::Certificate),
            Self::ApiKey(_) => Some(Scheme::ApiKey),
            Self::Basic(_) => Some(Scheme::Basic),
            Self::External(external) => Some(external.scheme()),
            Self::Hmac(_) => Some(Scheme::Signature),
            Self::Signature(_) => Some(Scheme::MessageSignature),
            Self::Anonymous(_) => None,
        }
    }

    /// Whether its credential is in the content, where nobody looks before the chain has chosen.
    pub(crate) const fn is_in_content(&self) -> bool {
        match self {
            Self::Basic(basic) => basic.reads_content(),
            Self::Jwt(_)
            | Self::Token(_)
            | Self::Certificate(_)
            | Self::ApiKey(_)
            | Self::External(_)
            | Self::Hmac(_)
            | Self::Signature(_)
            | Self::Anonymous(_) => false,
        }
    }

    /// Whether it reads content, so that [`Evidence::content`] must be there for it.
    pub(crate) const fn reads_content(&self) -> bool {
        match self {
            Self::Basic(basic) => basic.reads_content(),
            Self::External(external) => external.reads_content(),
            Self::Hmac(_) | Self::Signature(_) => true,
            Self::Jwt(_) | Self::Token(_) | Self::Certificate(_) | Self::ApiKey(_) | Self::Anonymous(_) => {
                false
            }
        }
    }

    /// What it challenges a caller with who shows nothing; `realm` is the API's name.
    pub(crate) fn challenges(&self, realm: &Arc<str>) -> Vec<Challenge> {
        match self {
            Self::Jwt(jwt) => jwt.challenges(realm),
            Self::Token(token) => token.challenges(realm),
            Self::Certificate(_) => vec![Challenge::new(Scheme::Certificate, realm.clone())],
            Self::ApiKey(_) => vec![Challenge::new(Scheme::ApiKey, realm.clone())],
            Self::Basic(basic) => vec![basic.challenge()],
            Self::External(external) => vec![Challenge::new(external.scheme(), realm.clone())],
            Self::Hmac(hmac) => vec![hmac.challenge().clone()],
            Self::Signature(signature) => vec![signature.challenge().clone()],
            Self::Anonymous(_) => Vec::new(),
        }
    }

    /// What its `Accept-Signature` says.
    pub(crate) const fn accept_signature(&self) -> Option<&HeaderValue> {
        match self {
            Self::Signature(signature) => Some(signature.accept_signature()),
            Self::Jwt(_)
            | Self::Token(_)
            | Self::Certificate(_)
            | Self::ApiKey(_)
            | Self::Basic(_)
            | Self::Hmac(_)
            | Self::External(_)
            | Self::Anonymous(_) => None,
        }
    }

    /// Whether requests may carry proofs of possession for it, in a header of their own.
    pub(crate) fn takes_proofs(&self) -> bool {
        match self {
            Self::Jwt(jwt) => jwt.takes_proofs(),
            Self::Token(token) => token.takes_proofs(),
            Self::Certificate(_)
            | Self::ApiKey(_)
            | Self::Basic(_)
            | Self::Hmac(_)
            | Self::Signature(_)
            | Self::External(_)
            | Self::Anonymous(_) => false,
        }
    }

    /// How much work it is, to do the cheap ones first (PIPE-03).
    ///
    /// SECURITY: what uses something up comes after everything else of an `all_of`, so that nobody can use up a token
    /// without showing all that must come with it.
    pub(crate) fn cost(&self) -> u8 {
        match self {
            Self::Jwt(jwt) if jwt.uses_up() => u8::MAX,
            Self::Token(token) if token.takes_proofs() => u8::MAX,
            Self::Anonymous(_) => 0,
            Self::Certificate(_) => 1,
            Self::ApiKey(_) => 2,
            Self::Jwt(_) => 3,
            Self::Token(_) => 4,
            Self::Basic(_) => 8,
            Self::External(_) => 9,
            // They may wait for a body, and they use up what was signed: last, when all else is good.
            Self::Hmac(_) => 10,
            Self::Signature(_) => 11,
        }
    }
}

/// A word that names no authenticator.
pub(crate) fn unknown(word: &str, place: FilePlace, words: &[&str]) -> Diagnostic {
    unknown_word(word, place, "a way to authenticate", words)
}

/// A word that names none of the things `what` says.
pub(crate) fn unknown_word(word: &str, place: FilePlace, what: &str, words: &[&str]) -> Diagnostic {
    let fault = Diagnostic::error("unknown_key", place, format!("`{word}` is not {what}"))
        .note(format!("words here: {}", words.join(", ")));
    match nearest(word, words.iter().copied()) {
        Some(near) => fault.label(format!("did you mean `{near}`?")),
        None => fault,
    }
}
