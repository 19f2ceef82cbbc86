//! Makes tokens, and proofs of possession.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use anyhow::Context as _;
use portcullis_core::Place;
use portcullis_jose::digest::{random, sha256};
use portcullis_jose::{Algorithm, base64url};
use serde_json::{Map, Value, json};

use super::cast::Cast;
use super::facts::{ClientFacts, Facts, IssuerFacts, KeysAt};
use super::outside::Introspected;
use super::stage::{Certificates, Faulty, KID, credential, hex, issuer_key, preferred};
use super::suite::{TokenSpec, fault};
use super::tree::text_at;

/// A token, and who holds the key it is bound to.
#[derive(Clone)]
pub(crate) struct Minted {
    pub(crate) text: String,
    pub(crate) holder: Option<String>,
}

/// Makes the tokens of one case, each once.
pub(crate) struct Mint<'m> {
    pub(crate) cast: &'m Cast,
    pub(crate) facts: &'m Facts,
    pub(crate) specs: &'m [TokenSpec],
    pub(crate) certificates: &'m Certificates,
    pub(crate) now: i64,
    made: RefCell<BTreeMap<String, Minted>>,
    count: Cell<u32>,
}

impl<'m> Mint<'m> {
    pub(crate) fn new(
        cast: &'m Cast,
        facts: &'m Facts,
        (specs, certificates): (&'m [TokenSpec], &'m Certificates),
        now: i64,
    ) -> Self {
        Self { cast, facts, specs, certificates, now, made: RefCell::default(), count: Cell::new(0) }
    }

    /// A token by its name; with what its provider says of it, if it is made now and opaque.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn token(&self, name: &str, place: Place) -> Result<(Minted, Option<Introspected>), Faulty> {
        if let Some(made) = self.made.borrow().get(name) {
            return Ok((made.clone(), None));
        }
        let Some(spec) = self.specs.iter().find(|spec| spec.name.value == name) else {
            return Err(fault(place, format!("there is no token `{name}`")));
        };
        let made = self.make(spec).map_err(|error| fault(spec.name.place, format!("{error:#}")))?;
        self.made.borrow_mut().insert(name.to_owned(), made.0.clone());
        Ok(made)
    }

    fn make(&self, spec: &TokenSpec) -> anyhow::Result<(Minted, Option<Introspected>)> {
        let name = spec.issuer.as_deref().context("it has no issuer")?;
        let issuer = self.facts.issuer(name).context("it has no issuer")?;
        let claims = self.claims(spec, issuer)?;
        if spec.opaque {
            let prefix = issuer.introspect.as_ref().context("its issuer is not asked about tokens")?;
            let text = format!("{}{}", prefix.prefix, hex(&random::<16>()?));
            let said = if spec.inactive { json!({ "active": false }) } else { Value::Object(claims) };
            let known = Introspected { token: text.clone(), issuer: name.to_owned(), said };
            return Ok((Minted { text, holder: spec.holder.clone() }, Some(known)));
        }
        let text = self.signed(spec, issuer, &claims)?;
        Ok((Minted { text, holder: spec.holder.clone() }, None))
    }

    fn claims(&self, spec: &TokenSpec, issuer: &IssuerFacts) -> anyhow::Result<Map<String, Value>> {
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let issued = self.now.saturating_sub(seconds(spec.age));
        let expires = issued.saturating_add(seconds(spec.lifetime));
        self.count.set(self.count.get() + 1);
        let mut claims = Map::new();
        let subject = spec.client.clone().unwrap_or_else(|| spec.name.value.clone());
        claims.extend(issuer.issuer.clone().map(|issuer| ("iss".to_owned(), issuer.into())));
        claims.extend(issuer.audience.clone().map(|audience| ("aud".to_owned(), audience.into())));
        claims.insert("sub".to_owned(), subject.clone().into());
        claims.insert("iat".to_owned(), issued.into());
        claims.insert("exp".to_owned(), expires.into());
        claims.insert("jti".to_owned(), format!("{}-{}", spec.name.value, self.count.get()).into());
        if matches!(issuer.profile.as_str(), "rfc9068" | "fapi2") {
            claims.insert("client_id".to_owned(), subject.into());
        }
        if spec.opaque {
            claims.insert("active".to_owned(), true.into());
            let kind = if spec.holder.is_some() { "DPoP" } else { "Bearer" };
            claims.insert("token_type".to_owned(), kind.into());
        }
        let mut confirmation = Map::new();
        if let Some(name) = &spec.bound_to {
            let found = self.certificates.iter().find(|(known, _)| known == name);
            let (_, certificate) = found.context("there is no such certificate")?;
            confirmation.insert("x5t#S256".to_owned(), base64url::encode(&certificate.thumbprint()).into());
        }
        if let Some(holder) = &spec.holder {
            confirmation.insert("jkt".to_owned(), thumbprint(self.cast, holder)?.into());
        }
        if !confirmation.is_empty() {
            claims.insert("cnf".to_owned(), confirmation.into());
        }
        claims.extend(spec.claims.clone());
        for claim in &spec.without {
            claims.remove(claim);
        }
        Ok(claims)
    }

    fn signed(
        &self,
        spec: &TokenSpec,
        issuer: &IssuerFacts,
        claims: &Map<String, Value>,
    ) -> anyhow::Result<String> {
        let mut header = Map::new();
        header.extend(issuer.header_type.clone().map(|kind| ("typ".to_owned(), kind.into())));
        header.extend(issuer.content_type.map(|kind| ("cty".to_owned(), kind.into())));
        let owner = match &issuer.keys {
            KeysAt::Clients => {
                let name =
                    spec.client.as_deref().context("its issuer's keys are with the clients: say `client`")?;
                let client = self.facts.client(name).context("there is no such client")?;
                let (owner, kid) = client_key(client)?;
                header.insert("kid".to_owned(), kid.into());
                owner
            }
            KeysAt::Nowhere => anyhow::bail!("its issuer has no keys: say `opaque: true`"),
            KeysAt::Pem | KeysAt::Secret => issuer_key(&issuer.name.value),
            KeysAt::Set | KeysAt::Url(_) | KeysAt::Discovered => {
                header.insert("kid".to_owned(), KID.into());
                issuer_key(&issuer.name.value)
            }
        };
        header.extend(spec.header.clone());
        header.retain(|_, value| !value.is_null());
        let owner = if spec.forged { format!("a stranger who is not {owner}") } else { owner };
        let usual = match issuer.keys {
            KeysAt::Clients => Some(Algorithm::Es256),
            _ => preferred(issuer),
        };
        let algorithm = spec.algorithm.or(usual).context("its issuer names no algorithm")?;
        let key = match issuer.keys {
            KeysAt::Secret => self.cast.secret_key(&owner, algorithm)?,
            _ => self.cast.key(&owner, algorithm)?,
        };
        Ok(key.sign(Value::Object(header), &Value::Object(claims.clone()))?)
    }
}

/// A client's key for tokens, and what it is called.
fn client_key(client: &ClientFacts) -> anyhow::Result<(String, String)> {
    let (number, node) = client.of_kind("jwt_key").next().context("its client has no `jwt_key`")?;
    let kid = text_at(node, "kid").unwrap_or(KID).to_owned();
    Ok((credential(&client.name.value, number), kid))
}

/// The public key of a holder, without what a proof leaves out.
fn public(cast: &Cast, holder: &str) -> anyhow::Result<Value> {
    let key = cast.key(&format!("holder {holder}"), Algorithm::Es256)?;
    let jwk = key.public_jwk(KID).context("a secret has no public half")?;
    Ok(json!({ "crv": jwk.get("crv"), "kty": jwk.get("kty"), "x": jwk.get("x"), "y": jwk.get("y") }))
}

/// RFC 7638: members in the order of their names, which is that of `serde_json`'s maps.
fn thumbprint(cast: &Cast, holder: &str) -> anyhow::Result<String> {
    let jwk = public(cast, holder)?;
    let member = |name: &str| jwk.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let text = format!(
        r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#,
        member("crv"),
        member("kty"),
        member("x"),
        member("y")
    );
    Ok(base64url::encode(&sha256(text.as_bytes())))
}

/// A proof that somebody holds a key (RFC 9449 section 4.2).
///
/// # Errors
/// It cannot be made.
pub(crate) fn prove(
    cast: &Cast,
    holder: &str,
    (method, url): (&str, &str),
    (token, nonce): (&str, Option<&str>),
    now: i64,
) -> anyhow::Result<String> {
    let mut claims = json!({
        "jti": hex(&random::<16>()?), "htm": method, "htu": url, "iat": now,
        "ath": base64url::encode(&sha256(token.as_bytes())),
    });
    if let (Some(nonce), Some(claims)) = (nonce, claims.as_object_mut()) {
        claims.insert("nonce".to_owned(), nonce.into());
    }
    let header = json!({ "typ": "dpop+jwt", "jwk": public(cast, holder)? });
    Ok(cast.key(&format!("holder {holder}"), Algorithm::Es256)?.sign(header, &claims)?)
}
