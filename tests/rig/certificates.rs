//! Throw-away certificate authorities, leaf certificates and revocation lists.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_jose::{base64url, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    RevocationReason, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Seconds since 1970.
pub(crate) fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(now.as_secs()).expect("a clock before the end of time")
}

/// Sets the life of a certificate in seconds from now.
pub(crate) fn set_validity(params: &mut CertificateParams, from: i64, until: i64) {
    let epoch = date_time_ymd(1970, 1, 1);
    let at = |offset: i64| {
        epoch + Duration::from_secs(u64::try_from(unix_now() + offset).expect("a time after 1970"))
    };
    params.not_before = at(from);
    params.not_after = at(until);
}

/// A certificate with its key.
pub(crate) struct Leaf {
    /// Certificate, then the intermediates, if any.
    pub(crate) pem: String,
    pub(crate) key_pem: String,
    /// Certificates in the order of the handshake.
    pub(crate) chain: Vec<Vec<u8>>,
    serial: Vec<u8>,
}

impl Leaf {
    /// `x5t#S256` of the certificate (RFC 8705 section 3.1).
    pub(crate) fn thumbprint(&self) -> String {
        base64url::encode(&digest::sha256(&self.chain[0]))
    }

    /// One that somebody else has made.
    pub(crate) fn of_pem(pem: &str, key_pem: &str) -> Self {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        Self {
            pem: pem.to_owned(),
            key_pem: key_pem.to_owned(),
            chain: vec![der.to_vec()],
            serial: Vec::new(),
        }
    }

    /// A certificate that nobody but its holder vouches for, over a key of its own or this one.
    pub(crate) fn self_signed(common_name: &str, key_pem: Option<&str>) -> Self {
        Self::self_signed_from(common_name, key_pem, -3_600, 86_400)
    }

    /// The same with another life, in seconds from now.
    pub(crate) fn self_signed_from(common_name: &str, key_pem: Option<&str>, from: i64, until: i64) -> Self {
        let key = match key_pem {
            Some(pem) => KeyPair::from_pem(pem).expect("a key"),
            None => KeyPair::generate().expect("a key"),
        };
        let serial = [&[0x01], &digest::random::<16>().expect("randomness")[..]].concat();
        let mut params = CertificateParams::default();
        params.distinguished_name = named(common_name);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        set_validity(&mut params, from, until);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            chain: vec![certificate.der().to_vec()],
            serial,
        }
    }

    /// SHA-256 of the public key, as hexadecimal digits.
    pub(crate) fn key_fingerprint(&self) -> String {
        let key = KeyPair::from_pem(&self.key_pem).expect("a key");
        digest::sha256(&key.subject_public_key_info()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Its serial number as tools print it.
    pub(crate) fn serial_number(&self) -> String {
        self.serial.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// The same as lower-case hexadecimal digits: how policy files pin a certificate.
    pub(crate) fn fingerprint(&self) -> String {
        digest::sha256(&self.chain[0]).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: Vec<u8>,
    /// Certificates between this one and the root, this one first; empty for a root.
    path: Vec<(Vec<u8>, String)>,
}

impl Authority {
    /// A root.
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = authority_params(name);
        let certificate = params.self_signed(&key).expect("a root");
        Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
            path: Vec::new(),
        }
    }

    /// An authority that this one has certified.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = authority_params(name);
        let certificate = params.signed_by(&key, &self.issuer).expect("an intermediate");
        let mut path = vec![(certificate.der().to_vec(), certificate.pem())];
        path.extend(self.path.iter().cloned());
        Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
            path,
        }
    }

    /// The authority's certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// A certificate for a server with these names (an address counts as an address).
    pub(crate) fn server(&self, names: &[&str]) -> Leaf {
        self.leaf("server", |params| {
            params.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// A certificate for a client.
    pub(crate) fn client(&self, common_name: &str) -> Leaf {
        self.leaf(common_name, |_| ())
    }

    /// A client certificate, changed before it is signed.
    pub(crate) fn leaf(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = named(common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let serial = digest::random::<16>().expect("randomness");
        // The top bit of a serial number would be its sign.
        let serial = [&[0x01], &serial[..]].concat();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        set_validity(&mut params, -3_600, 86_400);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a leaf");
        let mut pem = certificate.pem();
        let mut chain = vec![certificate.der().to_vec()];
        for (between_der, between_pem) in &self.path {
            pem.push_str(between_pem);
            chain.push(between_der.clone());
        }
        Leaf { pem, key_pem: key.serialize_pem(), chain, serial }
    }

    /// A revocation list, good for `seconds` from now (negative: it ran out that long ago).
    pub(crate) fn revocation_list(&self, revoked: &[&Leaf], seconds: i64) -> String {
        self.revocation_list_of(-7_200, revoked, seconds)
    }

    /// The same, made then.
    pub(crate) fn revocation_list_of(&self, made: i64, revoked: &[&Leaf], seconds: i64) -> String {
        let mut times = CertificateParams::default();
        set_validity(&mut times, made, seconds);
        let list = CertificateRevocationListParams {
            this_update: times.not_before,
            next_update: times.not_after,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|leaf| RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&leaf.serial),
                    revocation_time: times.not_before,
                    reason_code: Some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a revocation list").pem().expect("PEM")
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    set_validity(&mut params, -86_400, 864_000);
    params
}

/// A subject of a common name alone.
pub(crate) fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn alternative_name(name: &str) -> SanType {
    match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().expect("a DNS name")),
    }
}
