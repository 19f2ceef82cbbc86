//! `store:` of `gateway.yaml`: where state is kept, alone or together with other gateways.

use std::path::Path;
use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Materials, Place, SecretSpec, Spanned};
use portcullis_store::{SharedCounters, SharedSettings, Store, StoreSettings};
use tokio::runtime::Handle;

use super::sources::SourceMap;
use crate::run::StartError;

/// How long a question to Redis waits where nothing is written.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);
/// The longest it may be told to wait.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(5);

/// As written.
#[derive(Debug, Default)]
pub(crate) struct StoreSpec {
    path: Option<Spanned<String>>,
    redis: Option<RedisSpec>,
}

#[derive(Debug)]
struct RedisSpec {
    url: (SecretSpec, Place),
    trust: Option<Spanned<String>>,
    timeout: Duration,
}

impl StoreSpec {
    pub(crate) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`store`", faults)?;
        let (path, redis) = (fields.get("path"), fields.get("redis"));
        fields.finish(faults);
        if path.is_none() && redis.is_none() {
            faults.error("missing_key", node.place, "`store` needs `path`, `redis` or both");
            return None;
        }
        let path = path.map(|node| node.text(faults));
        let redis = redis.map(|node| RedisSpec::read(node, faults));
        Some(Self {
            path: path.map_or(Some(None), |read| read.map(Some))?,
            redis: redis.map_or(Some(None), |read| read.map(Some))?,
        })
    }

    /// Whether it has a file.
    pub(crate) const fn has_file(&self) -> bool {
        self.path.is_some()
    }

    /// Whether quotas outlive a restart.
    pub(crate) const fn keeps_quotas(&self) -> bool {
        self.path.is_some() || self.redis.is_some()
    }

    /// Finds what is wrong with it, without opening a file or asking a server.
    pub(crate) fn check(&self, materials: &dyn Materials, faults: &mut Faults) {
        if let Some(redis) = &self.redis {
            redis.settings(materials, faults);
        }
    }

    /// Opens the file, or makes it; the server is not looked for before the first question. What [`Self::check`] finds
    /// is not told again.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(crate) fn open(&self, sources: &SourceMap, background: &Handle) -> Result<Store, StartError> {
        let path = self.path.as_ref().map(|path| sources.path_of(path));
        if let Some(folder) = path.as_deref().and_then(Path::parent) {
            // Whether this worked is seen when the store is opened, which says it better.
            let _ = std::fs::create_dir_all(folder);
        }
        let failed = |source| StartError::Store { path: path.clone().unwrap_or_default(), source };
        let own = match &path {
            Some(path) => Store::open(&StoreSettings { path: path.clone() }),
            None => Store::in_memory(),
        };
        let own = own.map_err(failed)?;
        let settings = self.redis.as_ref().and_then(|redis| redis.settings(sources, &mut Faults::default()));
        match settings {
            None => Ok(own),
            Some(settings) => {
                let shared = SharedCounters::new(&settings, background.clone()).map_err(failed)?;
                Ok(own.sharing(shared))
            }
        }
    }
}

impl RedisSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`redis`", faults)?;
        let url = fields.require("url", faults);
        let (trust, timeout) = (fields.get("trust"), fields.get("timeout"));
        fields.finish(faults);
        let url = url.and_then(|node| Some((node.secret(faults)?, node.place)));
        let trust = trust.map(|node| node.file(faults));
        let timeout = timeout.map(|node| read_timeout(node, faults));
        Some(Self {
            url: url?,
            trust: trust.map_or(Some(None), |read| read.map(Some))?,
            timeout: timeout.unwrap_or(Some(DEFAULT_TIMEOUT))?,
        })
    }

    fn settings(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<SharedSettings> {
        let (spec, place) = &self.url;
        let url = spec.resolve(materials, faults);
        let trust = match &self.trust {
            None => Some(None),
            Some(path) => match materials.file(path.place.file, &path.value) {
                Ok(pem) => Some(Some(pem)),
                Err(why) => {
                    faults.error("unreadable", path.place, why);
                    None
                }
            },
        };
        let settings = SharedSettings { url: url?, trust: trust?, timeout: self.timeout };
        match settings.check() {
            Ok(()) => Some(settings),
            Err(error) => {
                faults.push(Diagnostic::error("bad_address", *place, error.to_string()));
                None
            }
        }
    }
}

fn read_timeout(node: &Node, faults: &mut Faults) -> Option<Duration> {
    let timeout = node.duration(faults)?;
    if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
        let message = "a question to Redis waits between 1ms and 5s";
        faults.error("out_of_range", node.place, message);
        return None;
    }
    Some(timeout)
}
