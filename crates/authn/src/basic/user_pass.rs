//! User name and password as they are sent (RFC 7617 section 2).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The longest credential that is decoded, in characters of base64.
const MAX_ENCODED: usize = 2048;

/// The longest name, in bytes: that of a client.
pub(super) const MAX_USER: usize = 255;

/// A name and a password, of which nothing is known yet.
pub struct UserPass {
    /// Name, colon, password; wiped when dropped.
    text: Zeroizing<String>,
    colon: usize,
}

/// Why bytes are not a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserPassError {
    /// Longer than anything that is looked at.
    #[error("the credential is too long")]
    TooLong,
    /// Not base64 with its padding.
    #[error("the credential is not base64")]
    NotBase64,
    /// Not UTF-8.
    #[error("name and password are not UTF-8")]
    NotUtf8,
    /// A control character, which RFC 7617 forbids.
    #[error("name or password hold a control character")]
    Control,
    /// No colon between them.
    #[error("there is no colon between name and password")]
    NoColon,
    /// A colon in the name, which would end there.
    #[error("the name holds a colon")]
    Colon,
    /// No name before the colon, and the policy takes none without one.
    #[error("the name is empty")]
    NoUser,
}

impl UserPass {
    /// Decodes what follows `Basic`. The name ends at the first colon; a password may hold more of them. The name may be
    /// empty, as RFC 7617 lets it be: whether it counts then is the policy's to say.
    ///
    /// # Errors
    /// It is not what RFC 7617 says it is.
    pub fn parse(encoded: &[u8]) -> Result<Self, UserPassError> {
        if encoded.len() > MAX_ENCODED {
            return Err(UserPassError::TooLong);
        }
        // SECURITY: exactly one text decodes to these bytes: no other alphabet, no missing padding, no stray bits.
        let decoded = STANDARD.decode(encoded).map_err(|_| UserPassError::NotBase64)?;
        let text = String::from_utf8(decoded).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            UserPassError::NotUtf8
        })?;
        Self::of_text(Zeroizing::new(text))
    }

    /// A name and a password found apart.
    pub(super) fn of(user: &[u8], password: &[u8]) -> Result<Self, UserPassError> {
        if user.len() + password.len() > MAX_ENCODED {
            return Err(UserPassError::TooLong);
        }
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| UserPassError::NotUtf8);
        let user = text(user)?;
        if user.contains(':') {
            return Err(UserPassError::Colon);
        }
        Self::of_text(Zeroizing::new(format!("{user}:{}", text(password)?)))
    }

    fn of_text(text: Zeroizing<String>) -> Result<Self, UserPassError> {
        if text.chars().any(char::is_control) {
            return Err(UserPassError::Control);
        }
        let colon = text.find(':').ok_or(UserPassError::NoColon)?;
        if colon > MAX_USER {
            return Err(UserPassError::TooLong);
        }
        Ok(Self { text, colon })
    }

    /// The same, if it has a name or need not have one (BAS-01).
    pub(super) fn with_name(self, may_be_empty: bool) -> Result<Self, UserPassError> {
        if self.colon == 0 && !may_be_empty { Err(UserPassError::NoUser) } else { Ok(self) }
    }

    /// The name, as the caller claims it.
    pub fn user(&self) -> &str {
        self.text.get(..self.colon).unwrap_or_default()
    }

    /// The password.
    pub fn password(&self) -> &[u8] {
        self.text.as_bytes().get(self.colon + 1..).unwrap_or_default()
    }
}

/// SECURITY: users type passwords where names belong.
impl fmt::Debug for UserPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserPass(redacted)")
    }
}
