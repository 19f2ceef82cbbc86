//! `admin:` of `gateway.yaml`.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_authn::RevokedTokens;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Materials, Place, Secret, SecretSpec, Spanned};

/// The shortest token, in bytes: what nobody guesses.
const MIN_TOKEN: usize = 32;

/// Where the admin API listens, and what whoever changes something has to know.
#[derive(Clone, Debug)]
pub(crate) struct AdminSpec {
    pub(crate) address: Option<SocketAddr>,
    /// The socket of the file system at which it listens, too.
    pub(super) socket: Option<Spanned<String>>,
    token: Option<(SecretSpec, Place)>,
    /// The file in which every change is written down.
    pub(super) audit: Option<Spanned<String>>,
}

impl AdminSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`admin`", faults)?;
        let (address, socket) = (fields.get("address"), fields.get("socket"));
        let (token, audit) = (fields.get("token"), fields.get("audit"));
        fields.finish(faults);
        if address.is_none() && socket.is_none() {
            faults.error("missing_key", node.place, "`admin` needs `address`, `socket` or both");
            return None;
        }
        let socket = socket.map(|node| node.text(faults));
        let audit = audit.map(|node| node.text(faults));
        let token = token.map(|node| node.secret(faults).map(|secret| (secret, node.place)));
        let address = address.map(|node| loopback(node, faults));
        Some(Self {
            address: address.map_or(Some(None), |read| read.map(Some))?,
            socket: socket.map_or(Some(None), |read| read.map(Some))?,
            token: token.map_or(Some(None), |read| read.map(Some))?,
            audit: audit.map_or(Some(None), |read| read.map(Some))?,
        })
    }

    /// Whether it names a token.
    pub(crate) const fn has_token(&self) -> bool {
        self.token.is_some()
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
    let written = admin.is_some_and(AdminSpec::has_token);
    let pushes = lists.iter().filter_map(|list| list.push_place());
    pushes.for_each(|place| check_push(place, written, durable, faults));
    token
}

/// Whether revocations that are told while the gateway runs can be told, and are kept.
fn check_push(place: Place, has_token: bool, durable: bool, faults: &mut Faults) {
    if !has_token {
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

fn loopback(node: &Node, faults: &mut Faults) -> Option<SocketAddr> {
    let text = node.text(faults)?;
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        let message = format!("`{}` is not an address and port", text.value);
        faults.push(Diagnostic::error("bad_address", text.place, message).note("write `127.0.0.1:9901`"));
        return None;
    };
    if !address.ip().is_loopback() {
        faults.push(
            Diagnostic::error("admin_exposed", text.place, "the admin API would be open to the network")
                .note("whoever reaches it may read how the gateway is doing: write a loopback address such as `127.0.0.1:9901`"),
        );
        return None;
    }
    Some(address)
}
