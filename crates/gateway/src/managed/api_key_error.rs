//! Why a key is not made or changed.

use portcullis_authn::{CannotIssue, NoRandomness};
use portcullis_store::StoreError;

/// Most keys one client may have, so that a script that has run wild does not fill the disk.
pub(super) const MOST: usize = 1_000;

/// Why a key was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// No declared client has that name.
    #[error("no client has this name")]
    UnknownClient,
    /// The client has no such key.
    #[error("no key of this client has this id; keys of the policy files are changed there")]
    UnknownKey,
    /// An API the key is to be used at does not exist.
    #[error("there is no API `{0}`")]
    UnknownApi(String),
    /// What was said of the key makes no sense.
    #[error("{0}")]
    Unfit(String),
    /// Somebody has that value.
    #[error("this value is a key already")]
    Taken,
    /// The client has a key of that name.
    #[error("a key of this client has this name already")]
    NameTaken,
    /// The key was rotated before.
    #[error("the key was rotated already, its successor is `{0}`")]
    Replaced(String),
    /// There is nothing to take the place of.
    #[error("the key is not in force; make a new one")]
    NotInForce,
    /// There are too many.
    #[error("the client has {MOST} keys already")]
    Full,
    /// A restart would forget it.
    #[error("nothing is kept: add `store: {{ path: data/portcullis.redb }}` to gateway.yaml")]
    NotKept,
    /// The store could not keep it, so it is not in force.
    #[error("nothing has changed: {0}")]
    Store(StoreError),
    /// Another gateway has changed the key; nothing has changed here.
    #[error("another gateway has changed the key a moment ago; look at it again")]
    ChangedElsewhere,
    /// The store could not keep what is in force.
    #[error(
        "this is in force on this gateway, and a restart would forget it: {0}; it is written when the store can be"
    )]
    InForceNotKept(StoreError),
    /// The system gives no randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// A record in memory is not to be understood; nothing has changed.
    #[error("the key cannot be read: {0}")]
    Damaged(String),
}

impl From<StoreError> for ApiKeyError {
    fn from(why: StoreError) -> Self {
        match why {
            StoreError::Conflict => Self::ChangedElsewhere,
            why => Self::Store(why),
        }
    }
}

impl From<CannotIssue> for ApiKeyError {
    fn from(why: CannotIssue) -> Self {
        match why {
            CannotIssue::UnknownClient => Self::UnknownClient,
            CannotIssue::Taken => Self::Taken,
            CannotIssue::NameTaken => Self::NameTaken,
        }
    }
}
