//! `Authorized` → `Admitted`: how often the caller may do it.

use portcullis_core::Rejection;
use portcullis_policy::{Admission, LimitFacts};

use crate::exchange::{Admitted, Authenticated, Authorized, Ended, Exchange};

/// Counts the request against every limit of the API, or against none if one refuses.
pub(crate) async fn limit(mut exchange: Exchange<Authorized>) -> Result<Exchange<Admitted>, Ended> {
    match count(&exchange).await {
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

async fn count(exchange: &Exchange<Authorized>) -> Result<Option<Admission>, Rejection> {
    let authenticated = &exchange.proof.entitled.authenticated;
    let Some(limits) = &authenticated.routed.api.limits else { return Ok(None) };
    let head = exchange.head();
    let below = head.uri.path().get(authenticated.routed.below..).filter(|below| !below.is_empty());
    let facts = LimitFacts {
        principal: &authenticated.principal,
        method: &head.method,
        path_in_api: below.unwrap_or("/"),
        address: exchange.connection().address(),
        now: exchange.now(),
    };
    limits.admit(&facts).await.map(Some)
}
