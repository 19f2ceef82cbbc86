//! `basic:` as written in a chain.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place as FilePlace, Spanned};

use super::extraction::Extraction;
use super::{Basic, Source};
use crate::chain::Compiling;
use crate::place::Place;

/// How long a password that was right is remembered, where the policy does not say.
const REMEMBER: Duration = Duration::from_secs(60);

/// The longest it may be remembered.
const MAX_REMEMBER: Duration = Duration::from_secs(300);

/// Whose passwords an alternative takes, and from where.
#[derive(Clone, Debug)]
pub(crate) struct BasicSpec {
    realm: Option<Spanned<String>>,
    remember: Duration,
    body: Option<BodySpec>,
    empty_username: bool,
    at: FilePlace,
}

/// `body: { username, password }`
#[derive(Clone, Debug)]
struct BodySpec {
    username: Spanned<String>,
    password: Spanned<String>,
}

impl BasicSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`basic`", faults)?;
        let (realm, remember, body) = (fields.get("realm"), fields.get("remember"), fields.get("body"));
        let empty = fields.get("empty_username");
        fields.finish(faults);
        let words = [("refuse", false), ("allow", true)];
        let empty = empty.map_or(Some(false), |node| node.one_of(&words, faults));
        let realm = realm.map(|node| read_realm(node, faults));
        let remember = remember.map_or(Some(REMEMBER), |node| read_life(node, faults));
        let body = body.map(|node| BodySpec::read(node, faults));
        Some(Self {
            realm: realm.map_or(Some(None), |read| read.map(Some))?,
            remember: remember?,
            body: body.map_or(Some(None), |read| read.map(Some))?,
            empty_username: empty?,
            at: node.place,
        })
    }

    pub(crate) fn compile(&self, compiling: &Compiling<'_>, faults: &mut Faults) -> Option<Basic> {
        let source = match &self.body {
            None => Source::Head(Place::authorization("basic").into()),
            Some(body) => Source::Content(Extraction::compile(&body.username, &body.password, faults)?),
        };
        let users = compiling.clients.users();
        if users.is_empty() {
            faults.push(
                Diagnostic::warning(
                    "no_users",
                    self.at,
                    "no client has a user name, so nobody can come this way",
                )
                .note("add `- basic: { username, password_hash }` to the credentials of a client"),
            );
        }
        let realm: Arc<str> = self.realm.as_ref().map_or(compiling.api, |realm| &realm.value).into();
        Some(Basic {
            realm,
            source,
            empty_username: self.empty_username,
            remember: self.remember,
            users: users.clone(),
            checks: compiling.passwords.clone(),
        })
    }
}

impl BodySpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`body`", faults)?;
        let (username, password) = (fields.require("username", faults), fields.require("password", faults));
        fields.finish(faults);
        let username = username.and_then(|node| node.text(faults));
        let password = password.and_then(|node| node.text(faults));
        Some(Self { username: username?, password: password? })
    }
}

/// SECURITY: it is sent in a quoted string, which nothing may end early.
fn read_realm(node: &Node, faults: &mut Faults) -> Option<Spanned<String>> {
    let text = node.text(faults)?;
    if text.value.len() > 255
        || !text.value.bytes().all(|byte| matches!(byte, b' '..=b'~' if byte != b'"' && byte != b'\\'))
    {
        faults.error("bad_realm", text.place, "a realm is printable ASCII without `\"` and `\\`");
        return None;
    }
    Some(text)
}

fn read_life(node: &Node, faults: &mut Faults) -> Option<Duration> {
    let life = node.duration(faults)?;
    if life > MAX_REMEMBER {
        faults.error("out_of_range", node.place, "a password that was right is remembered for at most 5m");
        return None;
    }
    Some(life)
}
