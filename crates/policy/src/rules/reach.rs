//! Whether a rule leaves anything for a later one.

use std::sync::Arc;

use super::Rule;

impl Rule {
    /// Whether this rule, standing earlier, takes every request that `later` would take. It may say no where a
    /// longer proof would say yes (several earlier rules together, two expressions of one meaning), never the
    /// other way round.
    pub(super) fn takes_all_of(&self, later: &Self) -> bool {
        self.takes_methods_of(later)
            && self.takes_paths_of(later)
            && self.takes_scopes_of(later)
            && self.takes_groups_of(later)
            && self.takes_addresses_of(later)
            && match (&self.when, &later.when) {
                (None, _) => true,
                (Some(own), Some(their)) => own.source() == their.source(),
                (Some(_), None) => false,
            }
    }

    fn takes_methods_of(&self, later: &Self) -> bool {
        match (self.methods, later.methods) {
            (None, _) => true,
            (Some(own), Some(their)) => own.covers(their),
            (Some(_), None) => false,
        }
    }

    fn takes_paths_of(&self, later: &Self) -> bool {
        match (&self.paths, &later.paths) {
            (None, _) => true,
            (Some(own), Some(their)) => their.iter().all(|path| own.iter().any(|own| own.covers(path))),
            // `/*` takes every path there is.
            (Some(own), None) => own.iter().any(|own| &**own.text() == "/*"),
        }
    }

    fn takes_scopes_of(&self, later: &Self) -> bool {
        let all = self.scope.iter().all(|scope| later.scope.contains(scope));
        let any = self.any_scope.is_empty()
            || later.scope.iter().any(|scope| self.any_scope.contains(scope))
            || (!later.any_scope.is_empty() && within(&later.any_scope, &self.any_scope));
        all && any
    }

    fn takes_groups_of(&self, later: &Self) -> bool {
        match (&self.groups, &later.groups) {
            (None, _) => true,
            (Some(own), Some(their)) => within(their, own),
            (Some(_), None) => false,
        }
    }

    fn takes_addresses_of(&self, later: &Self) -> bool {
        match (&self.from, &later.from) {
            (None, _) => true,
            (Some(own), Some(their)) => {
                their.iter().all(|network| own.iter().any(|own| own.contains(network)))
            }
            (Some(_), None) => false,
        }
    }
}

fn within(words: &[Arc<str>], others: &[Arc<str>]) -> bool {
    words.iter().all(|word| others.contains(word))
}
