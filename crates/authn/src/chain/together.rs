//! Tokens that two authenticators of one `all_of` judge together.

use portcullis_core::{Diagnostic, Faults, Place};

use crate::scheme::Authenticator;

/// Sees to it that both find the token of a request wherever one of them does: behind `DPoP` as behind `Bearer`. Else no
/// request with a proof could ever be complete, and nobody would be told why.
pub(super) fn check_together(members: &[Authenticator], place: Place, faults: &mut Faults) -> Option<()> {
    let tokens = || {
        let tokens =
            members.iter().filter(|member| matches!(member, Authenticator::Jwt(_) | Authenticator::Token(_)));
        tokens.filter_map(Authenticator::places)
    };
    let apart = tokens().any(|one| {
        tokens()
            .any(|other| one != other && one.iter().any(|place| other.iter().any(|its| place.overlaps(its))))
    });
    if !apart {
        return Some(());
    }
    faults.push(
        Diagnostic::error(
            "proofs_differ",
            place,
            "`jwt` and `token` judge the same token here, and only one of them takes proofs",
        )
        .note("a token behind `Authorization: DPoP` is found by that one alone: write the same `dpop` beside both"),
    );
    None
}
