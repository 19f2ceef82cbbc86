//! Counts that callers bring with them: `claims.rpm per minute, at most 10000, else 60`.

use std::sync::Arc;

use portcullis_core::document::{Content, Node};
use portcullis_core::json::Value;
use portcullis_core::quantity::{self, Rate};
use portcullis_core::{Diagnostic, Faults, Principal};

/// Where a caller's own count is read, and within which bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnCount {
    source: Source,
    /// What counts where there is no whole number that is not negative.
    otherwise: u64,
    most: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Claim(Arc<str>),
    Attribute(Arc<str>),
}

impl OwnCount {
    /// Whether this is how one is written. What it says is for [`Self::read`].
    pub(super) fn is_written(node: &Node) -> bool {
        matches!(&node.content, Content::Text(text) if source(text.trim()).is_some())
    }

    /// Reads one, and the largest rate it can give.
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<(Self, Rate)> {
        let text = node.text(faults)?.value;
        let mut parts = text.split(',').map(str::trim);
        let (first, most, otherwise, rest) = (parts.next()?, parts.next(), parts.next(), parts.next());
        let most = most.and_then(|part| part.strip_prefix("at most "));
        let otherwise = otherwise.and_then(|part| part.strip_prefix("else "));
        let (Some((path, per)), Some(most), Some(otherwise), None) =
            (first.split_once(" per "), most, otherwise, rest)
        else {
            faults.push(
                Diagnostic::error("own_count", node.place, "a count of the caller's own needs its bounds")
                    .note(
                        "write `claims.rpm per minute, at most 10000, else 60`: `else` is for who has none",
                    ),
            );
            return None;
        };
        let read = || -> Result<(Self, Rate), String> {
            let rate = quantity::rate(&format!("{} per {per}", most.trim()))?;
            let otherwise = quantity::rate(&format!("{} per {per}", otherwise.trim()))?.count;
            let source =
                source(path.trim()).ok_or_else(|| format!("`{path}` is nothing a count is read from"))?;
            if otherwise > rate.count {
                return Err(format!("`else {otherwise}` is more than `at most {}`", rate.count));
            }
            Ok((Self { source, otherwise, most: rate.count }, rate))
        };
        match read() {
            Ok(read) => Some(read),
            Err(why) => {
                faults.error("own_count", node.place, why);
                None
            }
        }
    }

    /// The count of a caller. SECURITY: what cannot be read as a whole number is never more than what whoever has no
    /// number at all gets; a negative number means "unlimited" in some products, and nothing here.
    pub(super) fn of(&self, principal: &Principal) -> u64 {
        let value = match &self.source {
            Source::Claim(path) => principal.grant().claims.at(path),
            Source::Attribute(path) => principal.client().and_then(|client| client.attributes.at(path)),
        };
        match value {
            Some(Value::Integer(count)) => {
                u64::try_from(*count).map_or(self.otherwise, |count| count.min(self.most))
            }
            _ => self.otherwise,
        }
    }

    /// Whether it is read off a token.
    pub(super) const fn is_of_a_token(&self) -> bool {
        matches!(self.source, Source::Claim(_))
    }
}

fn source(text: &str) -> Option<Source> {
    let path = text.split(" per ").next()?.trim();
    if let Some(claim) = path.strip_prefix("claims.").filter(|path| !path.is_empty()) {
        return Some(Source::Claim(claim.into()));
    }
    path.strip_prefix("client.attributes.")
        .filter(|path| !path.is_empty())
        .map(|path| Source::Attribute(path.into()))
}
