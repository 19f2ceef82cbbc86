//! Counters that limits of several APIs share.

use portcullis_core::{Diagnostic, Faults, Place};

use super::spec::LimitSpec;

/// The shared counters of all policy files, each with the limit that was first to name it.
#[derive(Debug, Default)]
pub struct SharedLimits {
    known: Vec<(String, Place, LimitSpec)>,
}

impl SharedLimits {
    /// Notes a limit that shares its counters. All that do must have one rule: whoever is judged by the largest of
    /// several could use up what the others mean to keep.
    pub(super) fn join(&mut self, limit: &LimitSpec, faults: &mut Faults) -> bool {
        let Some(name) = &limit.shared_as else { return true };
        let Some((_, place, first)) = self.known.iter().find(|(known, _, _)| *known == name.value) else {
            self.known.push((name.value.clone(), name.place, limit.clone()));
            return true;
        };
        if first.counts_like(limit) {
            return true;
        }
        let message = format!("the limits that share `{}` must have one rule", name.value);
        faults.push(
            Diagnostic::error("shared_rule", name.place, message)
                .related(*place, "the other one is here")
                .note(
                    "write the same `per`, `rate` or `quota`, and whatever else says how it is counted; \
                 `name`, `methods` and `paths` may differ",
                ),
        );
        false
    }
}
