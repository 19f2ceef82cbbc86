//! Why a request was refused: one enum, one table.
//!
//! Status, challenge, problem body, metric label and log field all derive from this table. Codes are a public
//! contract: `tests/golden/reasons.txt` pins them, every one has a black-box test, and the table in `README.md`
//! is generated from here.

use http::StatusCode;

/// The `error` attribute of a bearer challenge (RFC 6750 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BearerError {
    /// The request is malformed.
    InvalidRequest,
    /// The token is not good.
    InvalidToken,
    /// The token is good but grants too little.
    InsufficientScope,
    /// The proof that came with the token is not good (RFC 9449 section 7.1).
    InvalidDpopProof,
    /// The proof must carry a nonce of ours (RFC 9449 section 9).
    UseDpopNonce,
}

impl BearerError {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::InvalidDpopProof => "invalid_dpop_proof",
            Self::UseDpopNonce => "use_dpop_nonce",
        }
    }
}

/// How loudly a refusal is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// An ordinary refusal.
    Info,
    /// Somebody should look, if it goes on.
    Warn,
    /// Something of ours, or behind us, is broken.
    Error,
}

impl LogLevel {
    /// The word in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident: $code:literal, $status:ident, $bearer:expr, $level:ident, $title:literal;)+) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// The `error` attribute for the scheme whose credential was refused, if it has one.
            pub const fn bearer_error(self) -> Option<BearerError> {
                match self { $(Self::$variant => $bearer,)+ }
            }

            /// How loudly it is logged.
            pub const fn level(self) -> LogLevel {
                match self { $(Self::$variant => LogLevel::$level,)+ }
            }

            /// One sentence for the caller. It says nothing a stranger could learn from.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// What it means and what to do, for the reference.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

const NONE: Option<BearerError> = None;
const REQUEST: Option<BearerError> = Some(BearerError::InvalidRequest);
const TOKEN: Option<BearerError> = Some(BearerError::InvalidToken);
const SCOPE: Option<BearerError> = Some(BearerError::InsufficientScope);
const PROOF: Option<BearerError> = Some(BearerError::InvalidDpopProof);
const NONCE: Option<BearerError> = Some(BearerError::UseDpopNonce);

reasons! {
    /// The request breaks the HTTP framing rules (two lengths, a bare line feed, an unknown transfer coding ...).
    RequestMalformed: "request_malformed", BAD_REQUEST, NONE, Info, "The request is not well-formed HTTP.";
    /// The path is not in normal form: dot segments, doubled slashes, encoded slashes, backslashes, NUL.
    PathNotNormal: "path_not_normal", BAD_REQUEST, NONE, Info, "The path is not in normal form.";
    /// The host is missing, repeated, malformed, or differs from the request target's.
    HostInvalid: "host_invalid", BAD_REQUEST, NONE, Info, "The request does not name one valid host.";
    /// `Connection` names a header that must reach the upstream.
    ConnectionHeaderInvalid: "connection_header_invalid", BAD_REQUEST, NONE, Info, "The Connection header names a header it may not name.";
    /// A method that no rule can name, `TRACE` and `CONNECT` among them, or one the API does not list.
    MethodNotAllowed: "method_not_allowed", METHOD_NOT_ALLOWED, NONE, Info, "The method is not allowed here.";
    /// The header block is larger than the listener allows.
    HeadersTooLarge: "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, NONE, Info, "The request's headers are too large.";
    /// The body is larger than the API allows.
    BodyTooLarge: "body_too_large", PAYLOAD_TOO_LARGE, NONE, Info, "The request's body is too large.";
    /// The body stopped arriving.
    BodyTimeout: "body_timeout", REQUEST_TIMEOUT, NONE, Info, "The request's body did not arrive in time.";
    /// No API matches the host and path.
    RouteNotFound: "route_not_found", NOT_FOUND, NONE, Info, "There is nothing here.";
    /// The host needs other TLS settings than this connection was made with; connect again under its own name.
    Misdirected: "misdirected", MISDIRECTED_REQUEST, NONE, Info, "This connection may not be used for that host.";

    /// No credential that the API accepts was presented.
    CredentialsMissing: "credentials_missing", UNAUTHORIZED, NONE, Info, "Credentials are needed.";
    /// Two credentials were presented where one is meant.
    CredentialsAmbiguous: "credentials_ambiguous", BAD_REQUEST, REQUEST, Info, "More than one credential was presented.";
    /// The credential's syntax is broken.
    CredentialsMalformed: "credentials_malformed", BAD_REQUEST, REQUEST, Info, "The credential is malformed.";
    /// The token is not a well-formed signed token of the expected kind.
    TokenMalformed: "token_malformed", UNAUTHORIZED, TOKEN, Info, "The access token is not acceptable.";
    /// The token's provider says that it grants nothing: unknown, revoked, expired, or meant for somebody else.
    TokenInactive: "token_inactive", UNAUTHORIZED, TOKEN, Info, "The access token is not active.";
    /// The token's algorithm is not one its issuer may use.
    TokenAlgorithmRefused: "token_algorithm_refused", UNAUTHORIZED, TOKEN, Warn, "The access token is not acceptable.";
    /// The token's `typ` or `cty` says it is something else than an access token.
    TokenTypeRefused: "token_type_refused", UNAUTHORIZED, TOKEN, Info, "The access token is not acceptable.";
    /// No key of the issuer has verified the token: unknown `kid`, or a wrong signature. One reason, so that
    /// nobody learns which keys exist; the log says which.
    TokenSignatureInvalid: "token_signature_invalid", UNAUTHORIZED, TOKEN, Warn, "The access token is not acceptable.";
    /// The token has expired.
    TokenExpired: "token_expired", UNAUTHORIZED, TOKEN, Info, "The access token has expired.";
    /// The token is not valid yet: `nbf` or `iat` lies in the future.
    TokenNotYetValid: "token_not_yet_valid", UNAUTHORIZED, TOKEN, Info, "The access token is not valid yet.";
    /// The token lives longer, or is older, than its issuer's tokens may.
    TokenLifetimeRefused: "token_lifetime_refused", UNAUTHORIZED, TOKEN, Info, "The access token is not acceptable.";
    /// A token that may be used once has been used.
    TokenReplayed: "token_replayed", UNAUTHORIZED, TOKEN, Warn, "The access token has been used before.";
    /// An entry of the list of revoked tokens (`revoked` of its issuer) names the token.
    TokenRevoked: "token_revoked", UNAUTHORIZED, TOKEN, Warn, "The access token was revoked.";
    /// The token's `iss` is not the issuer this API trusts.
    TokenIssuerRefused: "token_issuer_refused", UNAUTHORIZED, TOKEN, Info, "The access token is not acceptable.";
    /// The token is meant for somebody else.
    TokenAudienceRefused: "token_audience_refused", UNAUTHORIZED, TOKEN, Info, "The access token is not acceptable.";
    /// A claim the issuer's tokens must carry is missing or of the wrong kind.
    TokenClaimInvalid: "token_claim_invalid", UNAUTHORIZED, TOKEN, Info, "The access token is not acceptable.";
    /// The API takes only tokens bound to a certificate or to a key, and this one is not, or not to what was shown.
    TokenNotBound: "token_not_bound", UNAUTHORIZED, TOKEN, Info, "The access token is not bound to its holder.";
    /// The token is bound by a means the gateway cannot check.
    TokenBindingUnsupported: "token_binding_unsupported", UNAUTHORIZED, TOKEN, Info, "The access token is not acceptable.";
    /// The token is bound to a key and was presented without a proof of it: `Authorization: DPoP` is needed.
    DpopRequired: "dpop_required", UNAUTHORIZED, TOKEN, Warn, "The access token is bound to a key, which must be proven.";
    /// The proof is missing, repeated, malformed, too old, or made for another request or another token.
    DpopProofInvalid: "dpop_proof_invalid", UNAUTHORIZED, PROOF, Info, "The proof of possession is not acceptable.";
    /// The proof has been used before.
    DpopProofReplayed: "dpop_proof_replayed", UNAUTHORIZED, PROOF, Warn, "The proof of possession has been used before.";
    /// The proof is made with another key than the one the token is bound to.
    DpopKeyMismatch: "dpop_key_mismatch", UNAUTHORIZED, TOKEN, Warn, "The access token is bound to another key.";
    /// The proof must carry the nonce that the answer's `DPoP-Nonce` gives. Try again with it.
    DpopNonceRequired: "dpop_nonce_required", UNAUTHORIZED, NONCE, Info, "The proof of possession needs a nonce.";
    /// A certificate is needed and the connection has none.
    CertificateMissing: "certificate_missing", UNAUTHORIZED, TOKEN, Info, "A client certificate is needed.";
    /// The token or the key is bound to another certificate than the caller's.
    CertificateMismatch: "certificate_mismatch", UNAUTHORIZED, TOKEN, Warn, "The credential is not bound to this certificate.";
    /// The connection's certificate is outside its validity, or its revocation list is out of date.
    CertificateExpired: "certificate_expired", UNAUTHORIZED, TOKEN, Info, "The client certificate is not valid now.";
    /// The certificate is valid but is not one this API takes.
    CertificateRefused: "certificate_refused", UNAUTHORIZED, TOKEN, Warn, "The client certificate is not acceptable.";
    /// The certificate was revoked by the authority that issued it.
    CertificateRevoked: "certificate_revoked", UNAUTHORIZED, TOKEN, Warn, "The client certificate is not acceptable.";
    /// The header in which a trusted proxy tells the client's certificate is repeated or cannot be read.
    CertificateHeaderInvalid: "certificate_header_invalid", BAD_REQUEST, NONE, Warn, "The client certificate cannot be read.";
    /// Nothing current says whether the certificate was revoked, so nothing can be said about it.
    RevocationUnknown: "revocation_unknown", SERVICE_UNAVAILABLE, NONE, Error, "The client certificate cannot be checked right now.";
    /// The key is not known, or no longer counts. One reason, so that nobody learns which keys existed.
    ApiKeyInvalid: "api_key_invalid", UNAUTHORIZED, NONE, Warn, "The API key is not acceptable.";
    /// Too many attempts from this address have failed. The answer says when to try again.
    TooManyFailures: "too_many_failures", TOO_MANY_REQUESTS, NONE, Warn, "Too many failed attempts.";
    /// Nobody has this user name, or the password is another one. One reason, so that nobody learns which users there
    /// are.
    PasswordInvalid: "password_invalid", UNAUTHORIZED, NONE, Warn, "The user name and the password are not acceptable.";
    /// More passwords wait to be checked than can be in time, so nothing can be said about this one; try again.
    PasswordChecksBusy: "password_checks_busy", SERVICE_UNAVAILABLE, NONE, Warn, "The credential cannot be checked right now.";
    /// So much content is held for requests that are still being judged that no more of this one is read; try again.
    Overloaded: "overloaded", SERVICE_UNAVAILABLE, NONE, Warn, "The gateway has too much to do right now.";
    /// The credentials belong to different clients.
    ClientsDiffer: "clients_differ", FORBIDDEN, NONE, Warn, "The credentials do not belong together.";
    /// No key of a client has made this signature over this request: unknown key, wrong signature, or something it
    /// covers is not there. One reason, so that nobody learns which keys exist; the log says which.
    SignatureInvalid: "signature_invalid", UNAUTHORIZED, NONE, Warn, "The signature is not acceptable.";
    /// The signature does not cover what the API wants covered, or lacks its nonce or tag.
    SignatureIncomplete: "signature_incomplete", UNAUTHORIZED, NONE, Info, "The signature does not cover enough.";
    /// The signature names an algorithm that the API does not take.
    SignatureAlgorithmRefused: "signature_algorithm_refused", UNAUTHORIZED, NONE, Warn, "The signature is not acceptable.";
    /// The signature was made too long ago, or says itself that it is over.
    SignatureExpired: "signature_expired", UNAUTHORIZED, NONE, Info, "The signature has expired.";
    /// The signature was made in the future.
    SignatureNotYetValid: "signature_not_yet_valid", UNAUTHORIZED, NONE, Info, "The signature is not valid yet.";
    /// The signature, or its nonce, has been used before.
    SignatureReplayed: "signature_replayed", UNAUTHORIZED, NONE, Warn, "The signature has been used before.";
    /// The request has content, and no signed digest of it with an algorithm that counts (`sha-256`, `sha-512`).
    DigestMissing: "digest_missing", BAD_REQUEST, NONE, Info, "A signed digest of the content is needed.";
    /// The content is not the one whose digest was signed.
    DigestMismatch: "digest_mismatch", BAD_REQUEST, NONE, Warn, "The content does not match its digest.";
    /// The issuer's keys could not be fetched, so nothing can be said about the token.
    KeysUnavailable: "keys_unavailable", SERVICE_UNAVAILABLE, NONE, Error, "The credential cannot be checked right now.";
    /// The external service does not accept the credential.
    ExternalUnauthenticated: "external_unauthenticated", UNAUTHORIZED, TOKEN, Info, "The credential is not acceptable.";
    /// The external service does not allow this.
    ExternalDenied: "external_denied", FORBIDDEN, NONE, Info, "This is not allowed.";
    /// The external service gave no answer that can be used, so nothing can be said about the caller.
    ExternalUnavailable: "external_unavailable", SERVICE_UNAVAILABLE, NONE, Error, "The credential cannot be checked right now.";
    /// The token's provider could not be asked, or gave no answer that says something. The caller may try again.
    IntrospectionUnavailable: "introspection_unavailable", SERVICE_UNAVAILABLE, NONE, Error, "The credential cannot be checked right now.";
    /// The registered client has expired.
    ClientInactive: "client_inactive", FORBIDDEN, NONE, Info, "The client is not active.";
    /// The credential is good but does not say what the API takes the caller's name from.
    IdentityUnresolved: "identity_unresolved", FORBIDDEN, NONE, Info, "The caller cannot be named.";

    /// A rule fits but for its scope.
    ScopeInsufficient: "scope_insufficient", FORBIDDEN, SCOPE, Info, "The access token does not grant this.";
    /// No rule allows it.
    AccessDenied: "access_denied", FORBIDDEN, NONE, Info, "This is not allowed.";
    /// Nothing gives the caller a plan, or one that may be used.
    PlanMissing: "plan_missing", FORBIDDEN, NONE, Info, "The caller has no plan for this API.";
    /// A rule would allow it, and no plan of the caller gives that rule.
    NotInPlan: "not_in_plan", FORBIDDEN, NONE, Info, "The caller's plan does not include this.";
    /// Too many requests in a short time.
    RateLimited: "rate_limited", TOO_MANY_REQUESTS, NONE, Info, "Too many requests.";
    /// The quota is used up.
    QuotaExhausted: "quota_exhausted", TOO_MANY_REQUESTS, NONE, Info, "The quota is used up.";
    /// The store that keeps the limits cannot be used, or it cannot be known whether a credential that may be used
    /// once has been used.
    StoreUnavailable: "store_unavailable", SERVICE_UNAVAILABLE, NONE, Error, "The request cannot be checked right now.";

    /// No connection to the upstream.
    UpstreamUnreachable: "upstream_unreachable", BAD_GATEWAY, NONE, Error, "The service behind the gateway cannot be reached.";
    /// The upstream did not answer in time.
    UpstreamTimeout: "upstream_timeout", GATEWAY_TIMEOUT, NONE, Error, "The service behind the gateway did not answer in time.";
    /// The upstream's answer is not well-formed HTTP, or broke off.
    UpstreamMalformed: "upstream_malformed", BAD_GATEWAY, NONE, Error, "The service behind the gateway gave an answer that cannot be used.";
    /// A fault of the gateway itself. The log has more.
    InternalError: "internal_error", INTERNAL_SERVER_ERROR, NONE, Error, "The gateway failed.";
}

/// What a request is refused with before any credential is looked at, or because there is none that could be.
macro_rules! refused_before_credentials {
    () => {
        Self::RequestMalformed
            | Self::PathNotNormal
            | Self::HostInvalid
            | Self::ConnectionHeaderInvalid
            | Self::MethodNotAllowed
            | Self::HeadersTooLarge
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::RouteNotFound
            | Self::Misdirected
            | Self::CredentialsMissing
            | Self::CredentialsAmbiguous
            | Self::CredentialsMalformed
    };
}

impl Reason {
    /// Whether it says that what was presented to prove an identity did not prove it: what somebody who guesses, or
    /// tries what was never meant for them, is refused with. Such failures are counted against their address (PIPE-05).
    ///
    /// Not counted: what was refused before anything was checked, what could not be checked, what fails although the
    /// secret was right, and what merely is out of date. A client whose token has just expired fails with many
    /// requests at once, and must not have to wait with its next token.
    pub const fn is_failed_proof(self) -> bool {
        match self {
            Self::TokenMalformed
            | Self::TokenInactive
            | Self::TokenAlgorithmRefused
            | Self::TokenTypeRefused
            | Self::TokenSignatureInvalid
            | Self::TokenIssuerRefused
            | Self::TokenAudienceRefused
            | Self::TokenClaimInvalid
            | Self::TokenNotBound
            | Self::TokenBindingUnsupported
            | Self::DpopRequired
            | Self::DpopProofInvalid
            | Self::DpopKeyMismatch
            | Self::CertificateMismatch
            | Self::CertificateRefused
            | Self::ApiKeyInvalid
            | Self::PasswordInvalid
            | Self::ExternalUnauthenticated
            | Self::SignatureInvalid
            | Self::SignatureAlgorithmRefused => true,
            refused_before_credentials!()
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenLifetimeRefused
            | Self::TokenReplayed
            | Self::TokenRevoked
            | Self::DpopProofReplayed
            | Self::DpopNonceRequired
            | Self::CertificateMissing
            | Self::CertificateExpired
            | Self::CertificateRevoked
            | Self::CertificateHeaderInvalid
            | Self::RevocationUnknown
            | Self::TooManyFailures
            | Self::PasswordChecksBusy
            | Self::Overloaded
            | Self::ClientsDiffer
            | Self::SignatureIncomplete
            | Self::SignatureExpired
            | Self::SignatureNotYetValid
            | Self::SignatureReplayed
            | Self::DigestMissing
            | Self::DigestMismatch
            | Self::KeysUnavailable
            | Self::ExternalDenied
            | Self::ExternalUnavailable
            | Self::IntrospectionUnavailable
            | Self::ClientInactive
            | Self::IdentityUnresolved
            | Self::ScopeInsufficient
            | Self::AccessDenied
            | Self::PlanMissing
            | Self::NotInPlan => false,
            Self::RateLimited | Self::QuotaExhausted | Self::StoreUnavailable | Self::InternalError => false,
            Self::UpstreamUnreachable | Self::UpstreamTimeout | Self::UpstreamMalformed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_in_snake_case() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for code in codes {
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code}");
        }
    }

    #[test]
    fn codes_are_the_ones_we_promised() {
        let now: String =
            Reason::ALL.iter().map(|r| format!("{} {}\n", r.status().as_u16(), r.code())).collect();
        assert_eq!(now, include_str!("../../../tests/golden/reasons.txt"));
    }

    #[test]
    fn a_failed_proof_is_a_401_and_never_what_could_not_be_checked() {
        for reason in Reason::ALL.iter().filter(|reason| reason.is_failed_proof()) {
            assert_eq!(reason.status().as_u16(), 401, "{}", reason.code());
        }
    }

    #[test]
    fn a_status_of_401_goes_with_a_credential_and_never_with_our_own_failure() {
        for reason in Reason::ALL {
            if reason.status().is_server_error() {
                assert!(reason.bearer_error().is_none(), "{}", reason.code());
            }
        }
    }
}
