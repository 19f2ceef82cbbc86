//! The identity provider of the demo: a key set and a token endpoint (RFC 6749 section 4.4).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use portcullis_core::Secret;
use portcullis_jose::{Algorithm, SigningKey, base64url, digest};
use serde::Deserialize;
use serde_json::{Value, json};

/// Who may call the APIs of the demo with its tokens (their `aud`).
pub(crate) const AUDIENCE: &str = "https://api.demo.example";

/// How long a token counts: long enough for an afternoon with the demo.
const TOKEN_LIFETIME: Duration = Duration::from_secs(8 * 3600);

const KEY_ID: &str = "demo";

/// A client of the identity provider.
pub(crate) struct Registered {
    /// Its name.
    pub(crate) id: &'static str,
    /// What it proves itself with at the token endpoint.
    pub(crate) secret: Secret,
    /// SHA-256 of its certificate. Its tokens are bound to this one: RFC 8705 section 3 takes the certificate
    /// of the connection to the token endpoint, and the registered one here saves the demo a second TLS port.
    pub(crate) thumbprint: [u8; 32],
    /// What it may ask for.
    pub(crate) scopes: &'static [&'static str],
}

/// The provider.
pub(crate) struct IdentityProvider {
    issuer: String,
    key: SigningKey,
    clients: Vec<Registered>,
}

impl IdentityProvider {
    /// A provider with a new key.
    ///
    /// # Errors
    /// The key could not be made.
    pub(crate) fn new(issuer: String, clients: Vec<Registered>) -> anyhow::Result<Self> {
        let key = SigningKey::generate(Algorithm::Es256).context("cannot make the demo's signing key")?;
        Ok(Self { issuer, key, clients })
    }

    /// An access token (RFC 9068) for one of the clients, bound to its certificate.
    ///
    /// # Errors
    /// There is no such client, or the token could not be signed.
    pub(crate) fn token(&self, client_id: &str, scope: &str) -> anyhow::Result<String> {
        let client = self
            .clients
            .iter()
            .find(|client| client.id == client_id)
            .context("no such client in the demo")?;
        self.issue(client, scope)
    }

    fn issue(&self, client: &Registered, scope: &str) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": client.id,
            "client_id": client.id,
            "scope": scope,
            "iat": now,
            "exp": now + TOKEN_LIFETIME.as_secs(),
            "jti": base64url::encode(&digest::random::<16>()?),
            "cnf": { "x5t#S256": base64url::encode(&client.thumbprint) },
        });
        Ok(self.key.sign(json!({ "typ": "at+jwt", "kid": KEY_ID }), &claims)?)
    }

    fn key_set(&self) -> Value {
        json!({ "keys": [self.key.public_jwk(KEY_ID)] })
    }
}

/// The service: `GET /jwks` and `POST /token`.
pub(crate) fn router(provider: Arc<IdentityProvider>) -> Router {
    Router::new().route("/jwks", get(jwks)).route("/token", post(token)).with_state(provider)
}

async fn jwks(State(provider): State<Arc<IdentityProvider>>) -> Response {
    let kind = HeaderValue::from_static("application/jwk-set+json");
    ([(CONTENT_TYPE, kind)], provider.key_set().to_string()).into_response()
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    client_id: String,
    client_secret: String,
    scope: Option<String>,
}

/// Why no token was issued: the status and the `error` of RFC 6749 section 5.2.
struct NoToken(StatusCode, &'static str);

impl IntoResponse for NoToken {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

async fn token(
    State(provider): State<Arc<IdentityProvider>>,
    Form(request): Form<TokenRequest>,
) -> Result<Response, NoToken> {
    if request.grant_type != "client_credentials" {
        return Err(NoToken(StatusCode::BAD_REQUEST, "unsupported_grant_type"));
    }
    let secret = Secret::new(request.client_secret.into_bytes());
    let client = provider
        .clients
        .iter()
        .find(|client| client.id == request.client_id && client.secret == secret)
        .ok_or(NoToken(StatusCode::UNAUTHORIZED, "invalid_client"))?;
    let scope = request.scope.unwrap_or_else(|| client.scopes.join(" "));
    if !scope.split(' ').all(|wanted| client.scopes.contains(&wanted)) {
        return Err(NoToken(StatusCode::BAD_REQUEST, "invalid_scope"));
    }
    let token = provider
        .issue(client, &scope)
        .map_err(|_| NoToken(StatusCode::INTERNAL_SERVER_ERROR, "server_error"))?;
    let body = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": TOKEN_LIFETIME.as_secs(),
        "scope": scope,
    });
    Ok(([(CACHE_CONTROL, "no-store")], format!("{body:#}\n")).into_response())
}
