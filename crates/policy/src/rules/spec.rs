//! Rules as written in a file.

use std::net::IpAddr;

use http::Method;
use ipnet::IpNet;
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, Spanned, diagnostic};

use super::methods::{self, MethodSet};
use super::template::PathTemplate;

/// The `allow` list of an API.
#[derive(Debug)]
pub struct RulesSpec {
    pub(super) rules: Vec<RuleSpec>,
    /// Whether every rule of the file is among them.
    pub(super) complete: bool,
}

/// One rule of an `allow` list.
#[derive(Debug)]
pub(super) struct RuleSpec {
    pub(super) name: Spanned<String>,
    pub(super) methods: Option<MethodSet>,
    pub(super) paths: Option<Vec<PathTemplate>>,
    pub(super) scope: Vec<Spanned<String>>,
    pub(super) any_scope: Vec<Spanned<String>>,
    pub(super) group: Option<Vec<Spanned<String>>>,
    pub(super) from: Option<Vec<IpNet>>,
    pub(super) when: Option<Spanned<String>>,
}

impl RulesSpec {
    /// Reads the list. A rule with a fault is left out, so that the others are still judged; rules with a gap
    /// never compile.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let nodes = node.list(faults)?;
        let rules: Vec<_> = nodes.iter().filter_map(|rule| RuleSpec::read(rule, faults)).collect();
        let complete = rules.len() == nodes.len();
        Some(Self { rules, complete })
    }
}

impl RuleSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a rule", faults)?;
        let name = fields.require("name", faults).and_then(|name| name.text(faults));
        let methods = read_if_there(fields.get("methods"), |node| read_methods(node, faults));
        let paths = read_if_there(fields.get("paths"), |node| read_paths(node, faults));
        let scope = read_if_there(fields.get("scope"), |node| scopes(node, faults));
        let any_scope = read_if_there(fields.get("any_scope"), |node| scopes(node, faults));
        let group = read_if_there(fields.get("group"), |node| words(node, faults));
        let from = read_if_there(fields.get("from"), |node| networks(node, faults));
        let when = read_if_there(fields.get("when"), |node| node.text(faults));
        fields.finish(faults);
        Some(Self {
            name: name?,
            methods: methods?,
            paths: paths?,
            scope: scope?.unwrap_or_default(),
            any_scope: any_scope?.unwrap_or_default(),
            group: group?,
            from: from?,
            when: when?,
        })
    }
}

/// `Some(None)` where the key is absent, `None` where its value has a fault. SECURITY: a condition that cannot
/// be read must never turn into no condition.
fn read_if_there<'n, T>(
    node: Option<&'n Node>,
    read: impl FnOnce(&'n Node) -> Option<T>,
) -> Option<Option<T>> {
    match node {
        None => Some(None),
        Some(node) => read(node).map(Some),
    }
}

fn words(node: &Node, faults: &mut Faults) -> Option<Vec<Spanned<String>>> {
    let words = node.texts(faults)?;
    no_word_twice(&words, faults).then_some(words)
}

fn no_word_twice(words: &[Spanned<String>], faults: &mut Faults) -> bool {
    let mut good = true;
    for (at, word) in words.iter().enumerate() {
        let earlier = words.iter().take(at).find(|earlier| earlier.value == word.value);
        if let Some(earlier) = earlier {
            twice(&word.value, word.place, earlier.place, faults);
            good = false;
        }
    }
    good
}

fn twice(word: &str, place: Place, earlier: Place, faults: &mut Faults) {
    faults.push(
        Diagnostic::error("duplicate", place, format!("`{word}` stands twice in this list"))
            .related(earlier, format!("`{word}` stands here already")),
    );
}

/// Methods by their names.
pub(crate) fn read_methods(node: &Node, faults: &mut Faults) -> Option<MethodSet> {
    let words = words(node, faults)?;
    let mut set = MethodSet::default();
    let mut good = true;
    for word in &words {
        match methods::known(&word.value) {
            Some(method) => set.insert(&method),
            None => {
                faults.push(unknown_method(word));
                good = false;
            }
        }
    }
    good.then_some(set)
}

fn unknown_method(word: &Spanned<String>) -> Diagnostic {
    if [Method::TRACE.as_str(), Method::CONNECT.as_str()].contains(&word.value.as_str()) {
        let message = format!("`{}` is never let through", word.value);
        return Diagnostic::error("bad_method", word.place, message);
    }
    let fault =
        Diagnostic::error("bad_method", word.place, format!("`{}` is not a method known here", word.value));
    let near = diagnostic::nearest(&word.value.to_ascii_uppercase(), methods::names());
    match near {
        Some(near) => fault.label(format!("did you mean `{near}`?")),
        None => fault.note(format!("methods here: {}", methods::names().collect::<Vec<_>>().join(", "))),
    }
}

/// Templates of paths, no two of which take the same.
pub(crate) fn read_paths(node: &Node, faults: &mut Faults) -> Option<Vec<PathTemplate>> {
    let words = words(node, faults)?;
    let mut templates: Vec<(PathTemplate, Place)> = Vec::new();
    let mut good = true;
    for word in &words {
        let Some(template) = PathTemplate::parse(word, faults) else {
            good = false;
            continue;
        };
        let same = templates.iter().find(|(earlier, _)| earlier.takes_the_same_as(&template));
        if let Some((earlier, place)) = same {
            faults.push(
                Diagnostic::error(
                    "duplicate",
                    word.place,
                    format!("`{template}` takes the same paths as `{earlier}`"),
                )
                .related(*place, format!("`{earlier}` stands here")),
            );
            good = false;
        }
        templates.push((template, word.place));
    }
    good.then(|| templates.into_iter().map(|(template, _)| template).collect())
}

/// RFC 6749 section 3.3: printable ASCII without space, quote and backslash.
fn scopes(node: &Node, faults: &mut Faults) -> Option<Vec<Spanned<String>>> {
    let words = words(node, faults)?;
    let mut good = true;
    for word in &words {
        if word.value.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
            continue;
        }
        good = false;
        let fault = Diagnostic::error("bad_scope", word.place, format!("`{}` is not one scope", word.value));
        faults.push(if word.value.contains(' ') {
            fault.note("several scopes are a list: [accounts, payments]")
        } else {
            fault.note("a scope is printable ASCII without spaces, quotes and backslashes")
        });
    }
    good.then_some(words)
}

fn networks(node: &Node, faults: &mut Faults) -> Option<Vec<IpNet>> {
    let words = words(node, faults)?;
    let networks: Vec<_> = words.iter().filter_map(|word| network(word, faults)).collect();
    (networks.len() == words.len()).then_some(networks)
}

fn network(word: &Spanned<String>, faults: &mut Faults) -> Option<IpNet> {
    let text = word.value.as_str();
    let read = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(network) = read else {
        faults.push(
            Diagnostic::error("bad_network", word.place, format!("`{text}` is not an address or a network"))
                .note("write 10.0.0.0/8, 2001:db8::/32, or a single address"),
        );
        return None;
    };
    if network.addr() != network.network() {
        let meant = network.trunc();
        faults.push(
            Diagnostic::error("bad_network", word.place, format!("`{text}` has bits behind its prefix"))
                .label(format!("did you mean `{meant}`?")),
        );
        return None;
    }
    if let IpNet::V6(v6) = network
        && v6.addr().to_ipv4_mapped().is_some()
    {
        faults.push(
            Diagnostic::error("bad_network", word.place, format!("`{text}` never fits"))
                .note("an IPv4 address that travelled as IPv6 counts as that IPv4 address: write it so"),
        );
        return None;
    }
    Some(network)
}
