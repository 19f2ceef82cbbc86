//! What happens at the door, for the metrics.

use super::proxy_protocol::ProxyHeaderFailure;
use rustls::{AlertDescription, CertificateError, Error};

/// Something that happened to a connection of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was accepted. Exactly one [`Event::Closed`] follows.
    Opened,
    /// A connection ended.
    Closed,
    /// A connection was closed at once because the listener has as many as it may have.
    OverCapacity,
    /// A connection was closed because it did not begin as the listener's proxy begins one.
    Unannounced(ProxyHeaderFailure),
    /// A TLS handshake was completed.
    Handshake {
        /// `TLSv1.2` or `TLSv1.3`.
        version: &'static str,
        /// Whether the client showed a certificate.
        certificate: CertificateOutcome,
    },
    /// A TLS handshake failed.
    HandshakeFailed(HandshakeFailure),
    /// The bytes were not well-formed HTTP. Under HTTP/1.1 the client has been told why.
    Malformed,
    /// A connection ended because of a fault in the gateway.
    Panicked,
}

/// What a handshake learned about the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateOutcome {
    /// The listener does not ask.
    NotAsked,
    /// Asked, and none was shown.
    Absent,
    /// Shown and verified.
    Verified,
}

impl CertificateOutcome {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Absent => "absent",
            Self::Verified => "verified",
        }
    }
}

/// Why a handshake failed: a closed set, for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client went away.
    Disconnected,
    /// The client showed no certificate where one is required.
    CertificateMissing,
    /// The client's certificate does not lead to a trusted authority.
    CertificateUntrusted,
    /// The client's certificate is outside its validity.
    CertificateExpired,
    /// The client's certificate is revoked.
    CertificateRevoked,
    /// Nothing current says whether the client's certificate is revoked.
    RevocationUnknown,
    /// The client's certificate is unfit for another cause: its purpose, its form, a signature.
    CertificateUnfit,
    /// The client refused us: it does not take our certificate.
    RefusedByClient,
    /// Client and server have no version, suite or protocol in common.
    Incompatible,
    /// The bytes are not a TLS handshake.
    Malformed,
}

impl HandshakeFailure {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateRevoked => "certificate_revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::CertificateUnfit => "certificate_unfit",
            Self::RefusedByClient => "refused_by_client",
            Self::Incompatible => "incompatible",
            Self::Malformed => "malformed",
        }
    }

    /// Sorts an error of the handshake.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::NoCertificatesPresented) => Self::CertificateMissing,
            Some(Error::InvalidCertificate(error)) => Self::of_certificate(error),
            Some(Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled)) => {
                Self::Disconnected
            }
            Some(Error::AlertReceived(_)) => Self::RefusedByClient,
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Self::Incompatible,
            Some(_) => Self::Malformed,
            None => Self::Disconnected,
        }
    }

    const fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::NotValidYet => Self::CertificateExpired,
            CertificateError::Revoked => Self::CertificateRevoked,
            CertificateError::UnknownRevocationStatus | CertificateError::ExpiredRevocationList => {
                Self::RevocationUnknown
            }
            CertificateError::UnknownIssuer => Self::CertificateUntrusted,
            _ => Self::CertificateUnfit,
        }
    }
}
