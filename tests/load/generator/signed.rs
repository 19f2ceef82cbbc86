//! Requests for the benchmark that carry a proof each, all of them different: `GET /` for one host.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use portcullis_core::Secret;
use portcullis_jose::digest::{KeyedHash, random, sha256};
use portcullis_jose::{Algorithm, KeyProof, SigningKey, base64url};
use serde_json::{Value, json};

use crate::Arguments;

/// The fields of each request on a line of its own, with a tab between two fields.
pub(crate) fn signed(arguments: &Arguments) -> anyhow::Result<String> {
    let (kind, count, host): (_, usize, _) = (arguments.at(1)?, arguments.at(2)?.parse()?, arguments.at(3)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    match kind {
        "hmac" => hmac(arguments.at(4)?, host, now, count),
        "signature" => signature(arguments.at(4)?, host, now, count),
        "dpop" => dpop(arguments.at(4)?, arguments.at(5)?, host, now, count),
        other => bail!("{other} is no kind of proof"),
    }
}

/// draft-cavage-http-signatures-12 with `hmac-sha256`.
fn hmac(secret: &str, host: &str, now: u64, count: usize) -> anyhow::Result<String> {
    let key = KeyedHash::new(&read(secret)?);
    let date =
        jiff::Timestamp::from_second(i64::try_from(now)?)?.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut lines = String::new();
    for number in 0..count {
        let text = format!("(request-target): get /\nhost: {host}\ndate: {date}\nx-request-id: {number}");
        let signature = standard_base64(&key.digest(text.as_bytes()));
        writeln!(
            lines,
            "Host: {host}\tDate: {date}\tX-Request-Id: {number}\tAuthorization: Signature keyId=\"load\",\
             algorithm=\"hmac-sha256\",headers=\"(request-target) host date x-request-id\",signature=\"{signature}\""
        )?;
    }
    Ok(lines)
}

/// RFC 9421 with `hmac-sha256`.
fn signature(secret: &str, host: &str, now: u64, count: usize) -> anyhow::Result<String> {
    let key = KeyedHash::new(&read(secret)?);
    let run = base64url::encode(&random::<8>()?);
    let mut lines = String::new();
    for number in 0..count {
        let parameters = format!(
            "(\"@method\" \"@target-uri\");created={now};keyid=\"load\";alg=\"hmac-sha256\";nonce=\"{run}-{number}\""
        );
        let base =
            format!("\"@method\": GET\n\"@target-uri\": http://{host}/\n\"@signature-params\": {parameters}");
        let signature = standard_base64(&key.digest(base.as_bytes()));
        writeln!(lines, "Host: {host}\tSignature-Input: load={parameters}\tSignature: load=:{signature}:")?;
    }
    Ok(lines)
}

/// RFC 9449: a token of the issuer whose key it is, bound to a key made here, with a proof by that key.
fn dpop(issuer: &str, claims: &str, host: &str, now: u64, count: usize) -> anyhow::Result<String> {
    let issuer = SigningKey::from_pem(Algorithm::Rs256, &std::fs::read(issuer)?)?;
    let holder = SigningKey::generate(Algorithm::Es256)?;
    let mut jwk = holder.public_jwk("load").context("a key without a public half")?;
    jwk.as_object_mut().context("a key that is no object")?.remove("kid");
    let prove = |claims: &Value| holder.sign(json!({ "typ": "dpop+jwt", "jwk": jwk }), claims);
    let example = prove(&json!({}))?;
    let thumbprint = base64url::encode(KeyProof::parse(example.as_bytes())?.thumbprint());
    let mut claims: Value = serde_json::from_str(&std::fs::read_to_string(claims)?.replace("{n}", "0"))?;
    let object = claims.as_object_mut().context("claims that are no object")?;
    object.insert("cnf".to_owned(), json!({ "jkt": thumbprint }));
    let token = issuer.sign(json!({ "typ": "at+jwt" }), &claims)?;
    let hash = base64url::encode(&sha256(token.as_bytes()));
    let run = base64url::encode(&random::<8>()?);
    let mut lines = String::new();
    for number in 0..count {
        let proof = prove(&json!({
            "jti": format!("{run}-{number}"), "htm": "GET", "htu": format!("http://{host}/"), "iat": now, "ath": hash,
        }))?;
        writeln!(lines, "Host: {host}\tAuthorization: DPoP {token}\tDPoP: {proof}")?;
    }
    Ok(lines)
}

fn read(path: &str) -> anyhow::Result<Secret> {
    Ok(Secret::new(std::fs::read(path)?))
}

fn standard_base64(bytes: &[u8]) -> String {
    let mut text = base64url::encode(bytes).replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}
