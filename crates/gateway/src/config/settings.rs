//! `gateway.yaml`: where we listen, who may sign tokens, upstreams, store, admin.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use portcullis_authn::{GuardSpec, IssuersSpec, PepperSpec};
use portcullis_core::document::{Fields, Node};
use portcullis_core::{Faults, OutboundSpec, Spanned};
use portcullis_proxy::UpstreamSpec;

use super::admin::AdminSpec;
use super::store::StoreSpec;
use crate::events::EventsSpec;
use crate::listener::ListenSpec;

/// The file as written.
pub(crate) struct GatewaySpec {
    pub(crate) listen: Vec<ListenSpec>,
    pub(crate) issuers: Option<IssuersSpec>,
    pub(crate) certificates: Option<OutboundSpec>,
    pub(crate) upstreams: Vec<(Spanned<String>, UpstreamSpec)>,
    pub(crate) api_keys: Option<PepperSpec>,
    pub(crate) store: StoreSpec,
    pub(crate) guard: GuardSpec,
    pub(crate) admin: Option<AdminSpec>,
    pub(crate) events: EventsSpec,
    pub(crate) settings: Settings,
}

/// The shortest time after which the policies are read again.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

/// What concerns the process and not its requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the admin API listens.
    pub admin: Option<SocketAddr>,
    /// Threads that carry requests; the machine's processors where not written.
    pub workers: Option<NonZeroUsize>,
    /// Whether a line is written for every request.
    pub access_log: bool,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// When the policies are read again by themselves.
    pub reload: ReloadWhen,
}

/// When the policies are read again by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadWhen {
    /// When the system tells that a file has changed.
    pub watch: bool,
    /// Every so often, whether or not it tells: file systems of other machines do not.
    pub poll: Option<Duration>,
}

impl Default for ReloadWhen {
    fn default() -> Self {
        Self { watch: true, poll: None }
    }
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long connections are still taken after `/readyz` said no: load balancers need that long to notice.
    pub lame_duck: Duration,
    /// How long requests in flight may take after that.
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { lame_duck: Duration::from_secs(5), grace: Duration::from_secs(30) }
    }
}

impl GatewaySpec {
    /// Reads the file; what cannot be read is left out, and its fault stops the load later.
    pub(crate) fn read(root: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(root, "gateway.yaml", faults)?;
        if let Some(version) = fields.require("version", faults) {
            version.integer(1..=1, faults);
        }
        let listen = fields.require("listen", faults);
        let issuers = fields.get("issuers");
        let certificates = fields.get("certificates");
        let upstreams = fields.get("upstreams");
        let api_keys = fields.get("api_keys");
        let store = fields.get("store");
        let guard = fields.get("guard");
        let admin = fields.get("admin");
        let events = fields.get("events");
        let workers = fields.get("workers");
        let access_log = fields.get("access_log");
        let shutdown = fields.get("shutdown");
        let reload = fields.get("reload");
        fields.finish(faults);
        let admin = admin.and_then(|node| AdminSpec::read(node, faults));
        Some(Self {
            listen: listen.map(|node| ListenSpec::read_all(node, faults)).unwrap_or_default(),
            issuers: issuers.and_then(|node| IssuersSpec::read(node, faults)),
            certificates: certificates.and_then(|node| OutboundSpec::read(node, faults)),
            upstreams: named(upstreams, faults, UpstreamSpec::read),
            api_keys: api_keys.and_then(|node| PepperSpec::read(node, faults)),
            store: store.and_then(|node| StoreSpec::read(node, faults)).unwrap_or_default(),
            guard: guard.and_then(|node| GuardSpec::read(node, faults)).unwrap_or_default(),
            events: events.and_then(|node| EventsSpec::read(node, faults)).unwrap_or_default(),
            settings: Settings {
                admin: admin.as_ref().and_then(|admin| admin.address),
                workers: workers
                    .and_then(|node| node.integer(1..=1024, faults))
                    .and_then(|count| NonZeroUsize::new(usize::try_from(count).ok()?)),
                access_log: access_log.and_then(|node| node.boolean(faults)).unwrap_or(true),
                shutdown: shutdown.and_then(|node| read_shutdown(node, faults)).unwrap_or_default(),
                reload: reload.and_then(|node| read_reload(node, faults)).unwrap_or_default(),
            },
            admin,
        })
    }
}

/// Reads a mapping of names the writer chose.
fn named<T>(
    node: Option<&Node>,
    faults: &mut Faults,
    read: impl Fn(&Node, &mut Faults) -> Option<T>,
) -> Vec<(Spanned<String>, T)> {
    let entries = node.and_then(|node| node.named(faults)).unwrap_or_default();
    entries.iter().filter_map(|entry| Some((entry.key.clone(), read(&entry.value, faults)?))).collect()
}

fn read_reload(node: &Node, faults: &mut Faults) -> Option<ReloadWhen> {
    let mut fields = Fields::of(node, "`reload`", faults)?;
    let (watch, poll) = (fields.get("watch"), fields.get("poll"));
    fields.finish(faults);
    let poll = match poll.map(|node| (node.place, node.duration(faults))) {
        None => None,
        Some((place, read)) if read.is_some_and(|poll| poll < SHORTEST_POLL) => {
            faults.error("out_of_range", place, "the policies are read every second at most");
            return None;
        }
        Some((_, read)) => Some(read?),
    };
    Some(ReloadWhen { watch: watch.map_or(Some(true), |node| node.boolean(faults))?, poll })
}

fn read_shutdown(node: &Node, faults: &mut Faults) -> Option<Shutdown> {
    let mut fields = Fields::of(node, "`shutdown`", faults)?;
    let (lame_duck, grace) = (fields.get("lame_duck"), fields.get("grace"));
    fields.finish(faults);
    let default = Shutdown::default();
    Some(Shutdown {
        lame_duck: lame_duck.map_or(Some(default.lame_duck), |node| node.duration(faults))?,
        grace: grace.map_or(Some(default.grace), |node| node.duration(faults))?,
    })
}
