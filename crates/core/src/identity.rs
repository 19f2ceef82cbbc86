//! Who is calling, as far as it was proven.

use std::sync::Arc;

use http::HeaderMap;

use crate::json::Object;
use crate::{Client, PeerCertificate};

/// The kinds of authenticators: a metric label and a log word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AuthMethod {
    /// A signed token.
    Jwt,
    /// A token its provider was asked about.
    Token,
    /// The caller's certificate.
    Certificate,
    /// A key of a registered client.
    ApiKey,
    /// Name and password of a registered client.
    Basic,
    /// The word of an external service.
    External,
    /// A request signed in the older form, with a key of a registered client.
    Hmac,
    /// A request signed by RFC 9421, with a key of a registered client.
    Signature,
    /// Nothing was asked for.
    Anonymous,
}

impl AuthMethod {
    /// The word in policy files, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::ApiKey => "api_key",
            Self::Basic => "basic",
            Self::External => "external",
            Self::Hmac => "hmac",
            Self::Signature => "signature",
            Self::Anonymous => "anonymous",
        }
    }

    /// Whether the identity has claims and scopes.
    pub const fn is_token(self) -> bool {
        match self {
            Self::Jwt | Self::Token | Self::External => true,
            Self::Certificate
            | Self::ApiKey
            | Self::Basic
            | Self::Hmac
            | Self::Signature
            | Self::Anonymous => false,
        }
    }

    /// Whether the identity belongs, or may belong, to a registered client.
    pub const fn leads_to_client(self) -> bool {
        match self {
            Self::ApiKey | Self::Basic | Self::Certificate | Self::Hmac | Self::Signature => true,
            Self::Jwt | Self::Token | Self::External | Self::Anonymous => false,
        }
    }
}

/// What one authenticator proved.
#[derive(Clone, Debug)]
pub struct Identity {
    /// By which means.
    pub method: AuthMethod,
    /// Who, unique among all identities of the gateway: `client:acme`, `jwt:bank-idp:tpp-a`. SECURITY: the
    /// issuer entry is part of it, because two issuers may use the same `sub` (JWT-28).
    pub key: Arc<str>,
    /// The subject alone, as the credential names it.
    pub subject: Arc<str>,
    /// The issuer entry of a token.
    pub issuer: Option<Arc<str>>,
    /// The registered client the credential belongs to.
    pub client: Option<Arc<Client>>,
    /// Which of several credentials it was, so that two of one caller can be told apart during a rotation (CHN-04):
    /// the `kid` of the key that verified, the key id of a signed request, the name of an API key or of a user, the
    /// first digits of a registered certificate's thumbprint. `None` where nothing public names it. SECURITY: it is
    /// shown to upstreams and in logs, so it is never a part of a secret; it names no caller, so no limit counts by it.
    pub key_id: Option<Arc<str>>,
    /// The claims of a token; empty for everything else.
    pub claims: Arc<Object>,
    /// Scopes, exactly as granted, each once.
    pub scopes: Arc<[Arc<str>]>,
    /// The certificate, where the authenticator was about one.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// Last second since 1970 at which the credential counts.
    pub expires_at: Option<i64>,
}

impl Identity {
    /// Whether that exact scope was granted (CHN-05).
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|granted| &**granted == scope)
    }
}

/// The caller: every identity a chain proved, one of them naming the subject.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The identity that names the caller.
    pub identity: Arc<Identity>,
    /// What else was proven in the same `all_of`.
    pub others: Vec<Arc<Identity>>,
    /// The caller's name for headers and logs.
    pub name: Arc<str>,
    /// What limits count by: unique among all callers of the gateway.
    pub key: Arc<str>,
    /// The caller's group, if the API says where to find it.
    pub group: Option<Arc<str>>,
    /// Fields that an external service has given for the upstream.
    pub upstream_fields: Option<Arc<HeaderMap>>,
}

impl Principal {
    /// All identities, the naming one first.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Identity>> {
        std::iter::once(&self.identity).chain(&self.others)
    }

    /// The identity whose scopes and claims count: the one that names the caller, unless that one is no token and
    /// another one of the same request is. SECURITY: never a union, because two tokens of one request may speak
    /// about two subjects, and what one subject may do must not be lent to the other.
    pub fn grant(&self) -> &Arc<Identity> {
        if self.identity.method.is_token() {
            return &self.identity;
        }
        self.others.iter().find(|identity| identity.method.is_token()).unwrap_or(&self.identity)
    }

    /// The registered client, if any identity belongs to one.
    pub fn client(&self) -> Option<&Arc<Client>> {
        self.identities().find_map(|identity| identity.client.as_ref())
    }
}
