//! What the tokens of an entry may be signed with.

use portcullis_core::document::Node;
use portcullis_core::{Diagnostic, Faults, Spanned};
use portcullis_jose::Algorithm;

use super::IssuerSpec;

impl IssuerSpec {
    /// What its tokens may be signed with: what is written, else what the profile settles.
    pub(super) fn algorithms(&self, faults: &mut Faults) -> Option<Vec<Algorithm>> {
        let Some(written) = &self.algorithms else {
            let defaults = self.profile.defaults().algorithms;
            if defaults.is_empty() {
                faults.push(
                    Diagnostic::error("missing_key", self.name.place, "an issuer needs `algorithms`")
                        .note("name those its tokens are signed with, such as `[PS256, ES256]`"),
                );
                return None;
            }
            return Some(defaults.to_vec());
        };
        let first = written.first()?;
        if let Some(other) =
            written.iter().find(|algorithm| algorithm.value.is_symmetric() != first.value.is_symmetric())
        {
            faults.push(
                Diagnostic::error(
                    "mixed_algorithms",
                    other.place,
                    format!("`{}` and `{}` cannot share an issuer", first.value, other.value),
                )
                .note("one has public keys, the other a secret; a public key must never do as a secret"),
            );
            return None;
        }
        self.within_profile(written, faults)
            .then(|| written.iter().map(|algorithm| algorithm.value).collect())
    }

    /// SECURITY: a profile that leaves no choice is a promise to those who audit; a weaker algorithm under its name
    /// would break it unseen (JWT-16).
    fn within_profile(&self, written: &[Spanned<Algorithm>], faults: &mut Faults) -> bool {
        let Some((name, allowed)) = self.profile.only_algorithms() else { return true };
        let names: Vec<_> = allowed.iter().map(|algorithm| algorithm.as_str()).collect();
        let foreign: Vec<_> =
            written.iter().filter(|algorithm| !allowed.contains(&algorithm.value)).collect();
        for algorithm in &foreign {
            faults.push(
                Diagnostic::error(
                    "algorithm_outside_profile",
                    algorithm.place,
                    format!("`{}` is not an algorithm of profile `{name}`", algorithm.value),
                )
                .note(format!("its algorithms: {}", names.join(", "))),
            );
        }
        foreign.is_empty()
    }
}

/// Names of algorithms.
pub(crate) fn read_algorithms(node: &Node, faults: &mut Faults) -> Option<Vec<Spanned<Algorithm>>> {
    let texts = node.texts(faults)?;
    let read: Vec<_> = texts
        .iter()
        .filter_map(|text| {
            let algorithm = Algorithm::parse(&text.value);
            if algorithm.is_none() {
                faults.push(unknown_algorithm(text));
            }
            Some(Spanned::new(algorithm?, text.place))
        })
        .collect();
    (read.len() == texts.len()).then_some(read)
}

fn unknown_algorithm(text: &Spanned<String>) -> Diagnostic {
    if text.value.eq_ignore_ascii_case("none") {
        return Diagnostic::error("algorithm_none", text.place, "`none` is no signature at all")
            .note("a token that nobody signed can be written by anybody; it is never taken");
    }
    let names: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
    let fault = Diagnostic::error(
        "unknown_word",
        text.place,
        format!("`{}` is not a signature algorithm", text.value),
    )
    .note(format!("algorithms: {}", names.join(", ")));
    let upper = text.value.to_uppercase();
    match portcullis_core::diagnostic::nearest(&upper, names.iter().copied()) {
        Some(near) => fault.label(format!("did you mean `{near}`?")),
        None => fault,
    }
}
