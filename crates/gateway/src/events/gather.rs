//! Many refusals in one event: strangers decide how many there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use portcullis_core::Reason;
use serde_json::{Value, json};

use super::{EventKind, Refused};

/// How many different events are gathered between two times they are told; more are counted among the others.
const MOST: usize = 1_024;
/// How many addresses one event names.
const ADDRESSES: usize = 8;

/// What is told in one event.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Subject {
    kind: EventKind,
    api: Arc<str>,
    reason: Reason,
    limit: Option<Arc<str>>,
    /// Of limits: whom they refused.
    identity: Option<Arc<str>>,
}

struct Together {
    count: u64,
    addresses: BTreeSet<String>,
    /// The first of them, to be looked up.
    request_id: String,
}

/// The refusals since they were last told.
#[derive(Default)]
pub(super) struct Gathered {
    subjects: HashMap<Subject, Together>,
    /// Those that found no place.
    others: u64,
}

impl Gathered {
    pub(super) fn add(&mut self, kind: EventKind, refused: Refused) {
        let Refused { api, reason, limit, identity, client, request_id } = refused;
        let identity = identity.filter(|_| kind == EventKind::LimitExceeded);
        let subject = Subject { kind, api, reason, limit, identity };
        if self.subjects.len() >= MOST && !self.subjects.contains_key(&subject) {
            self.others = self.others.saturating_add(1);
            return;
        }
        let together = self.subjects.entry(subject).or_insert_with(|| Together {
            count: 0,
            addresses: BTreeSet::new(),
            request_id,
        });
        together.count = together.count.saturating_add(1);
        if together.addresses.len() < ADDRESSES {
            together.addresses.insert(client);
        }
    }

    /// Takes out what is to be told.
    pub(super) fn take(&mut self) -> Vec<(EventKind, Value)> {
        let others = std::mem::take(&mut self.others);
        let mut told: Vec<(EventKind, Value)> = std::mem::take(&mut self.subjects)
            .into_iter()
            .map(|(Subject { kind, api, reason, limit, identity }, together)| {
                let Together { count, addresses, request_id } = together;
                let data = json!({
                    "api": api, "reason": reason.code(), "limit": limit, "identity": identity, "count": count,
                    "addresses": addresses, "request_id": request_id,
                });
                (kind, data)
            })
            .collect();
        if others > 0 {
            told.push((EventKind::AuthFailed, json!({ "reason": "others", "count": others })));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::Reason;
    use serde_json::json;

    use super::{Gathered, MOST};
    use crate::events::{EventKind, Refused};

    fn refused(api: &str, reason: Reason, client: &str, request_id: &str) -> Refused {
        let (limit, identity) = (None, Some("alice".into()));
        Refused {
            api: api.into(),
            reason,
            limit,
            identity,
            client: client.into(),
            request_id: request_id.into(),
        }
    }

    #[test]
    fn refusals_of_one_kind_are_one_event() {
        let mut gathered = Gathered::default();
        for number in 0..100 {
            let client = format!("192.0.2.{number}");
            gathered.add(
                EventKind::AuthFailed,
                refused("orders", Reason::ApiKeyInvalid, &client, &number.to_string()),
            );
        }
        let told = gathered.take();
        let [(EventKind::AuthFailed, data)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((&data["count"], &data["request_id"]), (&json!(100), &json!("0")));
        assert_eq!(data["addresses"].as_array().map(Vec::len), Some(8));
        assert_eq!(data["identity"], json!(null), "who failed has only claimed to be somebody");
        assert!(gathered.take().is_empty());
    }

    /// However many names strangers make up, what is held of them is bounded, and none goes uncounted.
    #[test]
    fn what_finds_no_place_is_counted() {
        let mut gathered = Gathered::default();
        for number in 0..MOST + 5 {
            gathered.add(
                EventKind::LimitExceeded,
                refused(&format!("api-{number}"), Reason::RateLimited, "192.0.2.1", "x"),
            );
        }
        let told = gathered.take();
        assert_eq!(told.len(), MOST + 1);
        assert_eq!(told.last().map(|(_, data)| data["count"].clone()), Some(json!(5)));
    }
}
