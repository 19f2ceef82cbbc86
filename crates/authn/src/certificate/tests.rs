use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use portcullis_core::{CertificateSource, Faults, Moment, PeerCertificate, Place, Reason, Rejection};
use portcullis_jose::base64url;
use rcgen::{DnType, DnValue, SanType};
use serde_json::{Value, json};

use super::{
    CertificateError, CertificateSpec, PinnedCertificates, Validity, identity, peer_certificate, validity,
};
use crate::testing::{NOW, certificate_der, moment, node, only_fault, peer, told};

/// RFC 8705 appendix A, an X.509 v1 certificate.
const RFC_8705: &str = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcw\
    OVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ_Au08_coZw\
    xS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E-vwJD_D1AGHGzuri-hlV_PpQEKTWUVeORWz83AiEA\
    5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L-SY";

fn anchors() -> [(String, Place); 1] {
    [("tpp".to_owned(), Place::default())]
}

fn pinned(written: &Value) -> PinnedCertificates {
    let mut faults = Faults::default();
    let spec = CertificateSpec::read(&node(written), &mut faults).expect("a spec");
    let compiled = spec.compile(&anchors(), &Arc::default(), &mut faults);
    compiled.and_then(|compiled| compiled.pinned).unwrap_or_else(|| panic!("{:#?}", told(faults)))
}

fn judged(written: &Value, certificate: &PeerCertificate) -> Result<(), Reason> {
    let judged = pinned(written).judge(certificate, moment(NOW));
    judged.map_err(|error| Rejection::from(error).reason())
}

/// CNF-09, CRT-08.
#[test]
fn the_thumbprint_is_that_of_rfc_8705() {
    let der = base64url::decode(RFC_8705.as_bytes()).expect("base64url");
    let certificate = peer(&der, "tpp");
    assert_eq!(base64url::encode(&certificate.thumbprint), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    assert_eq!(&*certificate.subject_text, "CN=mtls");
    assert_eq!(&*certificate.serial, [2]);
    assert_eq!((certificate.valid_from, certificate.valid_until), (1_539_866_229, 1_651_495_029));
}

#[test]
fn bytes_that_are_not_one_certificate_are_refused() {
    let der = certificate_der(&[(DnType::CommonName, "a")], &[]);
    let mut longer = der.clone();
    longer.push(0);
    for bytes in [&b""[..], b"\x30\x00", &der[..der.len() - 1], &longer, b"-----BEGIN CERTIFICATE-----"] {
        let always = Validity { from: 0, until: i64::MAX };
        let parsed = peer_certificate(bytes, always, Vec::new(), CertificateSource::Handshake);
        assert_eq!(parsed.err(), Some(CertificateError::Malformed));
    }
    assert!(validity(&der).is_ok());
}

/// OZ-06, trap 21: attributes are values, never parts of a printed name.
#[test]
fn subject_attributes_are_decoded_one_by_one() {
    let der = certificate_der(
        &[
            (DnType::CommonName, "a, OU=admin+\"x\""),
            (DnType::OrganizationName, "Bänk \u{1f3e6}"),
            (DnType::CustomDnType(vec![2, 5, 4, 97]), "PSDGB-OB-1"),
        ],
        &[],
    );
    let certificate = peer(&der, "tpp");
    let values =
        |oid: &str| -> Vec<String> { certificate.subject_values(oid).map(ToString::to_string).collect() };
    assert_eq!(values("2.5.4.3"), ["a, OU=admin+\"x\""]);
    assert_eq!(values("2.5.4.10"), ["Bänk \u{1f3e6}"]);
    assert_eq!(values("2.5.4.97"), ["PSDGB-OB-1"]);
    assert_eq!(values("2.5.4.11"), [""; 0]);
    assert!(
        certificate.subject_text.contains("CN=a\\, OU\\=admin\\+\\\"x\\\""),
        "{}",
        certificate.subject_text
    );
}

#[test]
fn other_string_types_are_read_and_broken_ones_equal_nothing() {
    let mut params = rcgen::CertificateParams::default();
    let bmp = rcgen::string::BmpString::try_from("Zürich").expect("a BMP string");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::LocalityName, DnValue::BmpString(bmp));
    params.distinguished_name.push(DnType::CommonName, "line\nfeed");
    let key = rcgen::KeyPair::generate().expect("a key");
    let der = params.self_signed(&key).expect("a certificate").der().to_vec();
    let certificate = peer(&der, "tpp");
    assert_eq!(certificate.subject_values("2.5.4.7").next().map(|value| &**value), Some("Zürich"));
    assert_eq!(
        certificate.subject_values("2.5.4.3").next().map(|value| &**value),
        Some("#6c696e650a66656564")
    );
}

/// CRT-05, traps 20 and 21.
#[test]
fn every_pin_must_hold() {
    let der = certificate_der(
        &[
            (DnType::CommonName, "tpp-a"),
            (DnType::OrganizationName, "Acme, Inc."),
            (DnType::OrganizationalUnitName, "6f1c"),
        ],
        &[
            SanType::DnsName("Api.Tpp.example".try_into().expect("a name")),
            SanType::URI("spiffe://tpp/a".try_into().expect("a URI")),
            SanType::Rfc822Name("Ops@tpp.example".try_into().expect("an address")),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        ],
    );
    let certificate = peer(&der, "tpp");
    let fingerprint = super::thumbprint_text(&certificate);
    let pairs: Vec<_> = certificate.thumbprint.iter().map(|byte| format!("{byte:02X}")).collect();
    let colons = pairs.join(":");
    let refused = Err(Reason::CertificateRefused);
    for (pins, expected) in [
        (json!({}), Ok(())),
        (json!({"subject": {"ou": "6f1c"}}), Ok(())),
        (json!({"subject": {"ou": ["other", "6f1c"], "o": "Acme, Inc."}}), Ok(())),
        (json!({"subject": {"2.5.4.11": "6f1c"}}), Ok(())),
        (json!({"subject": {"ou": "6F1C"}}), refused),
        (json!({"subject": {"ou": "6f1"}}), refused),
        (json!({"subject": {"o": "Acme"}}), refused),
        (json!({"subject": {"l": "London"}}), refused),
        (json!({"subject": {"ou": "6f1c", "cn": "tpp-b"}}), refused),
        (json!({"subject": "OU=6F1C,O=acme\\, inc.,CN=tpp-a"}), Ok(())),
        (json!({"subject": ["CN=x", "OU=6f1c,O=Acme\\, Inc.,CN=tpp-a"]}), Ok(())),
        (json!({"subject": "CN=tpp-a,O=Acme\\, Inc.,OU=6f1c"}), refused),
        (json!({"subject": "OU=6f1c,O=Acme\\, Inc."}), refused),
        (json!({"san": {"dns": "api.tpp.example"}}), Ok(())),
        (json!({"san": {"dns": ["x.example", "API.TPP.EXAMPLE"]}}), Ok(())),
        (json!({"san": {"dns": "tpp.example"}}), refused),
        (json!({"san": {"dns": "*.tpp.example"}}), refused),
        (json!({"san": {"uri": "spiffe://tpp/a"}}), Ok(())),
        (json!({"san": {"uri": "spiffe://tpp/A"}}), refused),
        (json!({"san": {"email": "Ops@tpp.example"}}), Ok(())),
        (json!({"san": {"email": "ops@tpp.example"}}), refused),
        (json!({"san": {"ip": "192.0.2.1"}}), Ok(())),
        (json!({"san": {"ip": "::ffff:192.0.2.1"}}), refused),
        (json!({"san": {"dns": "api.tpp.example", "ip": "192.0.2.2"}}), refused),
        (json!({"fingerprints": [fingerprint]}), Ok(())),
        (json!({"fingerprints": colons}), Ok(())),
        (json!({"fingerprints": "00".repeat(32)}), refused),
    ] {
        let mut written = pins.clone();
        written["trust"] = "tpp".into();
        assert_eq!(judged(&written, &certificate), expected, "{pins}");
    }
}

/// CRT-07: of a certificate that nobody vouches for the key counts, and only where that is written.
#[test]
fn possession_is_enough_only_where_it_is_written() {
    let der = certificate_der(&[(DnType::CommonName, "tpp-a")], &[]);
    let vouched = peer(&der, "tpp");
    let held = PeerCertificate { trusted_by: Vec::new(), ..PeerCertificate::clone(&vouched) };
    let fingerprint = super::thumbprint_text(&vouched);
    let refused = Err(Reason::CertificateRefused);
    for (pins, of_vouched, of_held) in [
        (json!({"fingerprints": fingerprint}), Ok(()), refused),
        (json!({"fingerprints": fingerprint, "verify": "path"}), Ok(()), refused),
        (json!({"fingerprints": fingerprint, "verify": "possession"}), Ok(()), Ok(())),
        (json!({"fingerprints": "00".repeat(32), "verify": "possession"}), refused, refused),
        (json!({"fingerprints": fingerprint, "trust": "tpp"}), Ok(()), refused),
        (json!({"trust": "tpp"}), Ok(()), refused),
    ] {
        assert_eq!(judged(&pins, &vouched), of_vouched, "{pins}");
        assert_eq!(judged(&pins, &held), of_held, "{pins}");
    }
}

/// CRT-05: repeated where one is expected.
#[test]
fn a_repeated_attribute_is_refused_even_if_one_value_fits() {
    let der = certificate_der(&[(DnType::OrganizationalUnitName, "6f1c")], &[]);
    let mut certificate = PeerCertificate::clone(&peer(&der, "tpp"));
    certificate.subject.push(certificate.subject[0].clone());
    let pinned = json!({"trust": "tpp", "subject": {"ou": "6f1c"}});
    assert_eq!(judged(&pinned, &certificate), Err(Reason::CertificateRefused));
}

/// Security-reliability 2.3, `cc-two-uri-sans`.
#[test]
fn two_uris_are_refused_even_if_one_fits() {
    let uri = |text: &str| SanType::URI(text.try_into().expect("a URI"));
    let der = certificate_der(&[], &[uri("spiffe://tpp/a"), uri("spiffe://tpp/b")]);
    let pinned = json!({"trust": "tpp", "san": {"uri": ["spiffe://tpp/a", "spiffe://tpp/b"]}});
    assert_eq!(judged(&pinned, &peer(&der, "tpp")), Err(Reason::CertificateRefused));
}

/// TLS-05, CRT-03.
#[test]
fn time_and_anchor_are_judged_on_every_request() {
    let der = certificate_der(&[(DnType::CommonName, "a")], &[]);
    let path = Validity { from: NOW - 10, until: NOW + 10 };
    let known = peer_certificate(&der, path, vec!["tpp".into()], CertificateSource::Handshake);
    let certificate = known.expect("a certificate");
    let pinned = pinned(&json!({"trust": "tpp"}));
    let at = |second: i64| -> Result<(), Reason> {
        let now: Moment = moment(second);
        pinned.judge(&certificate, now).map_err(|error| Rejection::from(error).reason())
    };
    for (second, expected) in [
        (NOW - 11, Err(Reason::CertificateExpired)),
        (NOW - 10, Ok(())),
        (NOW + 10, Ok(())),
        (NOW + 11, Err(Reason::CertificateExpired)),
    ] {
        assert_eq!(at(second), expected, "{second}");
    }
    assert_eq!(judged(&json!({"trust": "tpp"}), &peer(&der, "staff")), Err(Reason::CertificateRefused));
}

#[test]
fn a_holder_is_keyed_by_thumbprint_and_shown_by_common_name() {
    let named = identity(&peer(&certificate_der(&[(DnType::CommonName, "tpp-a")], &[]), "tpp"), None);
    assert_eq!(&*named.subject, "tpp-a");
    assert_eq!(named.key.len(), "certificate:".len() + 64);
    let der = certificate_der(&[(DnType::OrganizationName, "Acme")], &[]);
    assert_eq!(&*identity(&peer(&der, "tpp"), None).subject, "O=Acme");
    let nameless: Arc<PeerCertificate> = peer(&certificate_der(&[], &[]), "tpp");
    assert_eq!(&*identity(&nameless, None).subject, super::thumbprint_text(&nameless));
}

#[test]
fn faults_are_told_where_they_are() {
    for (written, code, saying) in [
        (json!({}), "missing_key", "`certificate` needs `trust`"),
        (json!({"trust": "tpq"}), "undefined", "trust anchor `tpq` is not defined"),
        (json!({"trust": "tpp", "pins": {}}), "unknown_key", "unknown key `pins`"),
        (json!({"trust": "tpp", "subject": {"ua": "x"}}), "unknown_key", "`ua` is not an attribute"),
        (json!({"trust": "tpp", "subject": {}}), "empty", "must not be empty"),
        (json!({"trust": "tpp", "subject": "/C=AE/CN=a"}), "bad_name", "is not a distinguished name"),
        (json!({"trust": "tpp", "issuer": ["CN=a", "CN=a;O=b"]}), "bad_name", "behind a backslash"),
        (json!({"trust": "tpp", "subject": {"ou": []}}), "empty", "must not be empty"),
        (json!({"trust": "tpp", "san": {}}), "missing_key", "`san` needs"),
        (json!({"trust": "tpp", "san": {"ip": "300.1.1.1"}}), "bad_address", "not an IP address"),
        (json!({"trust": "tpp", "fingerprints": "abc"}), "bad_fingerprint", "not a SHA-256 fingerprint"),
        (json!({"spki": "00".repeat(32), "verify": "posession"}), "unknown_word", "posession"),
        (
            json!({"trust": "tpp", "spki": "00".repeat(32), "verify": "possession"}),
            "no_use",
            "looks at no path",
        ),
        (json!({"trust": "tpp", "verify": "possession"}), "no_use", "only for a key that is pinned"),
    ] {
        let mut faults = Faults::default();
        if let Some(spec) = CertificateSpec::read(&node(&written), &mut faults) {
            let _ = spec.compile(&anchors(), &Arc::default(), &mut faults);
        }
        only_fault(faults, code, saying);
    }
}
