//! Plays the servers that a gateway asks: identity providers, clients that publish keys, services that decide. No
//! socket is opened; whoever is not played does not answer.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use portcullis_core::{
    Callers, Fetch, FetchError, FetchFuture, FetchRequest, FetchResponse, Fetchers, Unary, UnaryCall,
    UnaryError, UnaryFuture,
};
use portcullis_gateway::rehearsal::Outside;
use portcullis_jose::Algorithm;
use serde_json::{Value, json};

use super::cast::Cast;
use super::facts::{ApiFacts, ClientFacts, Facts, IssuerFacts, KeysAt};
use super::stage::{KID, credential, issuer_key, preferred};
use super::suite::Answer;
use super::tree::{along, text, text_at};

/// An opaque token, and what its provider says of it.
pub(crate) struct Introspected {
    /// The token.
    pub(crate) token: String,
    /// The entry of `issuers:`.
    pub(crate) issuer: String,
    /// The answer.
    pub(crate) said: Value,
}

/// What the servers know.
pub(crate) struct Play {
    pub(crate) cast: Arc<Cast>,
    pub(crate) issuers: Vec<IssuerFacts>,
    pub(crate) clients: Vec<ClientFacts>,
    pub(crate) tokens: Mutex<Vec<Introspected>>,
    pub(crate) answer: Option<Answer>,
    /// The services that decide, by URL.
    pub(crate) services: Vec<String>,
    pub(crate) now: i64,
}

impl Play {
    /// The servers of one case.
    pub(crate) fn new(cast: &Arc<Cast>, facts: &Facts, answer: Option<Answer>, now: i64) -> Arc<Self> {
        Arc::new(Self {
            cast: Arc::clone(cast),
            issuers: facts.issuers.clone(),
            clients: facts.clients.clone(),
            tokens: Mutex::default(),
            answer,
            services: facts.apis.iter().filter_map(service).collect(),
            now,
        })
    }

    /// The servers, as the gateway reaches them.
    pub(crate) fn outside(self: &Arc<Self>) -> Outside {
        let (fetch, call) = (Arc::clone(self), Arc::clone(self));
        Outside::Played {
            fetchers: Fetchers::new(move |_| Ok(Arc::new(Server(Arc::clone(&fetch))))),
            callers: Callers::new(move |_, _| Ok(Arc::new(Server(Arc::clone(&call))))),
        }
    }

    fn respond(&self, request: &FetchRequest) -> Option<FetchResponse> {
        let issuer = self.issuers.iter().find_map(|issuer| self.provider(issuer, request));
        issuer.or_else(|| self.published(&request.url)).or_else(|| self.decided(&request.url))
    }

    /// What an identity provider answers.
    fn provider(&self, issuer: &IssuerFacts, request: &FetchRequest) -> Option<FetchResponse> {
        let url = request.url.as_str();
        let places = Discovered::of(issuer);
        let keys = match &issuer.keys {
            KeysAt::Url(template) => fits(template, url),
            KeysAt::Discovered => places.as_ref().is_some_and(|places| places.keys == url),
            _ => false,
        };
        if keys {
            let key = self.cast.key(&issuer_key(&issuer.name.value), preferred(issuer)?).ok()?;
            return Some(document("application/json", &json!({ "keys": [key.public_jwk(KID)] }).to_string()));
        }
        if let Some(places) = places.as_ref().filter(|places| places.documents.iter().any(|one| one == url)) {
            return Some(document("application/json", &places.metadata.to_string()));
        }
        let introspect = issuer.introspect.as_ref()?;
        let asked = introspect.url.clone().or_else(|| Some(places?.introspection));
        (asked.as_deref() == Some(url)).then(|| self.introspected(issuer, request))?
    }

    /// What a provider says of a token. It knows those of this case.
    fn introspected(&self, issuer: &IssuerFacts, request: &FetchRequest) -> Option<FetchResponse> {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        // Tokens of the run are made of letters that a form leaves as they are.
        let token = form.split('&').find_map(|pair| pair.strip_prefix("token="))?.to_owned();
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tokens.iter().find(|one| one.token == token && one.issuer == issuer.name.value);
        let said = known.map_or_else(|| json!({ "active": false }), |known| known.said.clone());
        let introspect = issuer.introspect.as_ref()?;
        if !introspect.signed {
            return Some(document("application/json", &said.to_string()));
        }
        let claims = json!({
            "iss": issuer.issuer, "aud": introspect.client_id, "iat": self.now, "token_introspection": said,
        });
        let key = self.cast.key(&issuer_key(&issuer.name.value), preferred(issuer)?).ok()?;
        let signed = key.sign(json!({ "typ": "token-introspection+jwt", "kid": KID }), &claims).ok()?;
        Some(document("application/token-introspection+jwt", &signed))
    }

    /// The keys a client publishes.
    fn published(&self, url: &str) -> Option<FetchResponse> {
        self.clients.iter().find_map(|client| {
            let mut keys = client.of_kind("jwt_key");
            let (number, _) = keys.find(|(_, node)| text_at(node, "jwks_url") == Some(url))?;
            let key = self.cast.key(&credential(&client.name.value, number), Algorithm::Es256).ok()?;
            Some(document("application/json", &json!({ "keys": [key.public_jwk(KID)] }).to_string()))
        })
    }

    /// What a service that decides answers over HTTP: what the case says.
    fn decided(&self, url: &str) -> Option<FetchResponse> {
        let answer = self.answer.as_ref().filter(|_| self.services.iter().any(|service| service == url))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &answer.headers {
            headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?);
        }
        let body = if answer.body.is_empty() {
            Bytes::new()
        } else {
            Value::Object(answer.body.clone()).to_string().into()
        };
        if !answer.body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Some(FetchResponse { status: StatusCode::from_u16(answer.status).ok()?, headers, body })
    }

    /// The same over gRPC.
    fn called(&self) -> Option<Bytes> {
        let answer = self.answer.as_ref()?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let metadata: Vec<_> = answer.body.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let verdict = match answer.status {
            200..=299 => Ok(metadata.as_slice()),
            status => Err(i32::from(status)),
        };
        Some(portcullis_authn::grpc_reply(verdict, &answer.headers))
    }
}

/// The URL of the service that decides for an API.
fn service(api: &ApiFacts) -> Option<String> {
    along(api.authenticator("external")?, &["http", "url"]).and_then(text).map(str::to_owned)
}

/// Where a provider that is discovered keeps what it has. Those of a run lie with its metadata.
struct Discovered {
    documents: [String; 2],
    keys: String,
    introspection: String,
    metadata: Value,
}

impl Discovered {
    fn of(issuer: &IssuerFacts) -> Option<Self> {
        let name = issuer.issuer.as_deref()?;
        let uri: Uri = name.parse().ok()?;
        let origin = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
        let path = uri.path().trim_end_matches('/');
        let (keys, introspection) =
            (format!("{origin}/rehearsal/keys"), format!("{origin}/rehearsal/introspect"));
        let metadata = json!({
            "issuer": name,
            "jwks_uri": keys,
            "introspection_endpoint": introspection,
            "introspection_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth"],
        });
        let documents = [
            format!("{origin}/.well-known/oauth-authorization-server{path}"),
            format!("{}/.well-known/openid-configuration", name.trim_end_matches('/')),
        ];
        Some(Self { documents, keys, introspection, metadata })
    }
}

/// Whether a URL is what a template says, in which names in braces stand for whole segments.
fn fits(template: &str, url: &str) -> bool {
    let (template, url) = (template.split('/'), url.split('/'));
    template.clone().count() == url.clone().count()
        && template.zip(url).all(|(wanted, found)| wanted == found || wanted.starts_with('{'))
}

fn document(content_type: &'static str, body: &str) -> FetchResponse {
    let mut response = FetchResponse::ok(body.to_owned());
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

struct Server(Arc<Play>);

/// What is said of a server that nobody plays.
const NOBODY: &str = "nobody answers there in a test";

impl Fetch for Server {
    fn fetch(&self, request: FetchRequest) -> FetchFuture<'_> {
        Box::pin(
            async move { self.0.respond(&request).ok_or_else(|| FetchError::Connection(NOBODY.to_owned())) },
        )
    }
}

impl Unary for Server {
    fn call(&self, _call: UnaryCall) -> UnaryFuture<'_> {
        Box::pin(async move { self.0.called().ok_or_else(|| UnaryError::Connection(NOBODY.to_owned())) })
    }
}
