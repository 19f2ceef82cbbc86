//! `admin:` of `gateway.yaml`.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_authn::RevokedTokens;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Materials, Place, Secret, SecretSpec, Spanned};

use crate::listener::spec::{Ask, Verify};
use crate::listener::{ListenLimits, ListenSpec, TlsSpec};

/// The shortest token, in bytes: what nobody guesses.
const MIN_TOKEN: usize = 32;

/// Where the admin API listens, and what whoever changes something has to know.
#[derive(Clone, Debug)]
pub(crate) struct AdminSpec {
    pub(crate) address: Option<SocketAddr>,
    /// The socket of the file system at which it listens, too.
    pub(super) socket: Option<Spanned<String>>,
    /// The address as a listener, where it speaks TLS.
    pub(super) door: Option<ListenSpec>,
    token: Option<(SecretSpec, Place)>,
    /// The file in which every change is written down.
    pub(super) audit: Option<Spanned<String>>,
}

impl AdminSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`admin`", faults)?;
        let (address, socket) = (fields.get("address"), fields.get("socket"));
        let (tls, token, audit) = (fields.get("tls"), fields.get("token"), fields.get("audit"));
        fields.finish(faults);
        if address.is_none() && socket.is_none() {
            faults.error("missing_key", node.place, "`admin` needs `address`, `socket` or both");
            return None;
        }
        let socket = socket.map(|node| node.text(faults));
        let audit = audit.map(|node| node.text(faults));
        let token = token.map(|node| node.secret(faults).map(|secret| (secret, node.place)));
        let address = address.map(|node| address_of(node, tls.is_some(), faults));
        let address = address.map_or(Some(None), |read| read.map(Some))?;
        let door = match tls {
            Some(node) => Some(door(node, address.as_ref(), token.is_some(), faults)?),
            None => None,
        };
        Some(Self {
            address: address.map(|address| address.value),
            door,
            socket: socket.map_or(Some(None), |read| read.map(Some))?,
            token: token.map_or(Some(None), |read| read.map(Some))?,
            audit: audit.map_or(Some(None), |read| read.map(Some))?,
        })
    }

    /// Whether it names a token.
    pub(crate) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether anybody may change something: with the token, or with a certificate.
    pub(crate) fn lets_change(&self) -> bool {
        self.has_token() || self.door.as_ref().is_some_and(requires_certificates)
    }

    /// Fetches the token. A short one is refused: it stands between the network's edge and every revocation.
    pub(super) fn token(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<Secret> {
        let (secret, place) = self.token.as_ref()?;
        let secret = secret.resolve(materials, faults)?;
        if secret.len() < MIN_TOKEN || !secret.expose().iter().all(u8::is_ascii_graphic) {
            let message = format!("the token of the admin API is {MIN_TOKEN} printable characters or more");
            faults.push(
                Diagnostic::error("weak_secret", *place, message)
                    .note("make one with `openssl rand -hex 32`"),
            );
            return None;
        }
        Some(secret)
    }
}

/// The token, if there is one. Lists of revoked tokens may want to be told something with it while the gateway runs.
pub(super) fn token(
    admin: Option<&AdminSpec>,
    lists: &[Arc<RevokedTokens>],
    durable: bool,
    materials: &dyn Materials,
    faults: &mut Faults,
) -> Option<Secret> {
    let token = admin.and_then(|admin| admin.token(materials, faults));
    let written = admin.is_some_and(AdminSpec::lets_change);
    let pushes = lists.iter().filter_map(|list| list.push_place());
    pushes.for_each(|place| check_push(place, written, durable, faults));
    token
}

/// Whether revocations that are told while the gateway runs can be told, and are kept.
fn check_push(place: Place, anybody_may: bool, durable: bool, faults: &mut Faults) {
    if !anybody_may {
        faults.push(
            Diagnostic::error("nobody_can_push", place, "nobody may tell this gateway of revoked tokens")
                .note("add `token: { file: secrets/admin-token }` to `admin` in gateway.yaml"),
        );
    }
    if !durable {
        faults.push(
            Diagnostic::error("push_not_kept", place, "a restart would forget what was revoked")
                .note("add `store: { path: data/portcullis.redb }` to gateway.yaml"),
        );
    }
}

/// The address as a listener that speaks TLS. SECURITY: everybody on the network may knock there, so each has to show the token
/// or a certificate, and nothing in the handshake, such as the name it asks for, may choose less.
fn door(
    node: &Node,
    address: Option<&Spanned<SocketAddr>>,
    has_token: bool,
    faults: &mut Faults,
) -> Option<ListenSpec> {
    let tls = TlsSpec::read(node, faults)?;
    let Some(address) = address else {
        faults.error("missing_key", node.place, "`tls` is for an `address`, which `admin` has not");
        return None;
    };
    let asks = tls.clients.ask;
    let unfit = if !tls.hosts.is_empty() {
        Some("`hosts` has no use here: the admin API asks the same of everybody")
    } else if asks == Ask::Optional {
        Some("a certificate that may be left out opens nothing: write `ask: required` or `ask: never`")
    } else if tls.clients.verify == Verify::Possession {
        Some("a certificate of no authority is anybody's: name authorities in `trust`")
    } else if tls.clients.revocation.as_ref().is_some_and(|revocation| revocation.ocsp.is_some()) {
        Some("nobody is asked online for the admin API: give `revocation` lists in `crls`")
    } else {
        None
    };
    if let Some(message) = unfit {
        faults.error("unfit_for_admin", node.place, message);
        return None;
    }
    if !has_token && asks != Ask::Required {
        faults.push(
            Diagnostic::error("admin_exposed", node.place, "whoever reaches the admin API would be let in")
                .note("add `token: { file: secrets/admin-token }` to `admin`, or `client_certificates: { ask: required, trust: … }` to its `tls`"),
        );
        return None;
    }
    Some(ListenSpec {
        name: Spanned { value: "admin".to_owned(), place: node.place },
        address: address.clone(),
        tls: Some(tls),
        forwarded: None,
        proxy_protocol: None,
        limits: ListenLimits::default(),
    })
}

fn requires_certificates(door: &ListenSpec) -> bool {
    door.tls.as_ref().is_some_and(|tls| tls.clients.ask == Ask::Required)
}

fn address_of(node: &Node, has_tls: bool, faults: &mut Faults) -> Option<Spanned<SocketAddr>> {
    let text = node.text(faults)?;
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        let message = format!("`{}` is not an address and port", text.value);
        faults.push(Diagnostic::error("bad_address", text.place, message).note("write `127.0.0.1:9901`"));
        return None;
    };
    if !has_tls && !address.ip().is_loopback() {
        faults.push(
            Diagnostic::error("admin_exposed", text.place, "the admin API would be open to the network")
                .note("whoever reaches it may read how the gateway is doing: write a loopback address such as `127.0.0.1:9901`, or add `tls` and a `token`"),
        );
        return None;
    }
    Some(Spanned { value: address, place: text.place })
}
