//! Puts what was made for the run in the place of the keys, certificates and secrets that policies name. Whatever else
//! they say stays as it is written.

use portcullis_core::document::{Content, Node};
use portcullis_core::{Diagnostic, Secret};
use portcullis_gateway::rehearsal::{StandIns, Written};
use portcullis_jose::Algorithm;
use rcgen::KeyPair;

use super::cast::{Cast, Certificate};
use super::facts::{Facts, IssuerFacts, KeysAt};
use super::suite::{CertificateSpec, fault};
use super::tree::{
    along, at, at_mut, each_map, entries, entries_mut, members, remove, text, text_at, write, write_file,
    write_list,
};

/// The certificates of a file of tests, by name.
pub(crate) type Certificates = Vec<(String, Certificate)>;

/// Why nothing can be put in the place of something.
pub(crate) type Faulty = Box<Diagnostic>;

/// Sets the stage for one file of tests.
///
/// # Errors
/// A certificate stands for something that no policy pins, or something cannot be made.
pub(crate) fn set(
    written: &Written,
    facts: &Facts,
    cast: &Cast,
    (specs, now): (&[CertificateSpec], i64),
) -> Result<(StandIns, Certificates), Faulty> {
    let mut stage = Stage { stand_ins: written.stand_ins(), cast, now };
    let made = |error: anyhow::Error| Box::new(Diagnostic::nowhere("cannot_be_made", error.to_string()));
    stage.doors().map_err(made)?;
    for issuer in &facts.issuers {
        stage.issuer(issuer).map_err(made)?;
    }
    stage.clients().map_err(made)?;
    let mut certificates = Certificates::new();
    for spec in specs {
        let authority = spec.trust.as_deref().map(anchor);
        let certificate = cast.certificate(authority.as_deref(), &spec.subject, now).map_err(made)?;
        if let Some(pinned) = &spec.stands_for
            && !stage.pin(&pinned.value, &certificate)
        {
            let message = "no policy pins a certificate or a key with this digest";
            return Err(fault(pinned.place, message));
        }
        certificates.push((spec.name.value.clone(), certificate));
    }
    Ok((stage.stand_ins, certificates))
}

/// The name of the secret that belongs to a credential of a client.
pub(crate) fn credential(client: &str, number: usize) -> String {
    format!("client {client} {number}")
}

/// The name of an issuer's keys.
pub(crate) fn issuer_key(name: &str) -> String {
    format!("issuer {name}")
}

/// The name of the secret by which a proxy shows itself.
pub(crate) const PROXY: &str = "proxy";

/// What the key of an issuer is called in its set.
pub(crate) const KID: &str = "rehearsal-1";

/// The algorithm a message key signs with, and whether it is a secret.
pub(crate) fn message_algorithm(node: &Node) -> (Algorithm, bool) {
    let secret = at(node, "secret").is_some();
    let algorithm = match text_at(node, "algorithm") {
        Some("hmac-sha384") => Algorithm::Hs384,
        Some("hmac-sha512") => Algorithm::Hs512,
        Some("rsa-pss-sha512") => Algorithm::Ps512,
        Some("rsa-sha256" | "rsa-v1_5-sha256") => Algorithm::Rs256,
        Some("ecdsa-p256-sha256") => Algorithm::Es256,
        Some("ecdsa-p384-sha384") => Algorithm::Es384,
        Some("ed25519") => Algorithm::EdDsa,
        _ if secret => Algorithm::Hs256,
        _ => Algorithm::Rs256,
    };
    (algorithm, secret)
}

fn anchor(name: &str) -> String {
    format!("anchor {name}")
}

struct Stage<'s> {
    stand_ins: StandIns,
    cast: &'s Cast,
    now: i64,
}

impl Stage<'_> {
    /// Puts a file where nothing else can be, and says where.
    fn file(&mut self, name: &str, content: impl Into<Vec<u8>>) -> String {
        let path = format!("/rehearsal/{}", name.replace(' ', "/"));
        self.stand_ins.file(&path, content);
        path
    }

    /// Listeners, servers that are asked, and secrets of our own.
    fn doors(&mut self) -> anyhow::Result<()> {
        let (certificate, key) = self.cast.server(self.now)?;
        let server = (self.file("server.pem", certificate), self.file("server.key", key));
        let others = self.cast.authority("others", self.now)?;
        let others = self.file("others.pem", others);
        let names: Vec<String> = self.anchors();
        let mut anchors = Vec::new();
        for name in names {
            let pem = self.cast.authority(&anchor(&name), self.now)?;
            let path = self.file(&format!("anchors {name}.pem"), pem);
            anchors.push((name, path));
        }
        let pepper = self.cast.secret("pepper")?;
        let pepper = self.file("pepper", pepper);
        let proxy = self.cast.secret(PROXY)?;
        let proxy = self.file("proxy", proxy);
        let Some(root) = self.stand_ins.gateway() else { return Ok(()) };
        each_map(root, &mut |map| {
            // What was revoked is said of certificates that are not those of the run.
            remove(map, "revocation");
            if at(map, "certificate").is_some() && at(map, "key").is_some() {
                at_mut(map, "certificate").into_iter().for_each(|node| write_file(node, &server.0));
                at_mut(map, "key").into_iter().for_each(|node| write_file(node, &server.1));
            }
            if let Some(intermediates) = at_mut(map, "intermediates") {
                write_file(intermediates, &others);
            }
            let Some(trust) = at_mut(map, "trust") else { return };
            if at(trust, "file").is_some() {
                write_file(trust, &others);
                return;
            }
            for entry in entries_mut(trust) {
                if let Some((_, path)) = anchors.iter().find(|(name, _)| *name == entry.key.value) {
                    write_file(&mut entry.value, path);
                }
            }
        });
        if let Some(node) = at_mut(root, "api_keys").and_then(|keys| at_mut(keys, "pepper")) {
            write_file(node, &pepper);
        }
        for listener in at_mut(root, "listen").map(entries_mut).unwrap_or_default() {
            let header = at_mut(&mut listener.value, "client_certificate_header");
            let secret =
                header.and_then(|header| at_mut(header, "proxy")).and_then(|node| at_mut(node, "secret"));
            if let Some(value) = secret.and_then(|secret| at_mut(secret, "value")) {
                write_file(value, &proxy);
            }
        }
        Ok(())
    }

    /// Every name under `trust` in `gateway.yaml`.
    fn anchors(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        let Some(root) = self.stand_ins.gateway() else { return names };
        each_map(root, &mut |map| {
            let trusted = at(map, "trust").map(entries).unwrap_or_default();
            let files = trusted.iter().filter(|entry| at(&entry.value, "file").is_some());
            names.extend(files.map(|entry| entry.key.value.clone()));
        });
        names
    }

    fn issuer(&mut self, issuer: &IssuerFacts) -> anyhow::Result<()> {
        let name = &issuer.name.value;
        let Some(algorithm) = preferred(issuer) else { return Ok(()) };
        let stand_in = match &issuer.keys {
            KeysAt::Pem => {
                let key = self.cast.key(&issuer_key(name), algorithm)?;
                Some(("pem", self.file(&format!("issuers {name}.pub"), key.public_pem().unwrap_or_default())))
            }
            KeysAt::Set => {
                let key = self.cast.key(&issuer_key(name), algorithm)?;
                let set = serde_json::json!({ "keys": [key.public_jwk(KID)] });
                Some(("jwks", self.file(&format!("issuers {name}.json"), set.to_string())))
            }
            KeysAt::Secret => {
                let secret = self.cast.secret(&issuer_key(name))?;
                Some(("secret", self.file(&format!("issuers {name}.secret"), secret)))
            }
            _ => None,
        };
        let secret = self.cast.secret("introspection")?;
        let secret = self.file("introspection", secret);
        let key = KeyPair::generate()?.serialize_pem();
        let key = self.file("introspection.key", key);
        let Some(root) = self.stand_ins.gateway() else { return Ok(()) };
        let Some(node) = at_mut(root, "issuers").and_then(|issuers| at_mut(issuers, name)) else {
            return Ok(());
        };
        if let Some((kind, path)) = stand_in
            && let Some(keys) = at_mut(node, "keys").and_then(|keys| at_mut(keys, kind))
        {
            match kind {
                "pem" => write_list(keys, &path),
                _ => write_file(keys, &path),
            }
        }
        if let Some(introspect) = at_mut(node, "introspect") {
            at_mut(introspect, "client_secret").into_iter().for_each(|node| write_file(node, &secret));
            if text_at(introspect, "algorithm") == Some(Algorithm::Es256.as_str()) {
                at_mut(introspect, "key").into_iter().for_each(|node| write_file(node, &key));
            }
        }
        Ok(())
    }

    fn clients(&mut self) -> anyhow::Result<()> {
        let pepper = Secret::new(self.cast.secret("pepper")?.into_bytes());
        let mut files = Vec::new();
        for root in self.stand_ins.clients() {
            for client in at_mut(root, "clients").map(entries_mut).unwrap_or_default() {
                let name = client.key.value.clone();
                let Some(node) = at_mut(&mut client.value, "credentials") else { continue };
                let Content::List(list) = &mut node.content else { continue };
                let each = list.iter_mut().flat_map(entries_mut).enumerate();
                for (number, entry) in each {
                    let called = credential(&name, number);
                    let kind = entry.key.value.clone();
                    files.extend(self.cast.stand_for(&kind, &mut entry.value, &called, &pepper)?);
                }
            }
        }
        files.into_iter().for_each(|(path, content)| self.stand_ins.file(&path, content));
        Ok(())
    }

    /// Writes the digests of a certificate wherever a policy pins the one it stands for. Whether one does.
    fn pin(&mut self, pinned: &str, certificate: &Certificate) -> bool {
        let mut found = false;
        let mut change = |map: &mut Node| {
            let digests = [("sha256", certificate.thumbprint()), ("spki", certificate.spki)];
            for (key, digest) in digests {
                let node = at_mut(map, key).filter(|node| text(node) == Some(pinned));
                if let Some(node) = node {
                    write(node, hex(&digest));
                    found = true;
                }
            }
        };
        for root in self.stand_ins.clients() {
            each_map(root, &mut change);
        }
        for root in self.stand_ins.apis() {
            each_map(root, &mut change);
        }
        found
    }
}

impl Cast {
    /// Writes what was made for the run into a credential; the file it names then, if it does.
    fn stand_for(
        &self,
        kind: &str,
        node: &mut Node,
        called: &str,
        pepper: &Secret,
    ) -> anyhow::Result<Option<(String, Vec<u8>)>> {
        let path = format!("/rehearsal/{}", called.replace(' ', "/"));
        match kind {
            "api_key" => {
                let hash = portcullis_authn::hash_key(pepper, &self.secret(called)?);
                at_mut(node, "hash").into_iter().for_each(|node| write(node, hash.to_string()));
                Ok(None)
            }
            "basic" => {
                let hash = self.password_hash(&self.secret(called)?)?;
                at_mut(node, "password_hash").into_iter().for_each(|node| write(node, hash.clone()));
                Ok(None)
            }
            "hmac" | "signature" => {
                let (algorithm, secret) = message_algorithm(node);
                if secret {
                    at_mut(node, "secret").into_iter().for_each(|node| write_file(node, &path));
                    return Ok(Some((path, self.secret(called)?.into_bytes())));
                }
                let key = self.key(called, algorithm)?;
                at_mut(node, "public_key").into_iter().for_each(|node| write_file(node, &path));
                Ok(Some((path, key.public_pem().unwrap_or_default().into_bytes())))
            }
            "jwt_key" => {
                let key = self.key(called, Algorithm::Es256)?;
                let Some(pem) = at_mut(node, "pem") else { return Ok(None) };
                write(pem, path.as_str());
                Ok(Some((path, key.public_pem().unwrap_or_default().into_bytes())))
            }
            _ => Ok(None),
        }
    }
}

/// The algorithm an issuer signs with where a test does not say: the quickest to make keys for.
pub(crate) fn preferred(issuer: &IssuerFacts) -> Option<Algorithm> {
    let quick = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Es384];
    let found = quick.into_iter().find(|quick| issuer.algorithms.contains(quick));
    found.or_else(|| issuer.algorithms.first().copied())
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The members of a list at a path of an API's authenticator.
pub(crate) fn listed<'n>(node: &'n Node, path: &[&str]) -> Vec<&'n str> {
    along(node, path).map(members).unwrap_or_default().iter().filter_map(text).collect()
}
