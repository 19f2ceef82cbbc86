//! The configuration as it runs: immutable, compiled, shared by every worker.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, Method};
use portcullis_authn::{Chain, RevokedTokens};
use portcullis_core::{FileId, TlsPolicyId};
use portcullis_policy::{Limits, Permit, PlanRights, PlanSource, Rules};
use portcullis_proxy::{BodyLimits, Upstream};

use crate::forward::Forward;
use crate::listener::ListenerSettings;
use crate::route_table::RouteTable;
use crate::telemetry::shard::Shard;

/// Everything a request is judged by. A request takes one and keeps it to its end.
pub(crate) struct Snapshot {
    pub(crate) apis: Vec<Arc<Api>>,
    pub(crate) routes: RouteTable,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    pub(crate) doors: Doors,
    /// The admin listener, where it speaks TLS.
    pub(crate) admin_door: Option<Arc<ListenerSettings>>,
    /// The fields in which proxies in front of any listener speak. They leave every request of every listener.
    pub(crate) proxy_fields: Vec<HeaderName>,
    /// The lists of revoked tokens, which are read again while they are in force.
    pub(crate) revoked: Vec<Arc<RevokedTokens>>,
    /// How many passwords are stored in a form that is cheap to guess.
    pub(crate) weak_passwords: usize,
    /// The configuration's hash, as `portcullis check` prints it.
    pub(crate) hash: Arc<str>,
}

/// One API.
pub(crate) struct Api {
    pub(crate) index: usize,
    /// The file it was read from.
    pub(crate) file: FileId,
    pub(crate) name: Arc<str>,
    /// Its `match.path` as written, for the log.
    pub(crate) path: Arc<str>,
    pub(crate) chain: Chain,
    /// Where the plans of its callers are found, and what they give; `None` where it takes none.
    pub(crate) plans: Option<ApiPlans>,
    pub(crate) rules: Rules,
    pub(crate) limits: Option<Limits>,
    /// The path, below that of the API, at which callers are told how much is left to them.
    pub(crate) usage: Option<Box<str>>,
    pub(crate) forward: Forward,
    /// What a caller's `Connection` field may not name: credentials, what `forward` sets, and what proxies say.
    pub(crate) protected: Vec<HeaderName>,
    /// The headers credentials travel in, `Authorization` always among them.
    pub(crate) credentials: Vec<HeaderName>,
    /// What is taken from a request before it is forwarded, in every spelling that some server reads as the same
    /// name: what `forward` sets and removes, and credentials unless they are kept.
    pub(crate) removed: Vec<HeaderName>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) upstream_index: usize,
    pub(crate) body: BodyLimits,
    pub(crate) methods: Option<AllowedMethods>,
}

/// The plans an API takes.
pub(crate) struct ApiPlans {
    pub(crate) source: PlanSource,
    pub(crate) rights: PlanRights,
}

/// `methods:` of an API, with the `Allow` field of a refusal made beforehand.
pub(crate) struct AllowedMethods {
    pub(crate) list: Vec<Method>,
    pub(crate) field: String,
}

/// The listeners, for what a request must know about its own.
#[derive(Default)]
pub(crate) struct Doors(pub(crate) Vec<Arc<ListenerSettings>>);

impl Doors {
    /// The settings of a listener.
    pub(crate) fn listener(&self, name: &str) -> Option<&Arc<ListenerSettings>> {
        self.0.iter().find(|settings| &*settings.name == name)
    }

    /// Whether a connection of this listener that was made under `policy` may carry requests for `host` (TLS-03).
    pub(crate) fn fit(&self, listener: &str, host: &str, policy: TlsPolicyId) -> bool {
        self.listener(listener).and_then(|settings| settings.policy_for_host(host)) == Some(policy)
    }
}

/// One worker's view of a snapshot: reference counts of its own, so that no two workers write to one line.
pub(crate) struct LocalSnapshot {
    pub(crate) shared: Arc<Snapshot>,
    apis: Vec<Rc<LocalApi>>,
    /// What was counted under it.
    pub(crate) shard: Shard,
}

/// An API in one worker's hands.
pub(crate) struct LocalApi(Arc<Api>);

impl std::ops::Deref for LocalApi {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.0
    }
}

impl LocalSnapshot {
    pub(crate) fn new(shared: Arc<Snapshot>) -> Self {
        let apis = shared.apis.iter().map(|api| Rc::new(LocalApi(Arc::clone(api)))).collect();
        Self { shared, apis, shard: Shard::default() }
    }

    /// The API at an index of the route table.
    pub(crate) fn api(&self, index: usize) -> Option<&Rc<LocalApi>> {
        self.apis.get(index)
    }

    /// For labels: the API's name, `none` where no API matched.
    pub(crate) fn api_name(&self, index: Option<usize>) -> Arc<str> {
        index
            .and_then(|index| self.apis.get(index))
            .map_or_else(|| "none".into(), |api| Arc::clone(&api.name))
    }

    /// For labels: an upstream's name.
    pub(crate) fn upstream_name(&self, index: usize) -> Arc<str> {
        self.shared.upstreams.get(index).map_or_else(|| "none".into(), |upstream| Arc::clone(upstream.name()))
    }

    /// For labels: the rule that allowed a request, empty where none did.
    pub(crate) fn rule_name(&self, api: Option<usize>, rule: Option<Permit>) -> Arc<str> {
        let found = || self.apis.get(api?)?.rules.rule_name(rule?).cloned();
        found().unwrap_or_else(|| "".into())
    }

    /// For labels: the upstream of an API.
    pub(crate) fn upstream_of(&self, api: Option<usize>) -> Arc<str> {
        let index = api.and_then(|api| Some(self.apis.get(api)?.upstream_index));
        index.map_or_else(|| "none".into(), |index| self.upstream_name(index))
    }

    /// Whether an API counts its requests.
    pub(crate) fn has_limits(&self, api: Option<usize>) -> bool {
        api.and_then(|api| self.apis.get(api)).is_some_and(|api| api.limits.is_some())
    }
}
