//! Many refusals in one event: strangers decide how many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use portcullis_core::Reason;
use serde_json::{Value, json};

use super::{EventKind, Refused};

/// How many different events of each kind are gathered between two times they are told; more are counted among the others
/// of their kind.
const MOST: usize = 512;
/// How many events that makes at most: one kind is of who calls, the other of limits, and each has its others.
pub(super) const MOST_TOLD: usize = 2 * (MOST + 1);
/// How many addresses one event names.
const ADDRESSES: usize = 8;

/// What is told in one event.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Subject {
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
    subjects: BTreeMap<EventKind, OfKind>,
}

#[derive(Default)]
struct OfKind {
    subjects: HashMap<Subject, Together>,
    /// Those that found no place.
    others: u64,
}

impl Gathered {
    pub(super) fn add(&mut self, kind: EventKind, refused: Refused) {
        let Refused { api, reason, limit, identity, client, request_id } = refused;
        let identity = identity.filter(|_| kind == EventKind::LimitExceeded);
        let subject = Subject { api, reason, limit, identity };
        let of_kind = self.subjects.entry(kind).or_default();
        if of_kind.subjects.len() >= MOST && !of_kind.subjects.contains_key(&subject) {
            of_kind.others = of_kind.others.saturating_add(1);
            return;
        }
        let together = of_kind.subjects.entry(subject).or_insert_with(|| Together {
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
        let mut told = Vec::new();
        for (kind, OfKind { subjects, others }) in std::mem::take(&mut self.subjects) {
            for (Subject { api, reason, limit, identity }, together) in subjects {
                let Together { count, addresses, request_id } = together;
                let data = json!({
                    "api": api, "reason": reason.code(), "limit": limit, "identity": identity, "count": count,
                    "addresses": addresses, "request_id": request_id,
                });
                told.push((kind, data));
            }
            if others > 0 {
                told.push((kind, json!({ "reason": "others", "count": others })));
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::Reason;
    use serde_json::json;

    use super::{Gathered, MOST, MOST_TOLD};
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
        for _ in 0..3 {
            gathered.add(EventKind::AuthFailed, refused("api-0", Reason::ApiKeyInvalid, "192.0.2.1", "x"));
        }
        let told = gathered.take();
        assert!(told.len() == MOST + 2 && told.len() <= MOST_TOLD);
        let others = |(kind, data): &&(EventKind, serde_json::Value)| {
            *kind == EventKind::LimitExceeded && data["reason"] == json!("others")
        };
        assert_eq!(told.iter().find(others).map(|(_, data)| data["count"].clone()), Some(json!(5)));
        let failed = told.iter().find(|(kind, _)| *kind == EventKind::AuthFailed);
        assert_eq!(
            failed.map(|(_, data)| data["count"].clone()),
            Some(json!(3)),
            "it has a place of its own"
        );
    }
}
