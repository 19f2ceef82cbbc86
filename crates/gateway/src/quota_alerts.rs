//! Callers that have nearly used up a quota: a line in the log and a count, once for each window and percentage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::Label;
use portcullis_policy::{AlertHook, QuotaAlert};
use serde_json::json;

use crate::events::{EventKind, Events};
use crate::telemetry::Telemetry;

/// Api, limit and percentage, and how often that was told.
type Told = BTreeMap<(String, String, u8), u64>;

/// What has been told, by api, limit and percentage: names from the policy files. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuotaAlerts(Arc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    told: Mutex<Told>,
    /// Who else is told; nobody before the gateway has begun.
    events: OnceLock<Events>,
}

impl QuotaAlerts {
    /// Where limits tell. Alerts are rare, so a lock is short enough for the path of a request.
    pub(crate) fn hook(&self) -> AlertHook {
        let told = self.clone();
        AlertHook::new(move |alert| told.note(alert))
    }

    /// Tells these, too, from now on.
    pub(crate) fn tell_also(&self, events: Events) {
        // A second time is none: there is one queue of events.
        let _ = self.0.events.set(events);
    }

    fn note(&self, alert: &QuotaAlert<'_>) {
        let QuotaAlert { api, limit, identity, percent, remaining } = *alert;
        tracing::warn!(api, limit, identity, percent, remaining, "a quota is nearly used up");
        if let Some(events) = self.0.events.get() {
            let data = json!({
                "api": api, "limit": limit, "identity": identity, "percent": percent, "remaining": remaining,
            });
            events.tell(EventKind::QuotaAlert, data);
        }
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told.entry((api.to_owned(), limit.to_owned(), percent)).or_default() += 1;
    }

    /// Gives the counts to the registry.
    pub(crate) fn record(&self, telemetry: &Telemetry) {
        for ((api, limit, percent), count) in &*self.0.told.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = vec![
                Label::new("api", api.clone()),
                Label::new("limit", limit.clone()),
                Label::new("percent", percent.to_string()),
            ];
            telemetry.count_absolute("portcullis_quota_alerts_total", labels, *count);
        }
    }
}
