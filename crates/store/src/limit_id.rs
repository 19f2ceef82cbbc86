//! The name a counter is found by.

use std::sync::Arc;

/// Which limit of which API a table of counters belongs to.
///
/// The two names stay apart, here and in the file, so that no choice of names makes two limits one. The rule of a
/// limit is not part of its name: an edited rule goes on with the counters it finds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitId {
    api: Arc<str>,
    limit: Arc<str>,
}

impl LimitId {
    /// The limit called `limit` of the API called `api`.
    pub fn new(api: &str, limit: &str) -> Self {
        Self { api: Arc::from(api), limit: Arc::from(limit) }
    }

    /// The limit that several APIs share under a name. No API is called `*`.
    pub fn shared(name: &str) -> Self {
        Self::new("*", name)
    }

    /// The API's name, `*` for a limit that is shared.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// The limit's name within its API.
    pub fn limit(&self) -> &str {
        &self.limit
    }
}
