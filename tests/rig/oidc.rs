//! `oidc-provider`, a certified identity provider nobody here wrote, as a process of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::certificates::{Authority, Leaf};
use super::interop;

/// The audience of tokens that it signs; those for any other one are opaque.
pub(crate) const SIGNED: &str = "https://api.bank.example";
/// The audience of opaque tokens.
pub(crate) const OPAQUE: &str = "https://opaque.bank.example";
/// The secret of its clients, as long as it demands.
pub(crate) const SECRET: &str = "a-secret-of-thirty-two-characters";

/// A running provider.
pub(crate) struct OidcProvider {
    child: Child,
    talk: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    /// What it calls itself.
    pub(crate) issuer: String,
}

impl OidcProvider {
    /// One over TLS on loopback, for these clients, that signs with the first of these keys. It asks for certificates
    /// of anybody, and has its own from `servers`.
    pub(crate) fn start(servers: &Authority, clients: &Value, keys: &[&str]) -> Self {
        let leaf = servers.server(&["localhost"]);
        let mut child = interop::node("provider.mjs")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the provider can be started");
        let talk = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut provider =
            Self { child, talk: Mutex::new((talk.0, BufReader::new(talk.1))), issuer: String::new() };
        let hello = provider.say(&json!({
            "tls": { "key": leaf.key_pem, "cert": leaf.pem, "authority": servers.pem() },
            "clients": clients, "keys": keys,
        }));
        hello["issuer"].as_str().expect("an issuer").clone_into(&mut provider.issuer);
        provider
    }

    /// A client that gets tokens for itself, with other metadata (RFC 7591 section 2); `null` drops some.
    pub(crate) fn client(id: &str, more: &Value) -> Value {
        let mut client = json!({
            "client_id": id, "client_secret": SECRET, "redirect_uris": [], "response_types": [],
            "grant_types": ["client_credentials"],
        });
        for (name, value) in more.as_object().expect("an object") {
            client[name] = value.clone();
        }
        client.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        client
    }

    /// A token for the client, and what the provider says its type is. `more` may have a `key` to prove, a `cert` to
    /// show, and a `ttl` in seconds.
    pub(crate) fn token(&self, client: &str, resource: &str, more: &Value) -> (String, String) {
        let mut asked = json!({ "client": client, "secret": SECRET, "resource": resource });
        for (name, value) in more.as_object().expect("an object") {
            asked[name] = value.clone();
        }
        let said = self.say(&json!({ "token": asked }));
        let text = |name: &str| said[name].as_str().expect("text").to_owned();
        (text("token"), text("type"))
    }

    /// The same for a client that shows a certificate.
    pub(crate) fn bound_token(&self, client: &str, resource: &str, leaf: &Leaf) -> String {
        self.token(client, resource, &json!({ "cert": { "key": leaf.key_pem, "cert": leaf.pem } })).0
    }

    /// Revokes a token, as the client it was given to.
    pub(crate) fn revoke(&self, client: &str, token: &str) {
        let said = self.say(&json!({ "revoke": { "client": client, "secret": SECRET, "token": token } }));
        assert_eq!(said["status"], 200, "{said}");
    }

    /// From now on it publishes these keys, and signs with the first.
    pub(crate) fn rotate(&self, keys: &[&str]) {
        self.say(&json!({ "rotate": keys }));
    }

    /// How often it was asked about a token.
    pub(crate) fn introspections(&self) -> u64 {
        self.say(&json!({ "seen": true }))["introspections"].as_u64().expect("a count")
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it ends");
    }

    fn say(&self, document: &Value) -> Value {
        let (input, output) = &mut *self.talk.lock().expect("nobody talks");
        writeln!(input, "{document}").expect("it listens");
        let mut line = String::new();
        output.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?} to {document}"))
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
