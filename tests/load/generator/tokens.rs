//! Tokens for the benchmark, signed by the project's own signer.

use anyhow::Context as _;
use portcullis_jose::{Algorithm, SigningKey, base64url, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::Arguments;

pub(crate) fn tokens(arguments: &Arguments) -> anyhow::Result<String> {
    let count: usize = arguments.at(1)?.parse()?;
    let algorithm = arguments.at(4)?;
    let algorithm = Algorithm::parse(algorithm).with_context(|| format!("{algorithm} is no algorithm"))?;
    let key = SigningKey::from_pem(algorithm, &std::fs::read(arguments.at(2)?)?)?;
    let claims = std::fs::read_to_string(arguments.at(3)?)?;
    let mut lines = Vec::with_capacity(count);
    for number in 0..count {
        let claims = serde_json::from_str(&claims.replace("{n}", &number.to_string()))?;
        lines.push(key.sign(serde_json::json!({ "typ": "at+jwt" }), &claims)?);
    }
    Ok(lines.join("\n"))
}

pub(crate) fn thumbprint(path: &str) -> anyhow::Result<String> {
    let certificate = CertificateDer::from_pem_file(path).context("no certificate")?;
    Ok(base64url::encode(&digest::sha256(&certificate)))
}
