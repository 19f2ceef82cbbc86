//! Name and password in the content of a request.

use portcullis_core::{Diagnostic, Faults, Reason, Rejection, Spanned};
use regex::bytes::{Regex, RegexBuilder};

use super::UserPass;

/// How large a compiled pattern may be, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// The two patterns. What their one group catches is taken as it stands, without decoding anything.
#[derive(Debug)]
pub(super) struct Extraction {
    username: Regex,
    password: Regex,
}

impl Extraction {
    /// Compiles the patterns.
    pub(super) fn compile(
        username: &Spanned<String>,
        password: &Spanned<String>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let (username, password) = (pattern(username, faults), pattern(password, faults));
        Some(Self { username: username?, password: password? })
    }

    /// The one name and the one password; `None` if there is neither.
    ///
    /// # Errors
    /// One is there without the other, or one is there twice, or they are nothing that can be a name or a password.
    pub(super) fn read(&self, content: &[u8]) -> Result<Option<UserPass>, Rejection> {
        let (user, password) = (only(&self.username, content)?, only(&self.password, content)?);
        match (user, password) {
            (None, None) => Ok(None),
            (Some(user), Some(password)) => Ok(Some(UserPass::of(user, password)?)),
            (None, Some(_)) => Err(broken("the body holds a password and no user name")),
            (Some(_), None) => Err(broken("the body holds a user name and no password")),
        }
    }
}

fn broken(why: &str) -> Rejection {
    Rejection::new(Reason::CredentialsMalformed).because(why)
}

/// SECURITY: of two the upstream might read the other one.
fn only<'c>(pattern: &Regex, content: &'c [u8]) -> Result<Option<&'c [u8]>, Rejection> {
    let mut found = pattern.captures_iter(content);
    let first = found.next().and_then(|groups| groups.get(1)).map(|group| group.as_bytes());
    if found.next().is_some() {
        return Err(Rejection::new(Reason::CredentialsAmbiguous).because("the body matches more than once"));
    }
    Ok(first)
}

fn pattern(text: &Spanned<String>, faults: &mut Faults) -> Option<Regex> {
    let compiled = RegexBuilder::new(&text.value).size_limit(MAX_PATTERN).build();
    let regex = match compiled {
        Ok(regex) => regex,
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            faults.error("bad_pattern", text.place, format!("this is not a pattern: {why}"));
            return None;
        }
    };
    if regex.captures_len() != 2 {
        faults.push(
            Diagnostic::error(
                "bad_pattern",
                text.place,
                format!(
                    "a pattern has exactly one group, this has {}",
                    regex.captures_len().saturating_sub(1)
                ),
            )
            .note("put what is to be taken in brackets, and write `(?: )` for brackets that take nothing"),
        );
        return None;
    }
    Some(regex)
}
