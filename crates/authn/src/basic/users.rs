//! The users of all declared clients, frozen.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use portcullis_core::{Identity, Place};
use portcullis_jose::PasswordHash;

use super::PasswordChecks;

/// One user.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) identity: Arc<Identity>,
    /// Second since 1970 from which the client no longer counts.
    pub(crate) client_expires_at: Option<i64>,
    pub(crate) hash: Arc<PasswordHash>,
    /// Where it is declared.
    pub(crate) declared: Place,
}

/// All of them, by name.
#[derive(Default)]
pub(crate) struct Users {
    positions: HashMap<Box<str>, usize, ahash::RandomState>,
    all: Vec<User>,
}

impl Users {
    /// Adds a user; hands back the one who has the name already.
    pub(super) fn add(&mut self, name: &str, user: User) -> Option<&User> {
        if let Some(taken) = self.positions.get(name) {
            return self.all.get(*taken);
        }
        self.positions.insert(name.into(), self.all.len());
        self.all.push(user);
        None
    }

    /// The user of exactly that name.
    pub(super) fn find(&self, name: &str) -> Option<&User> {
        self.positions.get(name).and_then(|at| self.all.get(*at))
    }

    /// Somebody whose password is checked in place of that of a name nobody has. SECURITY: who it is follows from the
    /// name under a secret of this process, so that names nobody has cost what the names of users cost, in the same
    /// proportions, and each the same whenever it is tried.
    pub(super) fn stand_in(&self, name: &str, checks: &PasswordChecks) -> Option<&User> {
        let at = usize::try_from(checks.spread(name)).unwrap_or_default().checked_rem(self.all.len())?;
        self.all.get(at)
    }

    /// Whether there is nobody.
    pub(crate) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many have a stored password that is cheaper to guess than a new one would be.
    pub(crate) fn weak(&self) -> usize {
        self.all.iter().filter(|user| user.hash.is_weak()).count()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.all.len())
    }
}
