//! How the asking of one provider is doing.

use std::sync::Arc;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntrospectionResult {
    /// The token counts.
    Active,
    /// It does not.
    Inactive,
    /// No answer, or one that says nothing.
    Failed,
}

impl IntrospectionResult {
    /// Every result.
    pub const ALL: [Self; 3] = [Self::Active, Self::Inactive, Self::Failed];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
        }
    }
}

/// How one provider's answers and the memory of them are doing.
#[derive(Clone, Debug, Default)]
pub struct IntrospectionStatus {
    /// The issuer entry.
    pub issuer: Arc<str>,
    /// Where questions go; the issuer itself as long as that is not discovered.
    pub url: Arc<str>,
    /// Questions answered `active`.
    pub active: u64,
    /// Questions answered `inactive`.
    pub inactive: u64,
    /// Questions without an answer that says something.
    pub failed: u64,
    /// Tokens whose answer was remembered, by the memory all workers share.
    pub hits: u64,
    /// Tokens that had to be asked for.
    pub misses: u64,
    /// Requests that waited for a question somebody else had asked.
    pub joined: u64,
    /// Answers forgotten before their time to make room.
    pub evictions: u64,
    /// Requests refused without a question, because the provider is failing, the question about that token has just
    /// failed, or too many questions are under way.
    pub turned_away: u64,
    /// Answers held now.
    pub held: usize,
    /// Bytes they take, about.
    pub bytes: usize,
    /// Questions under way.
    pub under_way: usize,
    /// Whether the provider fails so often that hardly anybody is sent there.
    pub shut: bool,
    /// Why the last question failed, if it did.
    pub last_error: Option<String>,
}

impl IntrospectionStatus {
    /// How often a question ended so.
    pub const fn count(&self, result: IntrospectionResult) -> u64 {
        match result {
            IntrospectionResult::Active => self.active,
            IntrospectionResult::Inactive => self.inactive,
            IntrospectionResult::Failed => self.failed,
        }
    }

    /// What became of the look into the memory, by the word in metrics.
    pub const fn cache_events(&self) -> [(&'static str, u64); 4] {
        [("hit", self.hits), ("miss", self.misses), ("joined", self.joined), ("evicted", self.evictions)]
    }
}
