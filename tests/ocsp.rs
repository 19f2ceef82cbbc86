//! Responders are asked about client certificates, outside of handshakes, and their answers are verified (RVK-02 to
//! RVK-04). Authority and responder are OpenSSL's, so both sides of the protocol are nobody's here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_core::Reason;

use crate::rig::certificates::Leaf;
use crate::rig::client::Client;
use crate::rig::eventually;
use crate::rig::world::{PUBLIC, Plan, World};

const REPORTS: &str = "\
api: reports
match: { host: api.bank.example, path: /reports/* }
upstream: accounts
authenticate:
  certificate: { trust: open-banking }
allow:
  - { name: anything, paths: [\"/*\"] }
";

/// OpenSSL's authority in a folder, with an index of what it has issued.
struct Authority {
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let this = Self { folder: folder.to_owned() };
        std::fs::write(folder.join("index.txt"), "").expect("a file");
        std::fs::write(
            folder.join("ext.cnf"),
            "[client]\nextendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n[signer]\nextendedKeyUsage=OCSPSigning\nkeyUsage=digitalSignature\n[plain]\nkeyUsage=digitalSignature\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign,digitalSignature\n",
        )
        .expect("a file");
        this.run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=OpenSSL-CA -extensions ca -config req.cnf");
        this
    }

    fn run(&self, arguments: &str) {
        let config = "[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign,digitalSignature\n";
        std::fs::write(self.folder.join("req.cnf"), config).expect("a file");
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&self.folder)
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A certificate with the extensions of a section.
    fn issue(&self, name: &str, serial: u32, section: &str) {
        self.run(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} -config req.cnf"));
        self.run(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial {serial} -days 20 -extfile ext.cnf -extensions {section} -out {name}.pem"));
    }

    /// A certificate of a client, listed as good or revoked.
    fn client(&self, name: &str, serial: u32, status: &str) -> Arc<Leaf> {
        self.issue(name, serial, "client");
        let revoked = if status == "R" { "260101000000Z" } else { "" };
        let mut index = std::fs::read_to_string(self.folder.join("index.txt")).expect("an index");
        // The index wants serial numbers as even numbers of hex digits.
        if !status.is_empty() {
            index.push_str(&format!(
                "{status}\t400101000000Z\t{revoked}\t{serial:04X}\tunknown\t/CN={name}\n"
            ));
        }
        std::fs::write(self.folder.join("index.txt"), index).expect("an index");
        let read = |suffix: &str| {
            std::fs::read_to_string(self.folder.join(format!("{name}.{suffix}"))).expect("PEM")
        };
        Arc::new(Leaf::of_pem(&read("pem"), &read("key")))
    }

    fn pem(&self) -> String {
        std::fs::read_to_string(self.folder.join("ca.pem")).expect("PEM")
    }
}

/// How the responder behaves.
#[derive(Clone, Debug)]
enum Manner {
    /// It signs with this certificate, with these further arguments of `openssl ocsp`.
    Signs(&'static str, &'static str),
    /// It answers these bytes under this status.
    Says(u16, Vec<u8>),
    /// It answers what it answered first, whatever it is asked.
    Repeats,
    /// It says nothing.
    Sleeps,
}

struct Responder {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicUsize>,
}

impl Responder {
    fn start(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let manner = Arc::new(Mutex::new(Manner::Signs("signer", "")));
        let asked = Arc::new(AtomicUsize::new(0));
        let (shared, counted) = (Arc::clone(&manner), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let number = counted.load(Ordering::SeqCst);
                let manner = shared.lock().expect("a manner").clone();
                let folder = folder.clone();
                std::thread::spawn(move || serve(stream, &folder, manner, number));
            }
        });
        Self { address, manner, asked }
    }

    fn behave(&self, manner: Manner) {
        *self.manner.lock().expect("a manner") = manner;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, folder: &Path, manner: Manner, number: usize) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length =
        text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).expect("the question");
    assert!(text.starts_with("post /") && text.contains("application/ocsp-request"), "{text}");
    let (status, answer) = match manner {
        Manner::Sleeps => {
            std::thread::sleep(Duration::from_secs(30));
            return;
        }
        Manner::Says(status, bytes) => (status, bytes),
        Manner::Repeats => (200, std::fs::read(folder.join("first.der")).expect("an answer")),
        Manner::Signs(signer, further) => {
            let (question, out) = (format!("q{number}.der"), format!("a{number}.der"));
            std::fs::write(folder.join(&question), &body).expect("a file");
            let mut command = Command::new("openssl");
            command.args([
                "ocsp",
                "-index",
                "index.txt",
                "-CA",
                "ca.pem",
                "-ndays",
                "1",
                "-reqin",
                &question,
            ]);
            command.args([
                "-rsigner",
                &format!("{signer}.pem"),
                "-rkey",
                &format!("{signer}.key"),
                "-respout",
                &out,
            ]);
            command.args(further.split(' ').filter(|word| !word.is_empty()));
            let output = command.current_dir(folder).output().expect("openssl runs");
            let answer = std::fs::read(folder.join(&out));
            let answer = answer.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
            let first = folder.join("first.der");
            if !first.exists() {
                std::fs::write(first, &answer).expect("a file");
            }
            (200, answer)
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/ocsp-response\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    let _gone = stream.write_all(&[head.as_bytes(), &answer].concat());
}

struct Bank {
    world: World,
    authority: Authority,
    responder: Responder,
}

impl Bank {
    /// A bank that asks the responder, with these further settings of `ocsp`.
    fn new(further: &str, prepare: impl FnOnce(&Authority)) -> Self {
        let plan = Plan::new(&[REPORTS, PUBLIC]);
        let authority = Authority::new(&plan.directory.join("authority"));
        authority.issue("signer", 7_000, "signer");
        authority.issue("plain", 7_001, "plain");
        authority.issue("unfit", 7_002, "client");
        prepare(&authority);
        plan.directory.write("tls/open-banking-ca.pem", authority.pem());
        let responder = Responder::start(authority.folder.clone());
        let url = format!("http://{}/", responder.address);
        let world = plan
            .with(|plan| {
                // One worker, so that whatever holds it up holds up everybody.
                plan.settings = "workers: 1\n".to_owned();
                plan.client_certificates = format!(
                    "        revocation: {{ depth: leaf, ocsp: {{ url: \"{url}\", cache: 5s, timeout: 2s{further} }} }}\n"
                );
            })
            .start();
        Self { world, authority, responder }
    }

    fn client(&self, leaf: &Arc<Leaf>) -> Client {
        self.world.stranger().certificate(leaf)
    }
}

#[test]
fn a_responder_is_asked_once_and_believed_for_as_long_as_its_answer_counts() {
    let bank = Bank::new("", |_| ());
    let good = bank.authority.client("good", 4_097, "V");
    let revoked = bank.authority.client("revoked", 4_098, "R");
    let strange = bank.authority.client("strange", 4_099, "");
    for _ in 0..3 {
        bank.client(&good).get("/reports/1").send().assert_passed();
        bank.client(&good).http2().get("/reports/1").send().assert_passed();
    }
    assert_eq!(bank.responder.asked(), 1);
    bank.client(&revoked).get("/reports/1").send().assert_refused(Reason::CertificateRevoked);
    bank.client(&strange).get("/reports/1").send().assert_refused(Reason::CertificateRefused);
    // The authority itself may sign as well.
    bank.responder.behave(Manner::Signs("ca", ""));
    let other = bank.authority.client("other", 4_100, "V");
    bank.client(&other).get("/reports/1").send().assert_passed();
    // Revoked while a connection stands: noticed when the answer no longer counts.
    let client = bank.client(&good);
    let mut session = client.connect().expect("a connection");
    session.send(client.get("/reports/1")).expect("an answer").assert_passed();
    let index = bank.authority.folder.join("index.txt");
    let text = std::fs::read_to_string(&index).expect("an index");
    let text = text.replace("V\t400101000000Z\t\t1001", "R\t400101000000Z\t260101000000Z\t1001");
    std::fs::write(&index, text).expect("an index");
    let refusal = eventually("the revocation is noticed", || {
        let answer = session.send(client.get("/reports/1")).expect("an answer");
        (answer.status != 200).then_some(answer)
    });
    refusal.assert_refused(Reason::CertificateRevoked);
    // An API that asks for no certificate asks nobody whether it is good.
    bank.world.stranger().get("/public/1").send().assert_passed();
}

/// Whatever the responder sends that is not a current answer of somebody who may give it: 503, and never let through.
#[test]
fn an_answer_that_proves_nothing_is_no_answer() {
    let bank = Bank::new("", |authority| {
        let other = Authority::new(&authority.folder.join("other"));
        other.issue("signer", 7_000, "signer");
        for suffix in ["pem", "key"] {
            let from = other.folder.join(format!("signer.{suffix}"));
            std::fs::copy(from, authority.folder.join(format!("foreign.{suffix}"))).expect("a copy");
        }
    });
    let first = bank.authority.client("first", 4_096, "V");
    bank.client(&first).get("/reports/1").send().assert_passed();
    let hits = bank.world.upstream().hits();
    let huge = vec![0x30; 80_000];
    for (number, (what, manner)) in [
        ("of another authority's signer", Manner::Signs("foreign", "")),
        ("of a certificate without the purpose", Manner::Signs("plain", "")),
        ("of a certificate with another purpose", Manner::Signs("unfit", "")),
        ("about another certificate", Manner::Repeats),
        ("not one", Manner::Says(200, b"junk".to_vec())),
        ("empty", Manner::Says(200, Vec::new())),
        ("of a responder that has none", Manner::Says(200, vec![0x30, 3, 0x0a, 1, 3])),
        ("too long", Manner::Says(200, huge)),
        ("an error", Manner::Says(500, Vec::new())),
        ("a redirect", Manner::Says(302, Vec::new())),
        ("none", Manner::Sleeps),
    ]
    .into_iter()
    .enumerate()
    {
        bank.responder.behave(manner);
        let serial = 4_200 + u32::try_from(number).expect("few");
        let leaf = bank.authority.client(&format!("client-{number}"), serial, "V");
        let started = Instant::now();
        let answer = bank.client(&leaf).get("/reports/1").send();
        assert_eq!(answer.code(), Reason::RevocationUnknown.code(), "{what}: {}", answer.text());
        answer.assert_refused(Reason::RevocationUnknown);
        assert!(started.elapsed() < Duration::from_secs(10), "{what} took {:?}", started.elapsed());
    }
    assert_eq!(bank.world.upstream().hits(), hits);
}

/// RVK-04: a slow responder delays the requests that need it, and nothing else; soft fail lets them through.
#[test]
fn a_slow_responder_delays_nobody_else() {
    let bank = Bank::new(", when_unknown: allow", |_| ());
    let known = bank.authority.client("known", 4_097, "V");
    bank.client(&known).get("/reports/1").send().assert_passed();
    bank.responder.behave(Manner::Sleeps);
    let asked = bank.responder.asked();
    let slow = bank.authority.client("slow", 4_098, "V");
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let client = bank.client(&slow);
            std::thread::spawn(move || {
                let started = Instant::now();
                client.get("/reports/1").send().assert_passed();
                started.elapsed()
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    bank.world.stranger().get("/public/1").send().assert_passed();
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    for thread in waiting {
        let waited = thread.join().expect("an answer");
        assert!(waited >= Duration::from_millis(1_500), "{waited:?}");
    }
    assert_eq!(bank.responder.asked(), asked + 1, "asked once for all who wait");
}

/// RVK-03, RFC 9608: nobody is asked about a certificate of which its authority says that there is nothing to ask.
#[test]
fn a_certificate_that_is_never_revoked_is_not_asked_about() {
    let bank = Bank::new("", |_| ());
    let extensions = bank.authority.folder.join("ext.cnf");
    let section = "[client]\nextendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n2.5.29.56=ASN1:NULL\n";
    std::fs::write(&extensions, section).expect("a file");
    let short = bank.authority.client("short-lived", 4_097, "");
    bank.client(&short).get("/reports/1").send().assert_passed();
    assert_eq!(bank.responder.asked(), 0);
    let both = format!("{section}crlDistributionPoints=URI:http://crl.bank.example/1.crl\n");
    std::fs::write(&extensions, both).expect("a file");
    let contradictory = bank.authority.client("contradictory", 4_098, "");
    bank.client(&contradictory).get("/reports/1").send().assert_refused(Reason::CertificateRefused);
    assert_eq!(bank.responder.asked(), 1);
}

/// A responder named by a certificate is asked only where its host is one of those written down (trap 29).
#[test]
fn a_certificate_does_not_choose_whom_we_ask() {
    let plan = Plan::new(&[REPORTS]);
    let authority = Authority::new(&plan.directory.join("authority"));
    authority.issue("signer", 7_000, "signer");
    let responder = Responder::start(authority.folder.clone());
    let extensions = |host: &str| {
        format!(
            "[client]\nextendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\nauthorityInfoAccess=OCSP;URI:http://{host}:{}/\n",
            responder.address.port()
        )
    };
    std::fs::write(authority.folder.join("ext.cnf"), extensions("127.0.0.1")).expect("a file");
    let known = authority.client("known", 4_097, "V");
    std::fs::write(authority.folder.join("ext.cnf"), extensions("localhost")).expect("a file");
    let other = authority.client("other", 4_098, "V");
    plan.directory.write("tls/open-banking-ca.pem", authority.pem());
    let world = plan
        .with(|plan| {
            plan.client_certificates = format!(
                "        revocation: {{ depth: leaf, ocsp: {{ hosts: [\"127.0.0.1:{}\", localhost], timeout: 2s }} }}\n",
                responder.address.port()
            );
        })
        .start();
    world.stranger().certificate(&known).get("/reports/1").send().assert_passed();
    let asked = responder.asked();
    world.stranger().certificate(&other).get("/reports/1").send().assert_refused(Reason::RevocationUnknown);
    assert_eq!(responder.asked(), asked);
}
