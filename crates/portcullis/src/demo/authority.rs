//! The certificates of the demo: two authorities, a server, and two callers, made when the demo starts.

use anyhow::Context as _;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// How long the certificates count. The demo makes new ones at each start.
const VALID_DAYS: i64 = 30;

/// A certificate and its key.
pub(crate) struct Credential {
    /// The certificate, PEM.
    pub(crate) certificate: String,
    /// Its private key, PEM (PKCS#8).
    pub(crate) key: String,
    /// The certificate, DER.
    pub(crate) der: Vec<u8>,
}

/// An authority that signs certificates.
pub(crate) struct Authority {
    /// Its own certificate, PEM.
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority with a new key.
    ///
    /// # Errors
    /// The key or the certificate could not be made.
    pub(crate) fn new(organisation: &str, name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = params(organisation, name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// A certificate for a TLS server on this machine.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub(crate) fn server(&self, organisation: &str) -> anyhow::Result<Credential> {
        let mut params = CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(String::from))?;
        name(&mut params, organisation, "localhost");
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a caller.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub(crate) fn caller(&self, organisation: &str, common_name: &str) -> anyhow::Result<Credential> {
        self.sign(params(organisation, common_name)?, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<Credential> {
        validity(&mut params)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Credential {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
        })
    }
}

fn params(organisation: &str, common_name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    name(&mut params, organisation, common_name);
    validity(&mut params)?;
    Ok(params)
}

fn name(params: &mut CertificateParams, organisation: &str, common_name: &str) {
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    params.distinguished_name.push(DnType::CommonName, common_name);
}

/// From yesterday, so that a clock a little behind does not refuse a certificate that was made this minute.
fn validity(params: &mut CertificateParams) -> anyhow::Result<()> {
    let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = |date: Date| -> anyhow::Result<_> {
        Ok(date_time_ymd(i32::from(date.year()), u8::try_from(date.month())?, u8::try_from(date.day())?))
    };
    params.not_before = day(today.yesterday().context("there is no yesterday")?)?;
    params.not_after = day(today.checked_add(VALID_DAYS.days())?)?;
    Ok(())
}
