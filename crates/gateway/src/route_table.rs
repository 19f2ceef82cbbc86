//! Which API serves a host and path.
//!
//! Hosts are found in one hash lookup. Below a host, templates are grouped by their literal beginning, and a
//! path is tried against ever shorter beginnings of itself, so the cost depends on the path's depth and not on
//! the number of APIs.

use std::sync::Arc;

use ahash::AHashMap;
use portcullis_policy::PathTemplate;

/// A host pattern of an API's `match`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    /// Exactly this host, lower case.
    Exact(Arc<str>),
    /// `*.bank.example`: exactly one more label on the left.
    Subdomain(Arc<str>),
    /// `*`
    Any,
}

/// The compiled table.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    exact: AHashMap<Arc<str>, Paths>,
    subdomains: AHashMap<Arc<str>, Paths>,
    any: Paths,
}

#[derive(Debug, Default)]
struct Paths {
    by_beginning: AHashMap<Box<str>, Vec<(PathTemplate, usize)>>,
}

impl RouteTable {
    /// Adds an API by its index. Two APIs that take the same paths of the same host are the compiler's to
    /// refuse before.
    pub(crate) fn add(&mut self, host: &HostPattern, template: PathTemplate, api: usize) {
        let paths = match host {
            HostPattern::Exact(name) => self.exact.entry(Arc::clone(name)).or_default(),
            HostPattern::Subdomain(name) => self.subdomains.entry(Arc::clone(name)).or_default(),
            HostPattern::Any => &mut self.any,
        };
        let templates = paths.by_beginning.entry(literal_beginning(template.text()).into()).or_default();
        templates.push((template, api));
        templates.sort_by(|(a, _), (b, _)| a.by_specificity(b));
    }

    /// The API, and the part of the path below its prefix. A host written out wins over a pattern, and only
    /// the most specific host that is known is searched: an API of `*` is not a fallback for the unknown paths
    /// of a host that has APIs of its own.
    pub(crate) fn find<'p>(&self, host: &str, path: &'p str) -> Option<(usize, &'p str)> {
        if let Some(paths) = self.exact.get(host) {
            return paths.find(path);
        }
        let parent = host.split_once('.').and_then(|(_, parent)| self.subdomains.get(parent));
        parent.unwrap_or(&self.any).find(path)
    }
}

impl Paths {
    fn find<'p>(&self, path: &'p str) -> Option<(usize, &'p str)> {
        let mut beginning = path;
        loop {
            if let Some(templates) = self.by_beginning.get(beginning) {
                let found =
                    templates.iter().find_map(|(template, api)| Some((*api, template.matches(path)?)));
                if found.is_some() {
                    return found;
                }
            }
            beginning = shorter(beginning)?;
        }
    }
}

/// `/a/b/` → `/a/b` → `/a/` → `/a` → `/` → nothing: every place where a literal beginning can end.
fn shorter(beginning: &str) -> Option<&str> {
    if let Some(without) = beginning.strip_suffix('/') {
        return (!without.is_empty()).then_some(without);
    }
    beginning.rfind('/').and_then(|slash| beginning.get(..=slash))
}

/// The part of a template before its first parameter or rest.
fn literal_beginning(template: &str) -> &str {
    let end = template.find(['{', '*']).unwrap_or(template.len());
    template.get(..end).unwrap_or(template)
}

#[cfg(test)]
mod tests {
    use super::{HostPattern, RouteTable};
    use portcullis_core::{Faults, Place, Spanned};
    use portcullis_policy::PathTemplate;

    fn template(text: &str) -> PathTemplate {
        PathTemplate::parse(&Spanned::new(text.to_owned(), Place::default()), &mut Faults::default())
            .expect(text)
    }

    fn table() -> RouteTable {
        let mut table = RouteTable::default();
        let bank = HostPattern::Exact("api.bank.example".into());
        table.add(&bank, template("/*"), 0);
        table.add(&bank, template("/open-banking/v3/*"), 1);
        table.add(&bank, template("/open-banking/{version}/status"), 2);
        table.add(&bank, template("/open-banking/v3/status"), 3);
        table.add(&HostPattern::Subdomain("bank.example".into()), template("/x"), 4);
        table.add(&HostPattern::Any, template("/health"), 5);
        table
    }

    #[test]
    fn the_most_specific_template_of_the_host_wins() {
        let table = table();
        for (host, path, expected) in [
            ("api.bank.example", "/", Some((0, "/"))),
            ("api.bank.example", "/open-banking/v3/accounts", Some((1, "/accounts"))),
            ("api.bank.example", "/open-banking/v3/", Some((1, "/"))),
            ("api.bank.example", "/open-banking/v3", Some((0, "/open-banking/v3"))),
            ("api.bank.example", "/open-banking/v3/status", Some((3, "/"))),
            ("api.bank.example", "/open-banking/v4/status", Some((2, "/"))),
            ("api.bank.example", "/open-bankingv3/accounts", Some((0, "/open-bankingv3/accounts"))),
            ("www.bank.example", "/x", Some((4, "/"))),
            ("www.bank.example", "/health", None),
            ("a.b.bank.example", "/x", None),
            ("other.example", "/health", Some((5, "/"))),
            ("other.example", "/", None),
        ] {
            assert_eq!(table.find(host, path), expected, "{host}{path}");
        }
    }

    #[test]
    fn a_known_host_does_not_fall_back_to_the_any_host() {
        assert_eq!(table().find("www.bank.example", "/health"), None);
    }
}
