//! Who is told that a quota is nearly used up.

use std::fmt;
use std::sync::Arc;

/// A caller has reached a percentage of a quota, for the first time in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaAlert<'a> {
    /// The API it was reached in.
    pub api: &'a str,
    /// The limit's name.
    pub limit: &'a str,
    /// The caller's name, as in the log.
    pub identity: &'a str,
    /// Which percentage.
    pub percent: u8,
    /// How many units are left of the window.
    pub remaining: u64,
}

/// Whom alerts are told, for each while its request waits: it may not block.
#[derive(Clone)]
pub struct AlertHook(Arc<dyn Fn(&QuotaAlert<'_>) + Send + Sync>);

impl AlertHook {
    /// One that does this.
    pub fn new(tell: impl Fn(&QuotaAlert<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(super) fn tell(&self, alert: &QuotaAlert<'_>) {
        (self.0)(alert);
    }
}

/// Tells nobody.
impl Default for AlertHook {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for AlertHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AlertHook")
    }
}
