//! Requests signed by libraries nobody here wrote.

use std::process::Command;

use portcullis_core::Reason;
use portcullis_jose::digest::sha256;
use serde_json::{Value, json};

use crate::rig::client::{Answer, Client};
use crate::rig::interop;
use crate::rig::standard_base64;
use crate::rig::world::{HOST, Plan, World};

const API: &str = "\
api: signed
match: { host: api.bank.example, path: /signed/* }
upstream: accounts
authenticate:
  any_of:
    - signature: {}
    - hmac: { algorithms: [hmac-sha256, hmac-sha512, rsa-sha256] }
allow:
  - { name: anything, paths: [\"/*\"] }
";

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const CONTENT: &[u8] = b"{\"amount\": 10}";

/// A key pair made by OpenSSL: the private half, and the public one in the policy's directory.
fn pair(plan: &Plan, name: &str, arguments: &[&str]) -> String {
    let run = |arguments: &[&str], input: &str| {
        use std::io::Write as _;
        let mut child = Command::new("openssl")
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("openssl");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
        String::from_utf8(child.wait_with_output().expect("an end").stdout).expect("a PEM")
    };
    let private = run(&[&["genpkey"], arguments].concat(), "");
    plan.directory.write(&format!("keys/{name}.pub"), run(&["pkey", "-pubout"], &private));
    private
}

struct Keys {
    world: World,
    ed25519: String,
    p256: String,
    rsa: String,
}

fn keys() -> Keys {
    let plan = Plan::new(&[API]);
    plan.directory.write("secrets/acme", SECRET);
    let ed25519 = pair(&plan, "ed25519", &["-algorithm", "ed25519"]);
    let p256 = pair(&plan, "p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let rsa = pair(&plan, "rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    plan.directory.write(
        "clients/acme.yaml",
        "clients:
  acme:
    credentials:
      - hmac: { key_id: acme-secret, secret: { file: ../secrets/acme } }
      - hmac: { key_id: acme-rsa, public_key: { file: ../keys/rsa.pub } }
      - signature: { key_id: acme-secret, secret: { file: ../secrets/acme }, algorithm: hmac-sha256 }
      - signature: { key_id: acme-ed25519, public_key: { file: ../keys/ed25519.pub }, algorithm: ed25519 }
      - signature: { key_id: acme-p256, public_key: { file: ../keys/p256.pub }, algorithm: ecdsa-p256-sha256 }
      - signature: { key_id: acme-rsa, public_key: { file: ../keys/rsa.pub }, algorithm: rsa-v1_5-sha256 }
      - signature: { key_id: acme-pss, public_key: { file: ../keys/rsa.pub }, algorithm: rsa-pss-sha512 }
",
    );
    Keys { world: plan.start(), ed25519, p256, rsa }
}

/// Sends what a script has signed.
fn send(client: &Client, target: &str, headers: &str, content: &[u8]) -> Answer {
    let headers: Value = serde_json::from_str(headers).expect("headers");
    let mut call = client.post(target, content.to_vec());
    for (name, value) in headers.as_object().expect("headers") {
        if !matches!(name.to_lowercase().as_str(), "host" | "content-length") {
            call = call.header(name, value.as_str().expect("text"));
        }
    }
    call.send()
}

fn content_digest() -> String {
    format!("sha-256=:{}:", standard_base64(&sha256(CONTENT)))
}

/// RFC 9421: two independent signers, every algorithm each of them knows.
#[test]
fn message_signatures_of_other_libraries_are_read_as_they_mean_them() {
    let keys = keys();
    let world = &keys.world;
    let algorithms = [
        ("acme-secret", "hmac-sha256", &SECRET.to_owned()),
        ("acme-ed25519", "ed25519", &keys.ed25519),
        ("acme-p256", "ecdsa-p256-sha256", &keys.p256),
        ("acme-rsa", "rsa-v1_5-sha256", &keys.rsa),
        ("acme-pss", "rsa-pss-sha512", &keys.rsa),
    ];
    for (library, script) in [
        ("python", (|| interop::python("sign_message.py")) as fn() -> Command),
        ("node", || interop::node("sign_message.mjs")),
    ] {
        for (key_id, algorithm, key) in algorithms {
            let target = format!("/signed/{library}/{algorithm}?a=b");
            let mut document = json!({
                "key_id": key_id, "algorithm": algorithm, "key": key, "method": "POST",
                "url": format!("https://{HOST}{target}"),
                "headers": { "content-digest": content_digest(), "content-type": "application/json" },
                "covers": ["@method", "@target-uri", "@authority", "@path", "@query", "content-digest", "content-type"],
            });
            let headers = interop::said(script(), &document);
            let answer = send(&world.stranger(), &target, &headers, CONTENT);
            if (library, algorithm) == ("node", "rsa-pss-sha512") {
                // It salts with as many bytes as fit; the standard says sixty-four (RFC 9421 section 3.3.1, SIG-05).
                answer.assert_refused(Reason::SignatureInvalid);
                continue;
            }
            answer.assert_passed();
            assert_eq!(world.upstream().last().body, CONTENT, "{library} {algorithm}");
            let before = world.upstream().hits();
            send(&world.stranger(), &target, &headers, CONTENT).assert_refused(Reason::SignatureReplayed);
            // The same with another body, another target, and another's key.
            document["headers"]["x-again"] = "1".into();
            let covers = document["covers"].as_array_mut().expect("a list");
            covers.push("x-again".into());
            let again = interop::said(script(), &document);
            send(&world.stranger(), &target, &again, b"{}").assert_refused(Reason::DigestMismatch);
            send(&world.stranger(), "/signed/other", &again, CONTENT)
                .assert_refused(Reason::SignatureInvalid);
            let stolen = again.replace(&format!("keyid=\\\"{key_id}"), "keyid=\\\"acme-none");
            assert_ne!(stolen, again);
            send(&world.stranger(), &target, &stolen, CONTENT).assert_refused(Reason::SignatureInvalid);
            assert_eq!(world.upstream().hits(), before);
        }
    }
}

/// draft-cavage: two libraries, HMAC and RSA.
#[test]
fn requests_signed_in_the_older_form_are_read_as_their_libraries_mean_them() {
    let keys = keys();
    let world = &keys.world;
    let digest = format!("SHA-256={}", standard_base64(&sha256(CONTENT)));
    let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for (number, (key_id, algorithm, key)) in [
        ("acme-secret", "hmac-sha256", SECRET),
        ("acme-secret", "hmac-sha512", SECRET),
        ("acme-rsa", "rsa-sha256", &keys.rsa),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/signed/{number}?a=b");
        let document = json!({
            "key_id": key_id, "algorithm": algorithm, "key": key, "method": "POST", "path": target,
            "headers": { "date": now, "digest": digest, "host": HOST },
            "covers": ["(request-target)", "host", "date", "digest"],
        });
        let headers = interop::said(interop::node("sign_request.mjs"), &document);
        send(&world.plain(), &target, &headers, CONTENT).assert_passed();
        let before = world.upstream().hits();
        send(&world.plain(), &target, &headers, CONTENT).assert_refused(Reason::SignatureReplayed);
        send(&world.plain(), "/signed/other", &headers, CONTENT).assert_refused(Reason::SignatureInvalid);
        send(&world.plain(), &target, &headers, b"{}").assert_refused(Reason::DigestMismatch);
        assert_eq!(world.upstream().hits(), before);
    }
    let document = json!({
        "key_id": "acme-secret", "algorithm": "hmac-sha256", "key": SECRET, "method": "POST", "cavage": true,
        "url": format!("http://{HOST}/signed/again"),
        "headers": { "Date": now, "Digest": digest, "Host": HOST },
        "covers": ["@request-target", "host", "date", "digest"],
    });
    let headers = interop::said(interop::node("sign_message.mjs"), &document);
    let mut headers: Value = serde_json::from_str(&headers).expect("headers");
    // It writes the field `Signature`; an API that takes both forms takes this one in `Authorization`.
    let signature =
        headers.as_object_mut().and_then(|fields| fields.remove("Signature")).expect("a signature");
    headers["Authorization"] = format!("Signature {}", signature.as_str().expect("text")).into();
    send(&world.plain(), "/signed/again", &headers.to_string(), CONTENT).assert_passed();
}

/// SIG-05: no library at hand signs with ECDSA on P-384, so OpenSSL does, over a base written out here.
#[test]
fn requests_signed_with_p384_are_let_in() {
    let plan = Plan::new(&[API]);
    let private = pair(&plan, "p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    plan.directory.write("p384.key", &private);
    let key = plan.directory.join("p384.key");
    plan.directory.write(
        "clients/acme.yaml",
        "clients:
  acme:
    credentials:
      - signature: { key_id: acme-p384, public_key: { file: ../keys/p384.pub }, algorithm: ecdsa-p384-sha384 }
",
    );
    let world = plan.start();
    let send = |target: &str, signed_target: &str| {
        let parameters = format!(
            "(\"@method\" \"@target-uri\");created={};keyid=\"acme-p384\";alg=\"ecdsa-p384-sha384\"",
            crate::rig::certificates::unix_now()
        );
        let base = format!(
            "\"@method\": GET\n\"@target-uri\": http://{HOST}{signed_target}\n\"@signature-params\": {parameters}"
        );
        let signature = standard_base64(&sign_p384(&key, base.as_bytes()));
        let call = world.plain().get(target).header("signature-input", &format!("sig={parameters}"));
        call.header("signature", &format!("sig=:{signature}:")).send()
    };
    send("/signed/1?a=b", "/signed/1?a=b").assert_passed();
    send("/signed/2?a=c", "/signed/2?a=b").assert_refused(Reason::SignatureInvalid);
}

/// r || s of forty-eight bytes each (RFC 9421 section 3.3.5), of what OpenSSL writes as a sequence of two integers.
fn sign_p384(key: &std::path::Path, base: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha384", "-sign"])
        .arg(key)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("openssl");
    child.stdin.take().expect("a pipe").write_all(base).expect("written");
    let der = child.wait_with_output().expect("an end").stdout;
    let mut rest = &der[2..];
    let mut raw = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let integer = rest[2..2 + length].strip_prefix(&[0]).unwrap_or(&rest[2..2 + length]);
        raw.resize(raw.len() + 48 - integer.len(), 0);
        raw.extend_from_slice(integer);
        rest = &rest[2 + length..];
    }
    raw
}
