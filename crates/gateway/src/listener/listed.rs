//! What revocation lists say about one path (RVK-01, RVK-03).

use webpki::{
    ExpirationPolicy, RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::spec::Depth;
use super::trust::RevocationLists;
use super::x509::Window;

/// What becomes of a certificate that no list speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unlisted {
    Refuse,
    /// As the operator has written.
    Pass,
    /// The client's passes, because its authority says there is nothing to ask; those of authorities do not.
    PassLeaf,
}

/// The lists a path is held against.
pub(super) struct Listed<'a> {
    pub(super) lists: &'a RevocationLists,
    pub(super) depth: Depth,
    pub(super) when_unlisted: Unlisted,
}

impl Listed<'_> {
    /// How long they count for a client's certificate.
    pub(super) fn leaf(&self, leaf: &webpki::Cert<'_>) -> Window {
        self.lists.window_for(leaf.issuer())
    }

    /// How long they count for the certificate of an authority below the anchor.
    ///
    /// # Errors
    /// They had to speak of it and do not.
    pub(super) fn authority(&self, certificate: &webpki::Cert<'_>) -> Result<Window, webpki::Error> {
        let issuer = certificate.issuer();
        match (self.depth, self.when_unlisted) {
            (Depth::Leaf, _) => Ok(Window::ALWAYS),
            // SECURITY: webpki knows one rule for the whole path, so it was told to let all of it pass.
            (Depth::Chain, Unlisted::PassLeaf) if !self.lists.speak_of(issuer) => {
                Err(webpki::Error::UnknownRevocationStatus)
            }
            (Depth::Chain, _) => Ok(self.lists.window_for(issuer)),
        }
    }
}

/// SECURITY: without lists there are no options, and without options webpki would not look for revocation at all.
/// Where it is asked for, that is a refusal.
pub(super) fn options<'a>(
    lists: &'a [&'a webpki::CertRevocationList<'a>],
    depth: Depth,
    when_unlisted: Unlisted,
) -> Result<RevocationOptions<'a>, webpki::Error> {
    let unknown = match when_unlisted {
        Unlisted::Refuse => UnknownStatusPolicy::Deny,
        Unlisted::Pass | Unlisted::PassLeaf => UnknownStatusPolicy::Allow,
    };
    let depth = match depth {
        Depth::Chain => RevocationCheckDepth::Chain,
        Depth::Leaf => RevocationCheckDepth::EndEntity,
    };
    let options =
        RevocationOptionsBuilder::new(lists).map_err(|_no_lists| webpki::Error::UnknownRevocationStatus)?;
    let options = options.with_depth(depth).with_status_policy(unknown);
    Ok(options.with_expiration_policy(ExpirationPolicy::Enforce).build())
}
