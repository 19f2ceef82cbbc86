//! `events:` of `gateway.yaml`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_authn::{KeyedHash, check_url};
use portcullis_core::document::{Fields, Node};
use portcullis_core::{
    Diagnostic, Faults, FetchTrust, Fetchers, Materials, Place, Secret, SecretSpec, Spanned,
};

use super::{EventKind, Webhook};

/// How a key is marked that is written in base64, as the Standard Webhooks have it.
const PREFIX: &[u8] = b"whsec_";
/// The shortest key, in bytes.
const MIN_KEY: usize = 24;

/// Who is told of what.
#[derive(Debug, Default)]
pub(crate) struct EventsSpec {
    webhooks: Vec<WebhookSpec>,
}

#[derive(Debug)]
struct WebhookSpec {
    name: Spanned<String>,
    url: Spanned<String>,
    secret: (SecretSpec, Place),
    kinds: Vec<EventKind>,
    trust: Option<Spanned<String>>,
    loopback_http: bool,
}

impl EventsSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`events`", faults)?;
        let webhooks = fields.require("webhooks", faults);
        fields.finish(faults);
        let entries = webhooks?.named(faults)?;
        let read = entries.iter().filter_map(|entry| WebhookSpec::read(&entry.key, &entry.value, faults));
        Some(Self { webhooks: read.collect() })
    }

    /// Fetches keys and trust. What has a fault is left out; the fault stops the load.
    pub(crate) fn compile(
        &self,
        materials: &dyn Materials,
        fetchers: &Fetchers,
        faults: &mut Faults,
    ) -> Vec<Webhook> {
        self.webhooks.iter().filter_map(|spec| spec.compile(materials, fetchers, faults)).collect()
    }
}

impl WebhookSpec {
    fn read(name: &Spanned<String>, node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a webhook", faults)?;
        let (url, secret) = (fields.require("url", faults), fields.require("secret", faults));
        let (kinds, trust) = (fields.get("kinds"), fields.get("trust"));
        let loopback = fields.get("http_on_loopback");
        fields.finish(faults);
        let kinds = match kinds {
            None => Some(EventKind::ALL.iter().map(|(_, kind)| *kind).collect()),
            Some(node) => read_kinds(node, faults),
        };
        let trust = trust.map(|node| node.file(faults));
        let loopback = loopback.map(|node| node.boolean(faults));
        let secret = secret.and_then(|node| Some((node.secret(faults)?, node.place)));
        Some(Self {
            name: name.clone(),
            url: url?.text(faults)?,
            secret: secret?,
            kinds: kinds?,
            trust: trust.map_or(Some(None), |read| read.map(Some))?,
            loopback_http: loopback.map_or(Some(false), |read| read)?,
        })
    }

    fn compile(
        &self,
        materials: &dyn Materials,
        fetchers: &Fetchers,
        faults: &mut Faults,
    ) -> Option<Webhook> {
        let good = check_url(&self.url, self.loopback_http, "events are told", faults);
        let key = self.key(materials, faults);
        let anchors = match &self.trust {
            None => Some(None),
            Some(path) => match materials.file(path.place.file, &path.value) {
                Ok(pem) => Some(Some(pem)),
                Err(why) => {
                    faults.error("unreadable", path.place, why);
                    None
                }
            },
        };
        let trust =
            FetchTrust { anchors: anchors?, loopback_http: self.loopback_http, ..FetchTrust::default() };
        let place = self.trust.as_ref().map_or(self.url.place, |path| path.place);
        let fetch = fetchers.get(&trust).map_err(|why| faults.error("bad_trust", place, why)).ok()?;
        good?;
        Some(Webhook {
            name: self.name.value.as_str().into(),
            url: self.url.value.clone(),
            key: Arc::new(KeyedHash::new(&key?)),
            kinds: self.kinds.clone(),
            fetch,
        })
    }

    /// The key that events are signed with: the bytes that stand in base64 behind `whsec_`. Without that the libraries of
    /// receivers would take any text for base64, and sign with another key than ours.
    fn key(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<Secret> {
        let (spec, place) = &self.secret;
        let secret = spec.resolve(materials, faults)?;
        let text = secret.expose().strip_prefix(PREFIX).map(<[u8]>::trim_ascii_end);
        let key = text.and_then(|text| STANDARD.decode(text).ok()).map(Secret::new);
        let key = key.filter(|key| key.len() >= MIN_KEY);
        if key.is_none() {
            let message = format!("the key of a webhook is `whsec_` and {MIN_KEY} bytes or more in base64");
            faults.push(
                Diagnostic::error("weak_secret", *place, message)
                    .note("make one with `echo whsec_$(openssl rand -base64 32)`: whoever is told checks with it that an event is ours"),
            );
        }
        key
    }
}

fn read_kinds(node: &Node, faults: &mut Faults) -> Option<Vec<EventKind>> {
    let nodes = node.list(faults)?;
    let kinds: Vec<_> = nodes.iter().filter_map(|node| node.one_of(&EventKind::ALL, faults)).collect();
    (kinds.len() == nodes.len()).then_some(kinds)
}
