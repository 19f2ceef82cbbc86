//! What may be used once, at all of the gateways together.

use std::time::Duration;

use super::SharedCounters;
use super::ask::PREFIX;
use crate::error::StoreError;

/// A credential that may be used once, of a kind, and how long it is remembered.
pub(crate) struct UsedUp<'a> {
    pub(crate) space: &'a str,
    pub(crate) key: &'a [u8],
    pub(crate) remembered: Duration,
}

impl SharedCounters {
    /// Notes that credentials are used up, or, if one of them is already, none: the position of that one.
    ///
    /// # Errors
    /// The server cannot be asked or does not answer. Then they may be used up.
    pub(crate) async fn claim(&self, used: &[UsedUp<'_>]) -> Result<Option<usize>, StoreError> {
        if !self.lets_through() {
            return Err(StoreError::NoAnswer);
        }
        let keys = used.iter().map(|UsedUp { space, key, remembered }| {
            // SECURITY: the name with its length, so that no two pairs of name and key run together.
            let mut full = format!("{PREFIX}once:{}:{space}:", space.len()).into_bytes();
            full.extend_from_slice(key);
            (full, u64::try_from(remembered.as_millis()).unwrap_or(u64::MAX).max(1))
        });
        let (keys, this) = (keys.collect::<Vec<_>>(), self.clone());
        let claiming = self.0.background.spawn(async move {
            if !this.0.servers.is_cluster() {
                return this.claim_together(&keys).await;
            }
            // Each may be on another server; they are of one caller, so nobody else comes between.
            for (at, one) in keys.iter().enumerate() {
                if this.claim_together(std::slice::from_ref(one)).await? > 0 {
                    this.release(keys.get(..at).unwrap_or_default()).await;
                    return Ok(at + 1);
                }
            }
            Ok(0)
        });
        let first = claiming.await.unwrap_or(Err(StoreError::Closed))?;
        Ok(first.checked_sub(1))
    }

    async fn claim_together(&self, keys: &[(Vec<u8>, u64)]) -> Result<usize, StoreError> {
        let mut call = self.0.claim.call();
        for (key, remembered) in keys {
            call.key(key).arg(remembered);
        }
        self.answer(call.kept_by_replicas()).await
    }

    /// Takes claims back that were made a moment ago. Where the server does not hear of it they stay used up.
    async fn release(&self, keys: &[(Vec<u8>, u64)]) {
        for (key, _) in keys {
            let mut call = self.0.claim.call();
            call.key(key).arg(0);
            let _ = self.answer::<usize>(&call).await;
        }
    }
}
