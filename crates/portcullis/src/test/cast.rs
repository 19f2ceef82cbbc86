//! What is made for one run: keys, secrets and authorities that sign for nobody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use portcullis_core::Secret;
use portcullis_jose::digest::{random, sha256};
use portcullis_jose::{Algorithm, PasswordHash, SigningKey, base64url};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, date_time_ymd,
};

/// How long certificates count, either side of the moment a test is set in.
const DAYS: i64 = 365;
const SECONDS_OF_A_DAY: i64 = 24 * 60 * 60;

/// A certificate that was made for the run.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// DER.
    pub(crate) der: Vec<u8>,
    /// PEM.
    pub(crate) pem: String,
    /// SHA-256 of its public key.
    pub(crate) spki: [u8; 32],
}

impl Certificate {
    /// The thumbprint.
    pub(crate) fn thumbprint(&self) -> [u8; 32] {
        sha256(&self.der)
    }

    /// DER as base64.
    pub(crate) fn base64(&self) -> String {
        STANDARD.encode(&self.der)
    }
}

/// What a certificate says of its holder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    /// Attributes by their short names, in order.
    pub(crate) attributes: Vec<(&'static str, String)>,
    /// Names in the subject alternative name.
    pub(crate) dns: Vec<String>,
}

/// Attributes of a subject that a test may write.
pub(crate) const ATTRIBUTES: [&str; 6] = ["cn", "o", "ou", "c", "l", "st"];

/// A secret and its owner's name.
type Named<T> = Mutex<BTreeMap<String, T>>;

/// Keys, secrets and authorities by name, each made when it is first asked for.
#[derive(Default)]
pub(crate) struct Cast {
    keys: Named<Arc<SigningKey>>,
    secrets: Named<String>,
    authorities: Named<Arc<Authority>>,
    passwords: Named<String>,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Cast {
    /// A key of that name.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn key(&self, name: &str, algorithm: Algorithm) -> anyhow::Result<Arc<SigningKey>> {
        once(&self.keys, &format!("{name} {algorithm}"), || Ok(Arc::new(SigningKey::generate(algorithm)?)))
    }

    /// A secret of that name: 64 random bytes, written in letters.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub(crate) fn secret(&self, name: &str) -> anyhow::Result<String> {
        once(&self.secrets, name, || Ok(base64url::encode(&random::<64>()?)))
    }

    /// A key that signs with the secret of that name.
    ///
    /// # Errors
    /// As [`Cast::secret`].
    pub(crate) fn secret_key(&self, name: &str, algorithm: Algorithm) -> anyhow::Result<Arc<SigningKey>> {
        let secret = Secret::new(self.secret(name)?.into_bytes());
        Ok(Arc::new(SigningKey::from_secret(algorithm, &secret)?))
    }

    /// The stored form of a password.
    ///
    /// # Errors
    /// As [`Cast::secret`].
    pub(crate) fn password_hash(&self, password: &str) -> anyhow::Result<String> {
        once(&self.passwords, password, || Ok(PasswordHash::make(password.as_bytes())?))
    }

    /// The certificate of an authority, PEM.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn authority(&self, name: &str, now: i64) -> anyhow::Result<String> {
        Ok(self.authority_of(name, now)?.pem.clone())
    }

    /// A certificate of a caller, signed by an authority, or by itself.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn certificate(
        &self,
        authority: Option<&str>,
        subject: &Subject,
        now: i64,
    ) -> anyhow::Result<Certificate> {
        let mut params = CertificateParams::new(subject.dns.clone())?;
        for (attribute, value) in &subject.attributes {
            params.distinguished_name.push(kind(attribute), value.as_str());
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        self.sign(params, &key, authority, now)
    }

    /// A certificate of a server and its key, PEM.
    ///
    /// # Errors
    /// They cannot be made.
    pub(crate) fn server(&self, now: i64) -> anyhow::Result<(String, String)> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "localhost");
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.extended_key_usages = usages.into();
        let key = KeyPair::generate()?;
        Ok((self.sign(params, &key, Some("servers"), now)?.pem, key.serialize_pem()))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &KeyPair,
        authority: Option<&str>,
        now: i64,
    ) -> anyhow::Result<Certificate> {
        validity(&mut params, now)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let made = match authority {
            Some(name) => params.signed_by(key, &self.authority_of(name, now)?.issuer)?,
            None => params.self_signed(key)?,
        };
        Ok(Certificate {
            der: made.der().to_vec(),
            pem: made.pem(),
            spki: sha256(&key.subject_public_key_info()),
        })
    }

    fn authority_of(&self, name: &str, now: i64) -> anyhow::Result<Arc<Authority>> {
        once(&self.authorities, &format!("{name} {now}"), || {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(Vec::new())?;
            params.distinguished_name.push(DnType::CommonName, format!("rehearsal of {name}"));
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            validity(&mut params, now)?;
            let pem = params.self_signed(&key)?.pem();
            Ok(Arc::new(Authority { pem, issuer: Issuer::new(params, key) }))
        })
    }
}

/// What is kept under a name; made if there is nothing.
fn once<T: Clone>(all: &Named<T>, name: &str, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.get(name) {
        return Ok(known.clone());
    }
    let made = make()?;
    all.insert(name.to_owned(), made.clone());
    Ok(made)
}

fn kind(attribute: &str) -> DnType {
    match attribute {
        "o" => DnType::OrganizationName,
        "ou" => DnType::OrganizationalUnitName,
        "c" => DnType::CountryName,
        "l" => DnType::LocalityName,
        "st" => DnType::StateOrProvinceName,
        _ => DnType::CommonName,
    }
}

fn validity(params: &mut CertificateParams, now: i64) -> anyhow::Result<()> {
    let day = |seconds: i64| -> anyhow::Result<_> {
        let date = Timestamp::from_second(seconds).context("the moment is out of range")?;
        let date = date.to_zoned(TimeZone::UTC).date();
        Ok(date_time_ymd(i32::from(date.year()), u8::try_from(date.month())?, u8::try_from(date.day())?))
    };
    params.not_before = day(now - DAYS * SECONDS_OF_A_DAY)?;
    params.not_after = day(now + DAYS * SECONDS_OF_A_DAY)?;
    Ok(())
}
