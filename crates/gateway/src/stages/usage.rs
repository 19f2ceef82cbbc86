//! `Entitled` → `Entitled`: a caller who asks how much is left is told, and goes no further.

use std::rc::Rc;

use http::Method;
use portcullis_policy::Usage;
use serde_json::{Value, json};

use crate::exchange::{Ended, Entitled, Exchange};
use crate::stages::limit::facts;

/// Answers a `GET` of the API's `usage` path. Whoever may call the API at all may ask about themselves, and nothing is
/// counted.
pub(crate) async fn usage(exchange: Exchange<Entitled>) -> Result<Exchange<Entitled>, Ended> {
    let Entitled { authenticated, plans } = &exchange.proof;
    let api = Rc::clone(&authenticated.routed.api);
    let facts = facts(&exchange, authenticated.routed.below, Some(&authenticated.principal), plans.as_ref());
    let asked = matches!(*facts.method, Method::GET | Method::HEAD)
        && api.usage.as_deref().is_some_and(|path| path == facts.path_in_api);
    if !asked {
        return Ok(exchange);
    }
    let usages = match &api.limits {
        None => Ok(Vec::new()),
        Some(limits) => limits.usage(&facts).await,
    };
    let usages = match usages {
        Ok(usages) => usages,
        Err(rejection) => return Err(exchange.refuse(rejection)),
    };
    let plans = plans.as_ref().zip(api.plans.as_ref());
    let plans = plans.map(|(plans, api)| api.source.names(plans).cloned().collect::<Vec<_>>());
    let told = json!({
        "identity": authenticated.principal.name,
        "plans": plans,
        "limits": usages.iter().map(shown).collect::<Vec<_>>(),
    });
    Err(exchange.tell(told.to_string()))
}

fn shown(usage: &Usage) -> Value {
    let Usage { name, is_quota, limit, window, remaining, reset } = usage;
    json!({
        "name": name,
        "kind": if *is_quota { "quota" } else { "rate" },
        "limit": limit,
        "window_seconds": window.as_secs_f64(),
        "remaining": remaining,
        "reset_seconds": reset.map(|reset| reset.as_secs_f64().ceil()),
    })
}
