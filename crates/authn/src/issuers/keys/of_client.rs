//! The keys a registered client publishes.

use portcullis_core::{Diagnostic, Faults, FetchTrust, Materials};

use super::{UrlSpec, file};
use crate::keys::{KeySettings, KeySource, KeySources, KeysOf};

impl UrlSpec {
    /// The keys a registered client publishes. The gateway is well without them: they are one caller's matter.
    pub(crate) fn source_of_client(
        &self,
        client: &str,
        materials: &dyn Materials,
        sources: &KeySources,
        faults: &mut Faults,
    ) -> Option<(KeySource, String)> {
        if self.template.is_some() {
            faults.push(
                Diagnostic::error("bad_url", self.url.place, "the keys of a client are at one URL")
                    .note("names of certificates stand only in the `jwks_url` of an issuer"),
            );
            return None;
        }
        let anchors = match &self.trust {
            None => None,
            Some(path) => Some(file(path, materials, faults)?),
        };
        let description = format!("{} {anchors:?} {}", self.url.value, self.loopback_http);
        let trust = FetchTrust { anchors, loopback_http: self.loopback_http, ..FetchTrust::default() };
        let settings = KeySettings {
            issuer: client.into(),
            refresh: self.refresh,
            serve_stale: self.serve_stale,
            of: KeysOf::Client,
        };
        match sources.source(&self.url.value, trust, settings) {
            Ok(source) => Some((source, description)),
            Err(why) => {
                let place = self.trust.as_ref().map_or(self.url.place, |path| path.place);
                faults.error("bad_trust", place, why);
                None
            }
        }
    }
}
