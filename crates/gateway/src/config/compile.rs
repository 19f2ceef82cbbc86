//! Specs to a snapshot: names resolved, everything built, every fault found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;
use portcullis_authn::{
    Chain, Clients, Compiling, Guard, IdentitySpec, Issuers, IssuersSpec, KnownAuthorities, PepperSpec,
    Providers, Registering,
};
use portcullis_core::{Client, Diagnostic, Faults, FileId, Materials, OutboundSpec, Place, Secret, Spanned};
use portcullis_policy::{
    Callers as LimitCallers, CheckedLimits, Limits, PathTemplate, PlanSlots, PlanSourceSpec, Plans, Rules,
    SharedLimits,
};
use portcullis_proxy::{BodyLimits, Upstream, UpstreamSpec};

use super::PolicySpec;
use super::admin;
use super::api::ApiSpec;
use super::fixed::Fixed;
use super::resources::Resources;
use super::settings::{GatewaySpec, Shutdown};
use super::sources::SourceMap;
use crate::events::Webhook;
use crate::listener::{ListenSpec, ListenerSettings};
use crate::managed::KeyRing;
use crate::route_table::{HostPattern, RouteTable};
use crate::snapshot::{AllowedMethods, Api, ApiPlans, Doors, Snapshot};

/// What compiling gives.
pub(crate) struct Compiled {
    pub(crate) snapshot: Snapshot,
    /// Where API keys are made; `None` if no pepper is set.
    pub(crate) api_keys: Option<KeyRing>,
    /// Whether what operators tell, and quotas, outlive a restart.
    pub(crate) durable: bool,
    /// Who is told of events.
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) particulars: Particulars,
}

/// What operators ask about, and requests do not.
pub(crate) struct Particulars {
    /// What whoever changes something over the admin API has to know.
    pub(crate) admin_token: Option<Secret>,
    /// How the process ends.
    pub(crate) shutdown: Shutdown,
    /// What cannot change while it runs.
    pub(crate) fixed: Fixed,
    /// Every client, by name, and which of them are registered in the store.
    pub(crate) clients: Arc<BTreeMap<Arc<str>, Arc<Client>>>,
    pub(crate) stored: BTreeSet<String>,
    /// The names of all plans, and whether each is disabled.
    pub(crate) plans: Vec<(Arc<str>, bool)>,
}

/// Compiles everything; `None` if any part could not be built. Whether the result may be used is for the caller
/// to see from the faults.
pub(crate) fn compile(
    spec: PolicySpec,
    sources: &SourceMap,
    resources: &Resources,
    faults: &mut Faults,
) -> Option<Compiled> {
    let PolicySpec { gateway, plans, apis: specs, api_names, clients, fixed } = spec;
    let listeners = compile_listeners(&gateway, sources, resources, faults);
    let pepper = gateway.api_keys.as_ref().and_then(|keys| keys.compile(sources, faults));
    let plans = plans.compile(&api_names, faults);
    let anchors = anchors(&gateway.listen);
    let authorities = known_authorities(&gateway.listen, &anchors);
    let registering = Registering {
        pepper: pepper.as_ref(),
        materials: sources,
        plans: &|names, faults| plans.set(names, faults),
        apis: &api_names,
        key_sources: &resources.keys,
        authorities,
    };
    let stored = clients.stored().clone();
    let clients = clients.compile(&registering, faults);
    let issuers = issuers_of((gateway.issuers, gateway.certificates), sources, (resources, &clients), faults);
    let upstreams = Upstreams::compile(&gateway.upstreams, sources, faults);
    let durable = gateway.store.check(sources, faults);
    let rooms = Rooms {
        issuers: &issuers,
        clients: &clients,
        plans: &plans,
        authorities,
        upstreams: &upstreams,
        resources,
        materials: sources,
        keeps_quotas: durable,
        guard: gateway.guard.compile(&resources.failures),
    };
    let proxy_fields = proxy_fields(listeners.iter().flat_map(|all| &all.of_callers));
    let (apis, routes) = compile_apis(specs, &rooms, &proxy_fields, faults);
    let Listening { of_callers, admin } = listeners?;
    let revoked: Vec<_> = issuers.revoked().cloned().collect();
    let admin_token = admin::token(gateway.admin.as_ref(), &revoked, durable, sources, faults);
    let webhooks = gateway.events.compile(sources, &resources.fetchers, faults);
    // The hash comes last: it is of everything that was read.
    let snapshot = Snapshot {
        apis,
        routes,
        upstreams: upstreams.list,
        doors: Doors(of_callers),
        admin_door: admin,
        proxy_fields,
        revoked,
        weak_passwords: clients.weak_passwords(),
        hash: sources.hash().into(),
    };
    Some(Compiled {
        api_keys: key_ring(gateway.api_keys.as_ref(), &clients, &api_names),
        webhooks,
        snapshot,
        durable,
        particulars: Particulars {
            admin_token,
            shutdown: gateway.settings.shutdown,
            fixed,
            clients: Arc::clone(clients.all()),
            stored,
            plans: plans.states(),
        },
    })
}

/// Every listener.
struct Listening {
    of_callers: Vec<Arc<ListenerSettings>>,
    /// The admin listener, where it speaks TLS.
    admin: Option<Arc<ListenerSettings>>,
}

fn compile_listeners(
    gateway: &GatewaySpec,
    sources: &SourceMap,
    Resources { tls_policies, clock, online, .. }: &Resources,
    faults: &mut Faults,
) -> Option<Listening> {
    let admin = gateway.admin.as_ref().and_then(|admin| admin.door.as_ref());
    let specs: Vec<_> = gateway.listen.iter().chain(admin).cloned().collect();
    let compiled = ListenerSettings::compile_all(&specs, sources, tls_policies, clock, online, faults)?;
    let mut of_callers: Vec<_> = compiled.into_iter().map(Arc::new).collect();
    let admin = admin.and_then(|_| of_callers.pop());
    Some(Listening { of_callers, admin })
}

fn issuers_of(
    (issuers, certificates): (Option<IssuersSpec>, Option<OutboundSpec>),
    sources: &SourceMap,
    (resources, clients): (&Resources, &Clients),
    faults: &mut Faults,
) -> Issuers {
    let usable = |identity: &_| portcullis_proxy::check_identity(identity).map_err(|why| why.to_string());
    let certificates = certificates.unwrap_or_default().compile(sources, usable, faults);
    let providers = Providers {
        keys: &resources.keys,
        introspections: &resources.introspections,
        certificates: &certificates,
        replays: &resources.replays,
        clients,
    };
    issuers.map(|issuers| issuers.compile(sources, providers, faults)).unwrap_or_default()
}

fn known_authorities<'a>(listen: &[ListenSpec], names: &'a [(String, Place)]) -> KnownAuthorities<'a> {
    KnownAuthorities { names, asked: listen.iter().any(ListenSpec::knows_certificates) }
}

/// Where API keys are made while the gateway runs.
fn key_ring(spec: Option<&PepperSpec>, clients: &Clients, apis: &[(String, Place)]) -> Option<KeyRing> {
    let (keep_expired, keys) = (spec?.keep_expired(), clients.issued_keys()?);
    Some(KeyRing { keys, apis: apis.iter().map(|(name, _)| name.clone()).collect(), keep_expired })
}

/// The fields in which proxies in front of the listeners say something, each once.
fn proxy_fields<'l>(listeners: impl Iterator<Item = &'l Arc<ListenerSettings>>) -> Vec<HeaderName> {
    let mut fields: Vec<HeaderName> =
        listeners.flat_map(|listener| listener.proxy_fields()).cloned().collect();
    fields.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    fields.dedup();
    fields
}

/// What an API's compiling looks into.
struct Rooms<'a> {
    issuers: &'a Issuers,
    clients: &'a Clients,
    plans: &'a Plans,
    authorities: KnownAuthorities<'a>,
    upstreams: &'a Upstreams,
    resources: &'a Resources,
    materials: &'a dyn Materials,
    /// Whether quotas outlive a restart.
    keeps_quotas: bool,
    guard: Guard,
}

impl Rooms<'_> {
    /// What the chain of the API of that name is compiled against.
    fn compiling<'a>(&'a self, api: &'a str) -> Compiling<'a> {
        Compiling {
            api,
            issuers: self.issuers,
            clients: self.clients,
            trust_anchors: self.authorities.names,
            certificates_asked: self.authorities.asked,
            replays: &self.resources.replays,
            fetchers: &self.resources.fetchers,
            callers: &self.resources.callers,
            materials: self.materials,
            guard: &self.guard,
            passwords: &self.resources.passwords,
            nonces: &self.resources.nonces,
        }
    }
}

impl Rooms<'_> {
    /// The plans an API takes, and their limits.
    fn compile_plans(
        &self,
        api: &Spanned<String>,
        spec: Option<&PlanSourceSpec>,
        (rules, callers): (Option<&Rules>, LimitCallers),
        faults: &mut Faults,
    ) -> Option<(Option<ApiPlans>, Option<PlanSlots>)> {
        let Some(spec) = spec else {
            self.plans.refuse_for(api, faults);
            return Some((None, None));
        };
        let source = spec.compile(self.plans, self.clients.all(), faults);
        if callers.anonymous && !spec.has_default() {
            faults.push(
                Diagnostic::error("no_default_plan", spec.place, "callers without a credential have no plan")
                    .note("say which one they have: `plans: { default: … }`"),
            );
            return None;
        }
        let (rights, slots) = self.plans.of_api(api, rules?, callers, faults)?;
        Some((Some(ApiPlans { source: source?, rights }), Some(slots)))
    }

    /// Only a load without any fault may touch living counters.
    fn open_limits(&self, api: &Spanned<String>, limits: CheckedLimits, faults: &mut Faults) -> Limits {
        if limits.has_quota() && !self.keeps_quotas {
            let message = format!("a restart forgets the quotas of `{}`", api.value);
            faults.push(
                Diagnostic::warning("quota_not_kept", api.place, message)
                    .note("add `store: { path: data/portcullis.redb }` to gateway.yaml"),
            );
        }
        let (store, alerts) = (&self.resources.store, self.resources.quota_alerts.hook());
        limits.open(&api.value, store, &alerts)
    }
}

/// The APIs, and the way to them.
fn compile_apis(
    specs: Vec<(FileId, ApiSpec)>,
    rooms: &Rooms<'_>,
    proxy_fields: &[HeaderName],
    faults: &mut Faults,
) -> (Vec<Arc<Api>>, RouteTable) {
    let mut routes = Routes::default();
    let mut apis = Vec::new();
    let mut shared = SharedLimits::default();
    for (file, api) in specs {
        let free = routes.claim(&api, faults);
        let (host, path) = (api.matches.host.clone(), api.matches.path.clone());
        if let Some(mut compiled) = compile_api(apis.len(), (file, api), rooms, &mut shared, faults)
            && free
        {
            compiled.protected.extend(proxy_fields.iter().cloned());
            routes.table.add(&host, path, apis.len());
            apis.push(Arc::new(compiled));
        }
    }
    (apis, routes.table)
}

fn compile_api(
    index: usize,
    (file, spec): (FileId, ApiSpec),
    rooms: &Rooms<'_>,
    shared: &mut SharedLimits,
    faults: &mut Faults,
) -> Option<Api> {
    let name: Arc<str> = spec.name.value.as_str().into();
    let chain = spec.authenticate.compile(spec.identity.as_ref(), &rooms.compiling(&name), faults);
    let rules = spec.allow.compile(faults);
    let anonymous = chain.as_ref().is_some_and(|chain| chain.anonymous_because().is_some());
    let callers = LimitCallers {
        anonymous,
        // What a faulty chain would have is not known.
        tokens: chain.as_ref().is_none_or(Chain::has_tokens),
        groups: spec.identity.as_ref().is_some_and(IdentitySpec::has_groups),
    };
    let limits = spec.limits.map(|limits| limits.compile(callers, shared, faults));
    let plans = rooms.compile_plans(&spec.name, spec.plans.as_ref(), (rules.as_ref(), callers), faults);
    let forward = spec.forward.compile(faults);
    let upstream = rooms.upstreams.find(&spec.upstream, faults);
    let (upstream_index, upstream) = upstream?;
    let (chain, (plans, of_plans)) = (chain?, plans?);
    let limits = match (limits, of_plans) {
        (None, None) => None,
        (Some(None), _) => return None,
        (own, of_plans) => Some((own.flatten().unwrap_or_default(), of_plans.unwrap_or_default())),
    };
    let limits = match limits {
        None => None,
        Some((own, of_plans)) => {
            Some(rooms.open_limits(&spec.name, own.with(of_plans, spec.name.place, faults)?, faults))
        }
    };
    // Whatever the API checks, an upstream may believe an `Authorization` that came through its gateway.
    let mut credentials = vec![AUTHORIZATION];
    let given = chain.upstream_fields();
    credentials.extend(chain.credential_headers().iter().filter(|name| **name != AUTHORIZATION).cloned());
    Some(Api {
        index,
        file,
        protected: credentials.iter().chain(forward.set_names()).chain(given).cloned().collect(),
        removed: forward
            .removed(&credentials)
            .into_iter()
            .chain(given.iter().cloned())
            .chain(chain.proof_header().cloned())
            .collect(),
        credentials,
        name,
        path: Arc::clone(spec.matches.path.text()),
        chain,
        plans,
        rules: rules?,
        limits,
        usage: spec.usage.map(String::into_boxed_str),
        forward,
        upstream,
        upstream_index,
        body: BodyLimits { max_bytes: spec.body.max, idle: spec.body.pause, total: spec.body.total },
        methods: spec.methods.as_ref().map(|list| AllowedMethods {
            field: list.iter().map(http::Method::as_str).collect::<Vec<_>>().join(", "),
            list: list.clone(),
        }),
    })
}

/// The upstreams by name, and where each is defined.
struct Upstreams {
    list: Vec<Arc<Upstream>>,
    names: Vec<(String, Place)>,
    /// Position in `list`; `None` for one that could not be compiled, whose own fault is enough.
    positions: BTreeMap<String, Option<usize>>,
}

impl Upstreams {
    fn compile(
        specs: &[(Spanned<String>, UpstreamSpec)],
        materials: &dyn Materials,
        faults: &mut Faults,
    ) -> Self {
        let mut all = Self { list: Vec::new(), names: Vec::new(), positions: BTreeMap::new() };
        for (name, upstream) in specs {
            let compiled = upstream.compile(&name.value, materials, faults).map(Arc::new);
            let position = compiled.map(|compiled| {
                all.list.push(compiled);
                all.list.len() - 1
            });
            all.positions.insert(name.value.clone(), position);
            all.names.push((name.value.clone(), name.place));
        }
        all
    }

    fn find(&self, name: &Spanned<String>, faults: &mut Faults) -> Option<(usize, Arc<Upstream>)> {
        let Some(position) = self.positions.get(&name.value) else {
            faults.undefined("upstream", name, &self.names);
            return None;
        };
        let position = (*position)?;
        Some((position, Arc::clone(self.list.get(position)?)))
    }
}

/// The route table while it is built, with what is taken already.
#[derive(Default)]
struct Routes {
    table: RouteTable,
    taken: Vec<(Spanned<String>, HostPattern, PathTemplate, Place)>,
}

impl Routes {
    /// Two APIs may not have one name, nor take exactly the same paths of the same host.
    fn claim(&mut self, api: &ApiSpec, faults: &mut Faults) -> bool {
        let mut free = true;
        let ApiSpec { name, matches, .. } = api;
        for (other, host, path, place) in &self.taken {
            if other.value == name.value {
                let message = format!("there are two APIs called `{}`", name.value);
                faults.push(
                    Diagnostic::error("duplicate", name.place, message)
                        .related(other.place, "the other one is here"),
                );
                free = false;
            } else if *host == matches.host && path.takes_the_same_as(&matches.path) {
                let message =
                    format!("API `{}` takes the same requests as API `{}`", name.value, other.value);
                faults.push(
                    Diagnostic::error("duplicate_route", matches.place, message)
                        .related(*place, "the other one is here"),
                );
                free = false;
            }
        }
        self.taken.push((name.clone(), matches.host.clone(), matches.path.clone(), matches.place));
        free
    }
}

fn anchors(listeners: &[ListenSpec]) -> Vec<(String, Place)> {
    let names = listeners.iter().flat_map(ListenSpec::trust_names);
    names.map(|name| (name.value.clone(), name.place)).collect()
}
