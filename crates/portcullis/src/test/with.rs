//! What a request of a test comes with: `with:`.

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Spanned};

use super::facts::{ClientFacts, Facts, Names};
use super::suite::{Named, defined};
use super::tree::text_at;

/// The credentials of one request.
#[derive(Default)]
pub(crate) struct With {
    pub(crate) token: Option<Spanned<String>>,
    pub(crate) proof: Proof,
    pub(crate) certificate: Option<Spanned<String>>,
    pub(crate) api_key: Option<Held>,
    pub(crate) basic: Option<Held>,
    pub(crate) hmac: Option<Signed>,
    pub(crate) signature: Option<Signed>,
}

/// Who proves to hold the key of a token.
#[derive(Default, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Its holder, if it has one.
    #[default]
    Holder,
    /// Somebody of that name.
    By(String),
    /// Nobody.
    Nobody,
}

/// A credential that a client holds.
pub(crate) struct Held {
    pub(crate) place: Place,
    pub(crate) client: String,
    /// Which of the client's credentials.
    pub(crate) number: usize,
    /// Whether it is spoilt: of the right form, and nobody's.
    pub(crate) wrong: bool,
}

/// A signature under a client's key.
pub(crate) struct Signed {
    pub(crate) place: Place,
    pub(crate) key_id: String,
    pub(crate) covers: Option<Vec<String>>,
    pub(crate) tag: Option<String>,
    pub(crate) wrong: bool,
}

impl With {
    /// Reads the mapping.
    pub(crate) fn read(node: &Node, facts: &Facts, names: &Named, faults: &mut Faults) -> Self {
        let Some(mut fields) = Fields::of(node, "what a request comes with", faults) else {
            return Self::default();
        };
        let known = |node: Option<&Node>, what: &str, names: &Names, faults: &mut Faults| {
            let node = node?;
            defined(what, node, names, faults).map(|name| Spanned::new(name, node.place))
        };
        let with = Self {
            token: known(fields.get("token"), "token", &names.tokens, faults),
            proof: fields.get("proof").and_then(|node| node.text(faults)).map_or(Proof::Holder, |by| {
                if by.value == "nobody" { Proof::Nobody } else { Proof::By(by.value) }
            }),
            certificate: known(fields.get("certificate"), "certificate", &names.certificates, faults),
            api_key: fields.get("api_key").and_then(|node| held(node, "api_key", "name", facts, faults)),
            basic: fields.get("basic").and_then(|node| held(node, "basic", "username", facts, faults)),
            hmac: fields.get("hmac").and_then(|node| signed(node, "hmac", facts, faults)),
            signature: fields.get("signature").and_then(|node| signed(node, "signature", facts, faults)),
        };
        fields.finish(faults);
        with
    }
}

/// `acme`, or `{ client: acme, name: mobile-2026, wrong: true }`.
fn held(
    node: &Node,
    kind: &str,
    told_apart_by: &'static str,
    facts: &Facts,
    faults: &mut Faults,
) -> Option<Held> {
    let clients = facts.client_names();
    if matches!(node.content, Content::Text(_)) {
        let client = defined("client", node, &clients, faults)?;
        let number = numbered(node, facts.client(&client)?, kind, None, faults)?;
        return Some(Held { place: node.place, client, number, wrong: false });
    }
    let mut fields = Fields::of(node, "a credential of a client", faults)?;
    let client = fields.require("client", faults).and_then(|node| defined("client", node, &clients, faults));
    let which = fields.get(told_apart_by).and_then(|node| node.text(faults));
    let wrong = fields.get("wrong").map_or(Some(false), |node| node.boolean(faults));
    fields.finish(faults);
    let client = client?;
    let which = which.as_ref().map(|which| (told_apart_by, which));
    let number = numbered(node, facts.client(&client)?, kind, which, faults)?;
    Some(Held { place: node.place, client, number, wrong: wrong? })
}

fn numbered(
    node: &Node,
    client: &ClientFacts,
    kind: &str,
    which: Option<(&'static str, &Spanned<String>)>,
    faults: &mut Faults,
) -> Option<usize> {
    let Some((key, which)) = which else {
        let first = client.of_kind(kind).next();
        if first.is_none() {
            let message = format!("client `{}` has no credential of kind `{kind}`", client.name.value);
            let fault = Diagnostic::error("undefined", node.place, message);
            faults.push(fault.related(client.name.place, "the client is here"));
        }
        return first.map(|(number, _)| number);
    };
    let found = client.of_kind(kind).find(|(_, one)| text_at(one, key) == Some(which.value.as_str()));
    if found.is_none() {
        let names =
            client.of_kind(kind).filter_map(|(_, one)| Some((text_at(one, key)?.to_owned(), one.place)));
        faults.undefined(key, which, &names.collect::<Vec<_>>());
    }
    found.map(|(number, _)| number)
}

/// `acme-1`, or `{ key_id: acme-1, covers: [...], tag: …, wrong: true }`.
fn signed(node: &Node, kind: &'static str, facts: &Facts, faults: &mut Faults) -> Option<Signed> {
    let ids = facts.key_ids(kind);
    if matches!(node.content, Content::Text(_)) {
        let key_id = defined("key id", node, &ids, faults)?;
        return Some(Signed { place: node.place, key_id, covers: None, tag: None, wrong: false });
    }
    let mut fields = Fields::of(node, "a signature", faults)?;
    let key_id = fields.require("key_id", faults).and_then(|node| defined("key id", node, &ids, faults));
    let covers = fields.get("covers").and_then(|node| node.texts(faults));
    let tag = fields.get("tag").and_then(|node| node.text(faults));
    let wrong = fields.get("wrong").map_or(Some(false), |node| node.boolean(faults));
    fields.finish(faults);
    Some(Signed {
        place: node.place,
        key_id: key_id?,
        covers: covers.map(|covers| covers.into_iter().map(|one| one.value).collect()),
        tag: tag.map(|tag| tag.value),
        wrong: wrong?,
    })
}
