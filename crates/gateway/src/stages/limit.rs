//! `Authorized` → `Admitted`: how often the caller may do it.

use std::rc::Rc;

use portcullis_core::{PlanSet, Principal, Rejection};
use portcullis_policy::{Admission, LimitFacts, Reserved};

use crate::exchange::{Admitted, Authenticated, Authorized, Ended, Entitled, Exchange, Routed};

/// Counts the request against every limit of the API, or against none if one refuses.
pub(crate) async fn limit(mut exchange: Exchange<Authorized>) -> Result<Exchange<Admitted>, Ended> {
    match count(&mut exchange).await {
        Ok(admission) => {
            let trial = admission.as_ref().and_then(Admission::shadow);
            // What the chain would have refused comes first.
            let shadow = &mut exchange.passage.ledger.shadow;
            if !matches!(shadow, Some(Err(_))) {
                *shadow = trial.map(Err).or(*shadow);
            }
            Ok(exchange.advance(|authorized| {
                let Authenticated { routed, principal } = authorized.entitled.authenticated;
                Admitted { api: routed.api, principal, admission }
            }))
        }
        Err(rejection) => {
            exchange.passage.ledger.limit =
                rejection.detail().and_then(|detail| detail.violated.first().cloned());
            Err(exchange.refuse(rejection))
        }
    }
}

/// Counts the request against the limits of failures, before anybody is asked who calls.
pub(crate) async fn limit_failures(exchange: &mut Exchange<Routed>) -> Result<(), Rejection> {
    let api = Rc::clone(&exchange.proof.api);
    let Some(limits) = api.limits.as_ref().filter(|limits| limits.count_failures()) else { return Ok(()) };
    let mut reserved = Reserved::default();
    let facts = facts(exchange, exchange.proof.below, None, None);
    let admitted = limits.admit_unknown(&facts, &mut reserved).await;
    exchange.passage.reserved = reserved;
    match admitted {
        Ok(shadow) => {
            exchange.passage.ledger.shadow = shadow.map(Err);
            Ok(())
        }
        Err(rejection) => {
            exchange.passage.ledger.limit =
                rejection.detail().and_then(|detail| detail.violated.first().cloned());
            Err(rejection)
        }
    }
}

async fn count(exchange: &mut Exchange<Authorized>) -> Result<Option<Admission>, Rejection> {
    // Units of limits of failures are among them.
    let mut reserved = std::mem::take(&mut exchange.passage.reserved);
    let Entitled { authenticated, plans } = &exchange.proof.entitled;
    let admitted = match &authenticated.routed.api.limits {
        None => Ok(None),
        Some(limits) => {
            let caller = Some(&authenticated.principal);
            let facts = facts(exchange, authenticated.routed.below, caller, plans.as_ref());
            limits.admit(&facts, &mut reserved).await.map(Some)
        }
    };
    exchange.passage.reserved = reserved;
    admitted
}

/// What limits look at.
pub(super) fn facts<'a, S>(
    exchange: &'a Exchange<S>,
    below: usize,
    principal: Option<&'a Principal>,
    plans: Option<&'a PlanSet>,
) -> LimitFacts<'a> {
    let head = exchange.head();
    let below = head.uri.path().get(below..).filter(|below| !below.is_empty());
    LimitFacts {
        principal,
        method: &head.method,
        path_in_api: below.unwrap_or("/"),
        address: Some(exchange.connection().address()),
        plans,
        now: exchange.now(),
    }
}
