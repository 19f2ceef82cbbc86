//! `basic: { username, password_hash }` as written among the credentials of a client.

use std::sync::Arc;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{AuthMethod, Client, Diagnostic, Faults, Place, Spanned};
use portcullis_jose::PasswordHash;

use super::Users;
use super::user_pass::MAX_USER;
use super::users::User;
use crate::clients::identity_of;

/// One user.
#[derive(Debug)]
pub(crate) struct BasicCredential {
    username: Spanned<String>,
    hash: PasswordHash,
    hash_at: Place,
}

impl BasicCredential {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`basic`", faults)?;
        let (username, hash) = (fields.require("username", faults), fields.require("password_hash", faults));
        fields.finish(faults);
        let username = username.and_then(|node| read_username(node, faults));
        let hash_at = hash?.place;
        let hash = hash.and_then(|node| read_hash(node, faults));
        Some(Self { username: username?, hash: hash?, hash_at })
    }

    /// Adds the user to those of all clients.
    pub(crate) fn register(self, users: &mut Users, client: &Arc<Client>, faults: &mut Faults) {
        if self.hash.is_weak() {
            faults.push(
                Diagnostic::warning(
                    "weak_password_hash",
                    self.hash_at,
                    format!("the password of client `{}` is stored in a form that is cheap to guess", client.name),
                )
                .note("files are never rewritten: make a new one with `portcullis hash` when the password is next at hand"),
            );
        }
        // A name that is empty names nothing.
        let name = Some(self.username.value.as_str()).filter(|name| !name.is_empty()).map(Arc::from);
        let user = User {
            identity: identity_of(client, AuthMethod::Basic, name),
            client_expires_at: client.expires_at,
            hash: Arc::new(self.hash),
            declared: self.username.place,
        };
        if let Some(taken) = users.add(&self.username.value, user) {
            let message = format!("there are two users called `{}`", self.username.value);
            faults.push(
                Diagnostic::error("username_twice", self.username.place, message)
                    .related(taken.declared, format!("client `{}` has that name", taken.identity.subject))
                    .note("while a password changes, give the client a second user name"),
            );
        }
    }
}

/// An empty one counts only where an API takes passwords without a name.
fn read_username(node: &Node, faults: &mut Faults) -> Option<Spanned<String>> {
    if matches!(&node.content, Content::Text(text) if text.is_empty()) {
        return Some(Spanned::new(String::new(), node.place));
    }
    let text = node.text(faults)?;
    if text.value.len() > MAX_USER || text.value.contains(':') || text.value.chars().any(char::is_control) {
        faults.error(
            "bad_username",
            text.place,
            format!("a user name is at most {MAX_USER} bytes, without colon and control characters"),
        );
        return None;
    }
    Some(text)
}

/// SECURITY: the text is not repeated in the message: it could be the password itself.
fn read_hash(node: &Node, faults: &mut Faults) -> Option<PasswordHash> {
    let text = node.text(faults)?;
    PasswordHash::parse(&text.value)
        .map_err(|error| {
            faults.push(
                Diagnostic::error(
                    "bad_password_hash",
                    text.place,
                    format!("this is no stored password: {error}"),
                )
                .note("make one with `portcullis hash`; Argon2id and bcrypt are taken"),
            );
        })
        .ok()
}
