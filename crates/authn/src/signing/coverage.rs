//! How much of a request a signature must bind, and `accept_weak`: what a policy must ask for by name if it wants less.

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place};

/// What is so weak that a policy must ask for it by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weakness {
    /// HMAC with SHA-1.
    Sha1,
    /// A signature need not say what the request is for: neither method, nor host, nor path, nor query.
    UnboundTarget,
    /// It need not say for which host the request is.
    UnboundHost,
    /// It need not cover the query.
    PathOnly,
    /// It need not cover the content.
    UnboundContent,
}

/// What a policy accepts of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weaknesses(Vec<Weakness>);

/// What of a request every signature binds, by the policy's list.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "five independent facts about one list")]
pub(crate) struct Bound {
    pub(crate) method: bool,
    pub(crate) host: bool,
    pub(crate) path: bool,
    pub(crate) query: bool,
    pub(crate) content: bool,
}

/// What would mend a list, in the words of its own kind of signature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remedies {
    pub(crate) target: &'static str,
    pub(crate) host: &'static str,
    pub(crate) query: &'static str,
    pub(crate) content: &'static str,
}

impl Weaknesses {
    /// Reads `accept_weak`, of the names that this kind of signature knows.
    pub(crate) fn read(
        fields: &mut Fields<'_>,
        known: &[(&str, Weakness)],
        faults: &mut Faults,
    ) -> Option<Self> {
        match fields.get("accept_weak") {
            None => Some(Self::default()),
            Some(node) => words(node, known, faults).map(Self),
        }
    }

    /// Whether the policy asks for it.
    pub(crate) fn accept(&self, weakness: Weakness) -> bool {
        self.0.contains(&weakness)
    }
}

impl Bound {
    /// Says the first thing that should be bound and is not, unless the policy asks for that by name (SIG-02, HMC-01).
    ///
    /// SECURITY: what no signature binds is the choice of whoever sees a signed request on its way.
    pub(crate) fn check(
        self,
        weak: &Weaknesses,
        remedies: &Remedies,
        place: Place,
        faults: &mut Faults,
    ) -> Option<()> {
        let loose = weak.accept(Weakness::UnboundTarget);
        let demands = [
            (
                self.method && self.path || loose,
                "a signature would be good for any other request",
                remedies.target,
                "unbound_target",
            ),
            (
                self.query || loose || weak.accept(Weakness::PathOnly),
                "a signature would be good for any other query",
                remedies.query,
                "path_only",
            ),
            (
                self.host || loose || weak.accept(Weakness::UnboundHost),
                "a signature would be good for any other host",
                remedies.host,
                "unbound_host",
            ),
            (
                self.content || weak.accept(Weakness::UnboundContent),
                "a signature would be good for any other content",
                remedies.content,
                "unbound_content",
            ),
        ];
        let Some((_, what, remedy, name)) = demands.iter().find(|(met, ..)| !met) else { return Some(()) };
        faults.push(
            Diagnostic::error("covers_too_little", place, *what)
                .note(format!("{remedy}, or say that you want that: `accept_weak: [{name}]`")),
        );
        None
    }
}

/// Words of a list, each known and written once.
pub(crate) fn words<T: Copy + PartialEq>(
    node: &Node,
    known: &[(&str, T)],
    faults: &mut Faults,
) -> Option<Vec<T>> {
    let mut read = Vec::new();
    for item in node.list(faults)? {
        let word = item.one_of(known, faults)?;
        if read.contains(&word) {
            faults.error("twice", item.place, "this is written twice");
            return None;
        }
        read.push(word);
    }
    Some(read)
}

/// Reads each name of `covers`; `None` if one of them is wrong, all of which are told.
pub(crate) fn each<T>(
    node: &Node,
    faults: &mut Faults,
    mut read: impl FnMut(&portcullis_core::Spanned<String>, &mut Faults) -> Option<T>,
) -> Option<Vec<T>> {
    let names = node.texts(faults)?;
    let found: Vec<_> = names.iter().filter_map(|name| read(name, faults)).collect();
    (found.len() == names.len()).then_some(found)
}
