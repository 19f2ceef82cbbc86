//! The last refusals of a worker, for whoever asks why.
//!
//! What is kept is what the access log says, so no token, key or query string is in it. Only refusals are kept, and what
//! a chain in shadow would have refused: a request that passes costs nothing here.

use std::cell::RefCell;
use std::collections::VecDeque;

use serde::Serialize;
use utoipa::ToSchema;

use crate::access_log::Record;

/// How many refusals a worker remembers.
const HELD: usize = 4_096;

/// Which refusals are asked for. What is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenialFilter {
    /// The request's id.
    pub request_id: Option<String>,
    /// The name of the API.
    pub api: Option<String>,
    /// The code of the reason, or of what a chain in shadow would have said.
    pub reason: Option<String>,
    /// How many, at most.
    pub most: usize,
}

/// One refusal, as the access log says it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Denial(#[schema(inline)] Record);

impl Denial {
    /// When the request came, so that texts sort as moments do.
    pub(crate) fn at(&self) -> &str {
        &self.0.ts
    }
}

/// The refusals of one worker, the latest last.
#[derive(Default)]
pub(crate) struct Denials(RefCell<VecDeque<Denial>>);

impl Denials {
    pub(crate) fn note(&self, record: Record) {
        let mut held = self.0.borrow_mut();
        if held.len() >= HELD {
            held.pop_front();
        }
        held.push_back(Denial(record));
    }

    /// Those that are asked for, the latest first.
    pub(crate) fn find(&self, filter: &DenialFilter) -> Vec<Denial> {
        let held = self.0.borrow();
        held.iter().rev().filter(|denial| filter.fits(&denial.0)).take(filter.most).cloned().collect()
    }
}

impl DenialFilter {
    fn fits(&self, record: &Record) -> bool {
        let is = |wanted: &Option<String>, found: &[Option<&str>]| {
            wanted.as_deref().is_none_or(|wanted| found.contains(&Some(wanted)))
        };
        is(&self.request_id, &[Some(&record.request_id)])
            && is(&self.api, &[record.api.as_deref()])
            && is(&self.reason, &[record.reason, record.shadow])
    }
}

#[cfg(test)]
mod tests {
    use super::{DenialFilter, Denials, HELD};
    use crate::access_log::Record;

    fn refused(id: usize, api: &str, reason: &'static str) -> Record {
        Record {
            request_id: format!("r{id}"),
            api: Some(api.into()),
            reason: Some(reason),
            ..Record::of_tests()
        }
    }

    fn ids(denials: &Denials, filter: &DenialFilter) -> Vec<String> {
        denials.find(filter).iter().map(|denial| denial.0.request_id.clone()).collect()
    }

    #[test]
    fn the_latest_are_kept_and_found_by_what_is_asked_for() {
        let denials = Denials::default();
        for id in 0..HELD + 3 {
            let (api, reason) = if id % 2 == 0 { ("even", "rate_limited") } else { ("odd", "access_denied") };
            denials.note(refused(id, api, reason));
        }
        let newest = HELD + 2;
        let two = DenialFilter { most: 2, ..DenialFilter::default() };
        assert_eq!(ids(&denials, &two), [format!("r{newest}"), format!("r{}", newest - 1)]);
        let odd = DenialFilter { api: Some("odd".to_owned()), most: 1, ..DenialFilter::default() };
        assert_eq!(ids(&denials, &odd), [format!("r{}", newest - 1)]);
        let none = DenialFilter { reason: Some("access_denied".to_owned()), ..odd.clone() };
        assert_eq!(ids(&denials, &none).len(), 1);
        let contrary = DenialFilter { reason: Some("rate_limited".to_owned()), ..odd };
        assert!(ids(&denials, &contrary).is_empty());
        let one = |id: usize| DenialFilter { request_id: Some(format!("r{id}")), most: 9, ..two.clone() };
        assert!(ids(&denials, &one(2)).is_empty(), "the oldest are forgotten");
        assert_eq!(ids(&denials, &one(3)), ["r3"]);
    }
}
