//! Puts credentials on a request, as a caller would who holds them.

use std::net::IpAddr;
use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, DATE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Request};
use jiff::Timestamp;
use portcullis_authn::{Control, Message, Target, signature_base, signed_bytes};
use portcullis_core::{Diagnostic, Place};
use portcullis_jose::digest::{legacy_sha1, random, sha256};
use portcullis_jose::{Algorithm, base64url};

use super::facts::{ApiFacts, Facts};
use super::mint::{Mint, Minted, prove};
use super::outside::Play;
use super::stage::{Certificates, PROXY, credential, hex, listed, message_algorithm};
use super::suite::{Case, fault};
use super::tree::{at, text_at};
use super::with::{Held, Proof, Signed};

/// Why a request cannot be made.
pub(crate) type Faulty = Box<Diagnostic>;

/// Everything a request of a case is made of.
pub(crate) struct Wardrobe<'w> {
    pub(crate) facts: &'w Facts,
    pub(crate) play: &'w Play,
    pub(crate) certificates: &'w Certificates,
    pub(crate) mint: &'w Mint<'w>,
    pub(crate) api: &'w ApiFacts,
    /// Whether the listener speaks TLS.
    pub(crate) secure: bool,
    /// Second since 1970.
    pub(crate) now: i64,
}

/// A request, with the connection's part of its credentials.
pub(crate) struct Dressed {
    pub(crate) request: Request<Bytes>,
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) host: Option<String>,
    pub(crate) from: IpAddr,
}

impl Wardrobe<'_> {
    /// Makes the request of a case. `nonce` is the one the gateway has given for a proof.
    ///
    /// # Errors
    /// What cannot be made.
    pub(crate) fn dress(&self, case: &Case, nonce: Option<&str>) -> Result<Dressed, Faulty> {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = case.method.clone();
        head.uri = case.target.clone();
        let host = case.host.clone().unwrap_or_else(|| "gateway.example".to_owned());
        head.headers.insert(HOST, value(&host, case.name.place)?);
        for (name, text) in &case.headers {
            head.headers.append(name, value(&self.filled(&text.value, text.place)?, text.place)?);
        }
        let body = match &case.body {
            Some(body) => self.filled(&body.value, body.place)?,
            None => String::new(),
        };
        if !body.is_empty() {
            head.headers
                .insert(http::header::CONTENT_LENGTH, value(&body.len().to_string(), case.name.place)?);
        }
        let with = &case.with;
        if let Some(token) = &with.token {
            self.token(&mut head, case, (&token.value, token.place), nonce)?;
        }
        if let Some(held) = &with.api_key {
            self.api_key(&mut head, held)?;
        }
        if let Some(held) = &with.basic {
            self.basic(&mut head.headers, held)?;
        }
        if let Some(signed) = &with.hmac {
            self.hmac(&mut head, signed, body.as_bytes())?;
        }
        if let Some(signed) = &with.signature {
            self.signature(&mut head, signed, body.as_bytes())?;
        }
        let certificate = match &with.certificate {
            Some(name) => Some(self.certificate(&name.value, name.place)?.der.clone()),
            None => None,
        };
        let request = Request::from_parts(head, Bytes::from(body));
        Ok(Dressed { request, certificate, host: case.host.clone(), from: case.from })
    }

    fn certificate(&self, name: &str, place: Place) -> Result<&super::cast::Certificate, Faulty> {
        let found = self.certificates.iter().find(|(known, _)| known == name).map(|(_, made)| made);
        found.ok_or_else(|| fault(place, format!("there is no certificate `{name}`")))
    }

    /// Where the token goes: in `Authorization`, with its proof where it has a holder.
    fn token(
        &self,
        head: &mut Parts,
        case: &Case,
        (name, place): (&str, Place),
        nonce: Option<&str>,
    ) -> Result<(), Faulty> {
        let Minted { text, holder } = self.minted(name, place)?;
        let by = match (&case.with.proof, &holder) {
            (Proof::Nobody, _) | (Proof::Holder, None) => None,
            (Proof::Holder, Some(holder)) => Some(holder.as_str()),
            (Proof::By(by), _) => Some(by.as_str()),
        };
        let scheme = if holder.is_some() { "DPoP" } else { "Bearer" };
        head.headers.append(AUTHORIZATION, value(&format!("{scheme} {text}"), place)?);
        if let Some(by) = by {
            let own = if self.secure { "https" } else { "http" };
            let host = case.host.as_deref().unwrap_or("gateway.example");
            let written = self.api.authenticator("dpop").and_then(|dpop| text_at(dpop, "url"));
            let origin = written.map_or_else(|| format!("{own}://{host}"), str::to_owned);
            let url = format!("{}{}", origin.trim_end_matches('/'), case.target.path());
            let proof = prove(&self.play.cast, by, (case.method.as_str(), &url), (&text, nonce), self.now);
            let proof = proof.map_err(|error| fault(place, error.to_string()))?;
            head.headers.append(HeaderName::from_static("dpop"), value(&proof, place)?);
        }
        Ok(())
    }

    fn minted(&self, name: &str, place: Place) -> Result<Minted, Faulty> {
        let (minted, known) = self.mint.token(name, place)?;
        if let Some(known) = known {
            let mut tokens = self.play.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            if !tokens.iter().any(|one| one.token == known.token) {
                tokens.push(known);
            }
        }
        Ok(minted)
    }

    fn held(&self, held: &Held) -> Result<String, Faulty> {
        self.secret_of(&held.client, held.number, held.wrong, held.place)
    }

    fn secret_of(&self, client: &str, number: usize, wrong: bool, place: Place) -> Result<String, Faulty> {
        let name = if wrong { "a stranger".to_owned() } else { credential(client, number) };
        self.play.cast.secret(&name).map_err(|error| fault(place, error.to_string()))
    }

    fn api_key(&self, head: &mut Parts, held: &Held) -> Result<(), Faulty> {
        let key = self.held(held)?;
        let place = self.api.authenticator("api_key");
        let told = |key: &str| place.and_then(|place| text_at(place, key));
        if let Some(parameter) = told("query") {
            let separator = if head.uri.query().is_some() { '&' } else { '?' };
            let target = format!("{}{separator}{parameter}={key}", head.uri);
            head.uri = target.parse().map_err(|_| fault(held.place, "the target is too long"))?;
            return Ok(());
        }
        if let Some(cookie) = told("cookie") {
            head.headers.append(http::header::COOKIE, value(&format!("{cookie}={key}"), held.place)?);
            return Ok(());
        }
        let name = told("header").and_then(|name| name.parse().ok()).unwrap_or(AUTHORIZATION);
        let text = told("scheme").map_or_else(|| key.clone(), |scheme| format!("{scheme} {key}"));
        head.headers.append(name, value(&text, held.place)?);
        Ok(())
    }

    fn basic(&self, headers: &mut HeaderMap, held: &Held) -> Result<(), Faulty> {
        let client = self.facts.client(&held.client);
        let node = client.and_then(|client| client.credentials.get(held.number));
        let user = node.and_then(|(_, node)| text_at(node, "username")).unwrap_or_default();
        let pair = STANDARD.encode(format!("{user}:{}", self.held(held)?));
        headers.append(AUTHORIZATION, value(&format!("Basic {pair}"), held.place)?);
        Ok(())
    }

    /// A signature of the older form (draft-cavage-http-signatures).
    fn hmac(&self, head: &mut Parts, signed: &Signed, body: &[u8]) -> Result<(), Faulty> {
        let told = self.api.authenticator("hmac");
        let covers = signed.covers.clone().unwrap_or_else(|| {
            let written = told.map(|told| listed(told, &["covers"])).unwrap_or_default();
            let default = ["(request-target)", "host", "date"];
            let written = if written.is_empty() { default.to_vec() } else { written };
            written.into_iter().map(str::to_owned).collect()
        });
        if covers.iter().any(|one| one == "date") && !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, value(&self.date(signed.place)?, signed.place)?);
        }
        if covers.iter().any(|one| one == "digest") {
            let digest = format!("SHA-256={}", STANDARD.encode(sha256(body)));
            head.headers.insert(HeaderName::from_static("digest"), value(&digest, signed.place)?);
        }
        let algorithms = told.map(|told| listed(told, &["algorithms"])).unwrap_or_default();
        let weak = algorithms == ["hmac-sha1"];
        let algorithm = if weak { "hmac-sha1" } else { self.named("hmac", signed)? };
        let parameters = format!(
            "keyId=\"{}\",algorithm=\"{algorithm}\",headers=\"{}\",signature=",
            signed.key_id,
            covers.join(" ")
        );
        let unsigned = format!("{parameters}\"AAAA\"");
        let bytes = signed_bytes(unsigned.as_bytes(), head).map_err(|why| fault(signed.place, why))?;
        let signature = STANDARD.encode(self.signature_of("hmac", signed, &bytes, weak)?);
        let text = format!("Signature {parameters}\"{signature}\"");
        head.headers.append(AUTHORIZATION, value(&text, signed.place)?);
        Ok(())
    }

    /// A signature by RFC 9421.
    fn signature(&self, head: &mut Parts, signed: &Signed, body: &[u8]) -> Result<(), Faulty> {
        let told = self.api.authenticator("signature");
        let word = |key: &str| told.and_then(|told| text_at(told, key));
        let covers = signed.covers.clone().unwrap_or_else(|| {
            let written = told.map(|told| listed(told, &["covers"])).unwrap_or_default();
            let mut covers: Vec<_> = written.into_iter().map(str::to_owned).collect();
            if covers.is_empty() {
                covers = ["@method", "@target-uri"].map(str::to_owned).to_vec();
                covers.extend((!body.is_empty()).then(|| "content-digest".to_owned()));
            }
            covers
        });
        if covers.iter().any(|one| one == "content-digest") {
            let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(body)));
            head.headers.insert(HeaderName::from_static("content-digest"), value(&digest, signed.place)?);
        }
        let names: Vec<_> = covers.iter().map(|one| format!("\"{one}\"")).collect();
        let mut input =
            format!("sig1=({});created={};keyid=\"{}\"", names.join(" "), self.now, signed.key_id);
        if word("nonce") == Some("required") {
            let nonce = random::<12>().map_err(|error| fault(signed.place, error.to_string()))?;
            input.push_str(&format!(";nonce=\"{}\"", base64url::encode(&nonce)));
        }
        if let Some(tag) = signed.tag.as_deref().or_else(|| word("tag")) {
            input.push_str(&format!(";tag=\"{tag}\""));
        }
        head.headers.insert(HeaderName::from_static("signature-input"), value(&input, signed.place)?);
        let field = HeaderName::from_static("signature");
        head.headers.insert(field.clone(), HeaderValue::from_static("sig1=:AAAA:"));
        let scheme = match word("scheme") {
            Some("https") => "https",
            Some("http") => "http",
            _ if self.secure => "https",
            _ => "http",
        };
        let target = Target::of(head, scheme);
        let message = Message { control: Control::Request(&target), headers: &head.headers, trailers: None };
        let base = signature_base(&message, "sig1").map_err(|why| fault(signed.place, why.to_string()))?;
        let signature = STANDARD.encode(self.signature_of("signature", signed, base.as_bytes(), false)?);
        head.headers.insert(field, value(&format!("sig1=:{signature}:"), signed.place)?);
        Ok(())
    }

    /// What the algorithm of a key is called on the wire.
    fn named(&self, kind: &str, signed: &Signed) -> Result<&'static str, Faulty> {
        let Some((_, _, node)) = self.facts.signer(kind, &signed.key_id) else {
            return Err(fault(signed.place, "there is no such key"));
        };
        Ok(match message_algorithm(node).0 {
            Algorithm::Hs384 => "hmac-sha384",
            Algorithm::Hs512 => "hmac-sha512",
            Algorithm::Hs256 => "hmac-sha256",
            _ => "rsa-sha256",
        })
    }

    fn signature_of(
        &self,
        kind: &str,
        signed: &Signed,
        message: &[u8],
        weak: bool,
    ) -> Result<Vec<u8>, Faulty> {
        let Some((client, number, node)) = self.facts.signer(kind, &signed.key_id) else {
            return Err(fault(signed.place, "there is no such key"));
        };
        let (algorithm, secret) = message_algorithm(node);
        let own = credential(&client.name.value, number);
        let name = if signed.wrong { "a stranger" } else { own.as_str() };
        let cast = &self.play.cast;
        let made = |error: anyhow::Error| fault(signed.place, error.to_string());
        if weak {
            return Ok(hmac_sha1(cast.secret(name).map_err(made)?.as_bytes(), message).to_vec());
        }
        let key = if secret { cast.secret_key(name, algorithm) } else { cast.key(name, algorithm) };
        key.map_err(made)?.sign_bytes(message).map_err(|error| fault(signed.place, error.to_string()))
    }

    fn date(&self, place: Place) -> Result<String, Faulty> {
        let moment = Timestamp::from_second(self.now).map_err(|error| fault(place, error.to_string()))?;
        Ok(moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
    }

    /// The text, with what its names in braces stand for: `{token.good}`, `{certificate.tpp-a.base64}`,
    /// `{api_key.acme}`, `{password.acme}`, `{proxy_secret}`. Other braces are left as they are.
    fn filled(&self, text: &str, place: Place) -> Result<String, Faulty> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let word =
                after.split_once('}').and_then(|(word, after)| Some((self.stands_for(word, place)?, after)));
            match word {
                Some((value, after)) => {
                    filled.push_str(&value?);
                    rest = after;
                }
                None => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn stands_for(&self, word: &str, place: Place) -> Option<Result<String, Faulty>> {
        if word == "proxy_secret" {
            return Some(self.play.cast.secret(PROXY).map_err(|error| fault(place, error.to_string())));
        }
        let (kind, name) = word.split_once('.')?;
        match kind {
            "token" => Some(self.minted(name, place).map(|minted| minted.text)),
            "api_key" => Some(self.first("api_key", name, place)),
            "password" => Some(self.first("basic", name, place)),
            "certificate" => {
                let (name, form) = name.rsplit_once('.')?;
                Some(self.certificate(name, place).and_then(|certificate| match form {
                    "base64" => Ok(certificate.base64()),
                    "sha256" => Ok(hex(&certificate.thumbprint())),
                    "pem_url_encoded" => Ok(escaped(&certificate.pem)),
                    _ => Err(fault(place, "forms here: `base64`, `sha256`, `pem_url_encoded`")),
                }))
            }
            _ => None,
        }
    }

    fn first(&self, kind: &str, client: &str, place: Place) -> Result<String, Faulty> {
        let found = self.facts.client(client).and_then(|client| client.of_kind(kind).next());
        match found {
            Some((number, _)) => self.secret_of(client, number, false, place),
            None => Err(fault(place, format!("no client `{client}` has a credential of kind `{kind}`"))),
        }
    }
}

fn value(text: &str, place: Place) -> Result<HeaderValue, Faulty> {
    HeaderValue::from_str(text).map_err(|_| fault(place, "this cannot stand in a header"))
}

/// Every byte that is no letter or digit, percent-encoded.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(escape).collect()
}

/// HMAC (RFC 2104) with SHA-1, for callers who cannot do better.
fn hmac_sha1(key: &[u8], message: &[u8]) -> [u8; 20] {
    const BLOCK: usize = 64;
    let short = if key.len() > BLOCK { legacy_sha1(key).to_vec() } else { key.to_vec() };
    let padded = |mask: u8| -> Vec<u8> {
        let key = short.iter().copied().chain(std::iter::repeat(0)).take(BLOCK);
        key.map(|byte| byte ^ mask).collect()
    };
    let inner = legacy_sha1(&[padded(0x36), message.to_vec()].concat());
    legacy_sha1(&[padded(0x5c), inner.to_vec()].concat())
}

/// Whether a listener of `gateway.yaml` speaks TLS.
pub(crate) fn speaks_tls(root: &portcullis_core::document::Node, listener: Option<&str>) -> bool {
    let listeners = at(root, "listen");
    let found = match listener {
        Some(name) => listeners.and_then(|listeners| at(listeners, name)),
        None => listeners.and_then(|all| super::tree::entries(all).first()).map(|entry| &entry.value),
    };
    found.is_some_and(|listener| at(listener, "tls").is_some())
}
