//! `proxy_protocol` as written.

use std::time::Duration;

use portcullis_core::Faults;
use portcullis_core::document::{Fields, Node};

use super::ProxyProtocol;
use crate::listener::limits::positive;
use crate::listener::spec;

/// How long a proxy may take for its first bytes; it sends them at once.
const TIMEOUT: Duration = Duration::from_secs(5);

impl ProxyProtocol {
    /// Reads `proxy_protocol`. What is written is what is run: there is nothing to compile.
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`proxy_protocol`", faults)?;
        let from = fields.require("from", faults).and_then(|node| spec::ranges(node, faults));
        let timeout = match fields.get("timeout") {
            Some(node) => positive(node.duration(faults), node.place, faults),
            None => Some(TIMEOUT),
        };
        fields.finish(faults);
        Some(Self { from: from?, timeout: timeout? })
    }
}
