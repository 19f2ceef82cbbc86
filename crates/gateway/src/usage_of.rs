//! The limits in force, and where somebody stands with them, for operators.

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use portcullis_core::json::Object;
use portcullis_core::{AuthMethod, Client, Identity, PlanId, Principal, Reason, Rejection};
use portcullis_policy::{LimitFacts, LimitView, Usage};

use crate::run::Gateway;
use crate::snapshot::Api;

/// Of whom is asked, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// What limits count the caller by where it is no registered client: `jwt:bank-idp:alice`.
    pub key: Option<String>,
    /// The registered client.
    pub client: Option<String>,
    /// The group.
    pub group: Option<String>,
    /// Where the caller comes from.
    pub address: Option<IpAddr>,
}

/// Where a caller stands with the limits of an API.
#[derive(Debug)]
pub struct CallerUsage {
    /// The caller's plans; `None` where the API takes none.
    pub plans: Option<Vec<Arc<str>>>,
    /// Why the caller would be refused for its plans, which then are not known.
    pub no_plans: Option<Reason>,
    /// With each limit by its name, or why it cannot be told.
    pub limits: Vec<(Arc<str>, Result<Usage, Rejection>)>,
}

/// The limits of an API.
#[derive(Debug)]
pub struct ApiLimits {
    /// The API.
    pub api: Arc<str>,
    /// Its limits, each with the name of the plan it is of.
    pub limits: Vec<(LimitView, Option<Arc<str>>)>,
}

/// There is no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// No API is called so.
    #[error("there is no API of this name")]
    UnknownApi,
    /// No client is called so.
    #[error("there is no registered client of this name")]
    UnknownClient,
}

impl Gateway {
    /// The limits of every API.
    pub fn limits(&self) -> Vec<ApiLimits> {
        let snapshot = Arc::clone(&self.in_force.load().snapshot);
        let of = |api: &Arc<Api>| {
            let named = |view: LimitView| {
                let plan = view.plan.and_then(|plan| plan_names(api, &[plan]).into_iter().next());
                (view, plan)
            };
            let limits = api.limits.iter().flat_map(|limits| limits.views().map(named)).collect();
            ApiLimits { api: Arc::clone(&api.name), limits }
        };
        snapshot.apis.iter().map(of).collect()
    }

    /// Where a caller stands with the limits of an API. Takes nothing.
    ///
    /// # Errors
    /// See [`UsageError`].
    pub async fn usage_of(&self, api: &str, caller: &Caller) -> Result<CallerUsage, UsageError> {
        let in_force = self.in_force.load_full();
        let api = in_force.snapshot.apis.iter().find(|candidate| &*candidate.name == api);
        let api = api.ok_or(UsageError::UnknownApi)?;
        let client = match &caller.client {
            None => None,
            Some(name) => {
                let found = in_force.particulars.clients.get(&**name);
                Some(Arc::clone(found.ok_or(UsageError::UnknownClient)?))
            }
        };
        let now = self.clock().now();
        let principal = principal(caller, client);
        let plans = api.plans.as_ref().zip(principal.as_ref());
        let plans = plans.map(|(plans, caller)| plans.source.plans_of(caller, now.unix_seconds()));
        let (plans, no_plans) = match plans {
            None | Some(Ok(None)) => (None, None),
            Some(Ok(Some(plans))) => (Some(plans), None),
            Some(Err(rejection)) => (None, Some(rejection.reason())),
        };
        let facts = LimitFacts {
            principal: principal.as_ref(),
            method: &Method::GET,
            path_in_api: "/",
            address: caller.address,
            plans: plans.as_ref(),
            now,
        };
        let limits = match &api.limits {
            None => Vec::new(),
            Some(limits) => limits.usage_of(&facts).await,
        };
        let plans = plans.map(|plans| plan_names(api, &plans));
        Ok(CallerUsage { plans, no_plans, limits })
    }
}

fn plan_names(api: &Api, plans: &[PlanId]) -> Vec<Arc<str>> {
    api.plans.iter().flat_map(|of_api| of_api.source.names(plans)).cloned().collect()
}

/// The caller as limits see one. Claims and scopes are not known.
fn principal(caller: &Caller, client: Option<Arc<Client>>) -> Option<Principal> {
    let key: Arc<str> = match (&caller.key, &client) {
        (Some(key), _) => key.as_str().into(),
        (None, Some(client)) => format!("client:{}", client.name).into(),
        (None, None) => return None,
    };
    let identity = Identity {
        method: AuthMethod::ApiKey,
        key: Arc::clone(&key),
        subject: Arc::clone(&key),
        issuer: None,
        client,
        key_id: None,
        claims: Arc::new(Object::default()),
        scopes: [].into(),
        certificate: None,
        expires_at: None,
    };
    let group = caller.group.as_deref().map(Arc::from);
    let (identity, name) = (Arc::new(identity), Arc::clone(&key));
    Some(Principal { identity, others: Vec::new(), name, key, group, upstream_fields: None })
}
