//! Who we are to a provider, and the question as we ask it.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use portcullis_core::{FetchRequest, Moment, Secret};
use portcullis_jose::digest::{self, NoRandomness};
use portcullis_jose::{SigningError, SigningKey, base64url};
use serde_json::json;

/// The life of an assertion of ours, in seconds.
const ASSERTION_LIFE: i64 = 60;

/// `client_assertion_type` (RFC 7523 section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How we prove to a provider who we are. SECURITY: in one way and one place only: a secret that is sent twice is
/// logged twice, and RFC 6749 section 2.3 forbids it.
pub(super) enum ClientAuth {
    /// `client_secret_basic` (RFC 6749 section 2.3.1).
    Basic(Secret),
    /// `client_secret_post` (RFC 6749 section 2.3.1).
    Post(Secret),
    /// `private_key_jwt` (RFC 7523 section 2.2).
    PrivateKeyJwt {
        key: Box<SigningKey>,
        key_id: Option<Arc<str>>,
        /// The provider, as it calls itself.
        audience: Arc<str>,
    },
    /// `tls_client_auth` and `self_signed_tls_client_auth` (RFC 8705 section 2): by the certificate of the connection.
    Tls,
}

/// A client of a provider.
pub(super) struct OurClient {
    pub(super) id: Arc<str>,
    pub(super) auth: ClientAuth,
}

/// Why there is no question.
#[derive(Debug, thiserror::Error)]
pub(super) enum QuestionError {
    #[error("our own assertion could not be signed: {0}")]
    Signing(#[from] SigningError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error("our own credentials cannot be sent")]
    Unsendable,
}

impl OurClient {
    /// The question what a token is worth (RFC 7662 section 2.1). SECURITY: the token travels in the content, never
    /// in the URL (INT-01).
    pub(super) fn question(
        &self,
        url: &str,
        token: &str,
        signed: bool,
        now: Moment,
    ) -> Result<FetchRequest, QuestionError> {
        let mut request = FetchRequest::new(Method::POST, url);
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token).append_pair("token_type_hint", "access_token");
        match &self.auth {
            ClientAuth::Basic(secret) => {
                let mut field = HeaderValue::from_str(&self.basic(secret))
                    .map_err(|_refused| QuestionError::Unsendable)?;
                field.set_sensitive(true);
                request.headers.insert(AUTHORIZATION, field);
            }
            ClientAuth::Post(secret) => {
                let secret = std::str::from_utf8(secret.expose()).map_err(|_| QuestionError::Unsendable)?;
                form.append_pair("client_id", &self.id).append_pair("client_secret", secret);
            }
            ClientAuth::PrivateKeyJwt { key, key_id, audience } => {
                let assertion = self.assertion(key, key_id.as_deref(), audience, now)?;
                form.append_pair("client_id", &self.id)
                    .append_pair("client_assertion_type", ASSERTION_TYPE)
                    .append_pair("client_assertion", &assertion);
            }
            ClientAuth::Tls => {
                form.append_pair("client_id", &self.id);
            }
        }
        request.body = Bytes::from(form.finish());
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers.insert(CONTENT_TYPE, form);
        let wanted = if signed { "application/token-introspection+jwt" } else { "application/json" };
        request.headers.insert(ACCEPT, HeaderValue::from_static(wanted));
        Ok(request)
    }

    /// Whether what it shows counts once, so that no question of it may go out twice.
    pub(super) const fn is_named_once(&self) -> bool {
        matches!(self.auth, ClientAuth::PrivateKeyJwt { .. })
    }

    /// Both parts are encoded like a form first, so that a colon in the id divides nothing.
    fn basic(&self, secret: &Secret) -> String {
        let encoded = |bytes: &[u8]| form_urlencoded::byte_serialize(bytes).collect::<String>();
        let pair = format!("{}:{}", encoded(self.id.as_bytes()), encoded(secret.expose()));
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn assertion(
        &self,
        key: &SigningKey,
        key_id: Option<&str>,
        audience: &str,
        now: Moment,
    ) -> Result<String, QuestionError> {
        let jti = base64url::encode(&digest::random::<16>()?);
        let issued = now.unix_seconds();
        let claims = json!({
            "iss": &*self.id, "sub": &*self.id, "aud": audience, "jti": jti,
            "iat": issued, "exp": issued.saturating_add(ASSERTION_LIFE),
        });
        let header = match key_id {
            Some(key_id) => json!({ "typ": "JWT", "kid": key_id }),
            None => json!({ "typ": "JWT" }),
        };
        Ok(key.sign(header, &claims)?)
    }
}

impl fmt::Debug for OurClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.auth {
            ClientAuth::Basic(_) => "client_secret_basic",
            ClientAuth::Post(_) => "client_secret_post",
            ClientAuth::PrivateKeyJwt { .. } => "private_key_jwt",
            ClientAuth::Tls => "tls_client_auth",
        };
        write!(f, "{} by {way}", self.id)
    }
}
