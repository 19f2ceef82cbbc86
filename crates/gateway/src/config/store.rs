//! `store:` of `gateway.yaml`: where state is kept, alone or together with other gateways.

use std::path::Path;
use std::time::Duration;

use portcullis_core::document::{Fields, Node};
use portcullis_core::{Diagnostic, Faults, Materials, Place, SecretSpec, Spanned};
use portcullis_store::{OpenError, Shared, SharedSettings, Store, StoreSettings, Topology};
use tokio::runtime::Handle;

use super::sources::SourceMap;
use crate::run::StartError;

/// The longest it may be told to wait.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The most replicas that can be waited for.
const MOST_REPLICAS: i64 = 16;
/// The most nodes that can be named.
const MOST_NODES: usize = 64;

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
    topology: TopologySpec,
    replicas: u32,
}

/// How the server that is written to is found.
#[derive(Debug)]
struct TopologySpec {
    nodes: Vec<Spanned<String>>,
    kind: TopologyKind,
}

#[derive(Debug)]
enum TopologyKind {
    Alone,
    Sentinel { service: String, password: Option<SecretSpec> },
    Cluster,
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

    /// Finds what is wrong with it, without opening a file or asking a server. Whether quotas, and what operators tell,
    /// outlive a restart.
    pub(crate) fn check(&self, materials: &dyn Materials, faults: &mut Faults) -> bool {
        if let Some(redis) = &self.redis {
            redis.settings(materials, faults);
        }
        self.path.is_some() || self.redis.is_some()
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
                let shared = Shared::at(&settings, background).map_err(failed)?;
                Ok(own.sharing(shared))
            }
        }
    }
}

impl RedisSpec {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`redis`", faults)?;
        let url = fields.require("url", faults);
        let (trust, timeout, replicas) = (fields.get("trust"), fields.get("timeout"), fields.get("replicas"));
        let topology = TopologySpec::read(&mut fields, faults);
        fields.finish(faults);
        let url = url.and_then(|node| Some((node.secret(faults)?, node.place)));
        let trust = trust.map(|node| node.file(faults));
        let timeout = timeout.map(|node| read_timeout(node, faults));
        let waited = replicas.map(|node| read_replicas(node, faults));
        let (topology, waited) = (topology?, waited.unwrap_or(Some(0))?);
        if let (TopologyKind::Cluster, Some(node)) = (&topology.kind, replicas.filter(|_| waited > 0)) {
            faults.push(
                Diagnostic::error("contradiction", node.place, "`replicas` cannot be waited for in a cluster")
                    .note("a cluster takes no `WAIT`; take a server with Sentinels where no unit may be lost at a failover"),
            );
            return None;
        }
        Some(Self {
            url: url?,
            trust: trust.map_or(Some(None), |read| read.map(Some))?,
            timeout: timeout.unwrap_or(Some(SharedSettings::TIMEOUT))?,
            topology,
            replicas: waited,
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
        let topology = self.topology.settings(materials, faults);
        let settings = SharedSettings {
            url: url?,
            topology: topology?,
            trust: trust?,
            timeout: self.timeout,
            replicas: self.replicas,
        };
        match settings.check() {
            Ok(()) => Some(settings),
            Err(error) => {
                let node = |text: &String| self.topology.nodes.iter().find(|node| node.value == *text);
                let place = match &error {
                    OpenError::BadNode(text) => node(text).map_or(*place, |node| node.place),
                    _ => *place,
                };
                faults.push(Diagnostic::error("bad_address", place, error.to_string()));
                None
            }
        }
    }
}

impl TopologySpec {
    fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Self> {
        let (nodes, sentinel, cluster) = (fields.get("nodes"), fields.get("sentinel"), fields.get("cluster"));
        let sentinel = sentinel.map(|node| (node.place, read_sentinel(node, faults)));
        let is_cluster = cluster.map(|node| node.boolean(faults)).unwrap_or(Some(false))?;
        let kind = match (sentinel, is_cluster) {
            (None, false) => TopologyKind::Alone,
            (None, true) => TopologyKind::Cluster,
            (Some((_, kind)), false) => kind?,
            (Some((place, _)), true) => {
                faults.error("contradiction", place, "Sentinels watch over one server, a `cluster` has many");
                return None;
            }
        };
        let Some(node) = nodes else { return Some(Self { nodes: Vec::new(), kind }) };
        if matches!(kind, TopologyKind::Alone) {
            faults.error("contradiction", node.place, "`nodes` are those of a `sentinel` or a `cluster`");
            return None;
        }
        let nodes = node.texts(faults)?;
        if nodes.len() > MOST_NODES {
            faults.error("out_of_range", node.place, format!("at most {MOST_NODES} nodes"));
            return None;
        }
        Some(Self { nodes, kind })
    }

    fn settings(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<Topology> {
        let nodes = || self.nodes.iter().map(|node| node.value.clone()).collect();
        Some(match &self.kind {
            TopologyKind::Alone => Topology::Alone,
            TopologyKind::Cluster => Topology::Cluster { nodes: nodes() },
            TopologyKind::Sentinel { service, password } => {
                let password = password.as_ref().map(|spec| spec.resolve(materials, faults));
                let password = password.map_or(Some(None), |read| read.map(Some))?;
                Topology::Sentinel { service: service.clone(), nodes: nodes(), password }
            }
        })
    }
}

fn read_sentinel(node: &Node, faults: &mut Faults) -> Option<TopologyKind> {
    let mut fields = Fields::of(node, "`sentinel`", faults)?;
    let (service, password) = (fields.require("service", faults), fields.get("password"));
    fields.finish(faults);
    let service = service.and_then(|node| node.text(faults));
    let password = password.map(|node| node.secret(faults));
    Some(TopologyKind::Sentinel {
        service: service?.value,
        password: password.map_or(Some(None), |read| read.map(Some))?,
    })
}

fn read_replicas(node: &Node, faults: &mut Faults) -> Option<u32> {
    node.integer(0..=MOST_REPLICAS, faults).and_then(|replicas| u32::try_from(replicas).ok())
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
