//! What a limit counts: requests, or what came of them.

use http::StatusCode;
use portcullis_core::document::{Content, Node};
use portcullis_core::{Diagnostic, Faults};

/// What a limit counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Count {
    /// Requests that are admitted.
    #[default]
    Admitted,
    /// Requests that are answered 401 or 403, by the gateway or by the upstream. They are judged before anybody is asked
    /// who they are.
    Failures,
    /// Requests that are answered with one of these statuses.
    Responses(StatusSet),
}

impl Count {
    /// Reads `admitted`, `failures` or `{ responses: [2xx, 404] }`.
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        if !matches!(node.content, Content::Map(_)) {
            let words = [("admitted", false), ("failures", true)];
            let failures = node.one_of(&words, faults)?;
            return Some(if failures { Self::Failures } else { Self::Admitted });
        }
        let entry = node.single("`count`", faults)?;
        if entry.key.value != "responses" {
            let message = format!("`{}` is nothing that can be counted", entry.key.value);
            faults.push(
                Diagnostic::error("unknown_key", entry.key.place, message)
                    .note("write `admitted`, `failures` or `{ responses: [2xx] }`"),
            );
            return None;
        }
        StatusSet::read(&entry.value, faults).map(Self::Responses)
    }

    /// Whether a request that is answered like that is counted.
    pub(super) fn takes(&self, status: StatusCode) -> bool {
        match self {
            Self::Admitted => true,
            Self::Failures => matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
            Self::Responses(set) => set.has(status),
        }
    }
}

/// Statuses from 100 to 599, a bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StatusSet([u64; 8]);

impl StatusSet {
    /// Reads a list of statuses and classes of them.
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let nodes = node.list(faults)?;
        let mut set = Self::default();
        if nodes.is_empty() {
            faults.error("empty", node.place, "this counts no answer at all");
            return None;
        }
        for node in nodes {
            let range = match &node.content {
                Content::Integer(status @ 100..=599) => *status..=*status,
                Content::Text(class) => match class.as_bytes() {
                    [digit @ b'1'..=b'5', b'x', b'x'] => {
                        let first = i64::from(digit - b'0') * 100;
                        first..=first + 99
                    }
                    _ => return unreadable(node, faults),
                },
                _ => return unreadable(node, faults),
            };
            range.for_each(|status| set.add(usize::try_from(status - 100).unwrap_or(usize::MAX)));
        }
        Some(set)
    }

    fn add(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn has(&self, status: StatusCode) -> bool {
        let at = usize::from(status.as_u16()).wrapping_sub(100);
        self.0.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}

fn unreadable<T>(node: &Node, faults: &mut Faults) -> Option<T> {
    faults.push(
        Diagnostic::error("bad_status", node.place, "this is no status of an answer")
            .note("write one from 100 to 599, or a class of them, such as `2xx`"),
    );
    None
}
