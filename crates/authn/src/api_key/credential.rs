//! `api_key: { hash, … }` as written among the credentials of a client.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{AuthMethod, Client, Diagnostic, Faults, Identity, Place, Spanned};

use super::key::{BadKeyName, check_key_name};
use super::{ApiKeys, KeyHash, KeyOwner, KeyTerms, identity_until};
use crate::certificate::{CertificateBinding, NamedCertificates};
use crate::clients::{Registering, read_moment};

/// One stored key.
#[derive(Debug)]
pub(crate) struct ApiKeyCredential {
    hash: Spanned<KeyHash>,
    name: Option<Spanned<String>>,
    not_before: Option<i64>,
    expires_at: Option<i64>,
    disabled: bool,
    apis: Option<Vec<Spanned<String>>>,
    networks: Option<Vec<IpNet>>,
    certificate: Option<NamedCertificates>,
}

impl ApiKeyCredential {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`api_key`", faults)?;
        let (hash, name) = (fields.require("hash", faults), fields.get("name"));
        let (not_before, expires) = (fields.get("not_before"), fields.get("expires"));
        let (disabled, apis, from) = (fields.get("disabled"), fields.get("apis"), fields.get("from"));
        let certificate = fields.get("certificate").map(|node| NamedCertificates::read(node, faults));
        fields.finish(faults);
        let hash = hash.and_then(|node| read_hash(node, faults));
        let name = name.map(|node| read_name(node, faults));
        let from_moment = not_before.map(|node| read_moment(node, faults));
        let until = expires.map(|node| read_moment(node, faults));
        let disabled = disabled.map(|node| node.boolean(faults));
        let apis = apis.map(|node| node.texts(faults));
        let networks = from.map(|node| read_networks(node, faults));
        let spec = Self {
            hash: hash?,
            name: name.map_or(Some(None), |read| read.map(Some))?,
            not_before: from_moment.map_or(Some(None), |read| read.map(Some))?,
            expires_at: until.map_or(Some(None), |read| read.map(Some))?,
            disabled: disabled.unwrap_or(Some(false))?,
            apis: apis.map_or(Some(None), |read| read.map(Some))?,
            networks: networks.map_or(Some(None), |read| read.map(Some))?,
            // SECURITY: a binding that cannot be read never leaves the key unbound.
            certificate: certificate.map_or(Some(None), |read| read.map(Some))?,
        };
        if let (Some(from), Some(end), Some(node)) = (spec.not_before, spec.expires_at, expires)
            && end <= from
        {
            faults.error("never_valid", node.place, "this key ends before it begins to count");
            return None;
        }
        Some(spec)
    }

    /// Adds the key to those of all clients.
    pub(crate) fn register(
        self,
        keys: Option<&mut ApiKeys>,
        client: &Arc<Client>,
        registering: &Registering<'_>,
        faults: &mut Faults,
    ) {
        let (place, apis) = (self.hash.place, registering.apis);
        let Some(keys) = keys else {
            faults.push(
                Diagnostic::error(
                    "missing_pepper",
                    place,
                    "an API key is declared, but no pepper to look it up with",
                )
                .note("add `api_keys: { pepper: { file: secrets/pepper } }` to gateway.yaml"),
            );
            return;
        };
        for api in self.apis.iter().flatten() {
            if !apis.iter().any(|(name, _)| *name == api.value) {
                faults.undefined("API", api, apis);
            }
        }
        if !self.name_is_free(keys, client, faults) {
            return;
        }
        let Ok(bound_to) = self.binding(registering, faults) else { return };
        let owner = KeyOwner {
            identity: self.identity(client),
            client_expires_at: client.expires_at,
            terms: KeyTerms {
                not_before: self.not_before,
                expires_at: self.expires_at,
                disabled: self.disabled,
                apis: self.apis.map(|apis| apis.into_iter().map(|api| api.value.into()).collect()),
                networks: self.networks.map(Vec::into_boxed_slice),
            },
            bound_to,
        };
        if let Some((taken, declared)) = keys.add(self.hash.value, owner, place) {
            faults.push(
                Diagnostic::error("key_twice", place, "this API key is declared more than once")
                    .related(declared, format!("client `{}` already has it", taken.identity.subject)),
            );
        }
    }

    /// Whether its name, if it has one, can be its own: the keys of one client are told apart by it.
    fn name_is_free(&self, keys: &mut ApiKeys, client: &Arc<Client>, faults: &mut Faults) -> bool {
        let Some(name) = &self.name else { return true };
        // SECURITY: names are shown; a key in the place of its name would be shown with every request.
        if keys.hash(&name.value) == self.hash.value {
            faults.push(key_as_name(name.place));
            return false;
        }
        let Some(taken) = keys.claim_name(client, name) else { return true };
        let message = format!("client `{}` has two API keys called `{}`", client.name, name.value);
        faults.push(
            Diagnostic::error("key_name_twice", name.place, message).related(taken, "the other one is here"),
        );
        false
    }

    /// What must come with the key.
    fn binding(
        &self,
        registering: &Registering<'_>,
        faults: &mut Faults,
    ) -> Result<Option<CertificateBinding>, Unbindable> {
        let Some(named) = &self.certificate else { return Ok(None) };
        named.binding(registering.authorities, faults).map(Some).ok_or(Unbindable)
    }

    /// The client, until the key or the client ends.
    fn identity(&self, client: &Arc<Client>) -> Arc<Identity> {
        let name = self.name.as_ref().map(|name| name.value.as_str().into());
        identity_until(client, AuthMethod::ApiKey, name, self.expires_at)
    }
}

/// The certificate a key is bound to cannot be made out; what is wrong was said.
struct Unbindable;

fn read_hash(node: &Node, faults: &mut Faults) -> Option<Spanned<KeyHash>> {
    let text = node.text(faults)?;
    match text.value.parse() {
        Ok(hash) => Some(Spanned::new(hash, text.place)),
        Err(error) => {
            faults.push(
                Diagnostic::error("bad_key_hash", text.place, format!("this is {error}"))
                    .note("make one with `portcullis key create --declare`"),
            );
            None
        }
    }
}

/// SECURITY: the text is not repeated in the message: it could be a key.
fn read_name(node: &Node, faults: &mut Faults) -> Option<Spanned<String>> {
    let text = node.text(faults)?;
    match check_key_name(&text.value) {
        Ok(()) => Some(text),
        Err(BadKeyName::IsKey) => {
            faults.push(key_as_name(text.place));
            None
        }
        Err(fault @ BadKeyName::Unprintable) => {
            faults.error("bad_name", text.place, fault.to_string());
            None
        }
    }
}

fn key_as_name(place: Place) -> Diagnostic {
    Diagnostic::error("literal_secret", place, "this name is a key, and names are shown in logs and headers")
        .note("take this key out of use, and call the next one by something that is no secret, such as `mobile-2027`")
}

fn read_networks(node: &Node, faults: &mut Faults) -> Option<Vec<IpNet>> {
    let words = node.texts(faults)?;
    let read: Vec<_> = words.iter().filter_map(|word| read_network(word, faults)).collect();
    (read.len() == words.len()).then_some(read)
}

fn read_network(word: &Spanned<String>, faults: &mut Faults) -> Option<IpNet> {
    let text = word.value.as_str();
    let read = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(network) = read else {
        faults.push(
            Diagnostic::error("bad_network", word.place, format!("`{text}` is not a network"))
                .note("write an address, or a network such as `192.0.2.0/24` or `2001:db8::/32`"),
        );
        return None;
    };
    if network != network.trunc() {
        let fault = format!("`{network}` is one address inside a network");
        faults.push(
            Diagnostic::error("bad_network", word.place, fault)
                .label(format!("did you mean `{}`?", network.trunc())),
        );
        return None;
    }
    Some(network)
}
