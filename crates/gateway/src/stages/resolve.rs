//! `Authenticated` → `Entitled`: what the caller's own record says, and which plans they have.

use portcullis_core::Reason;

use crate::exchange::{Authenticated, Ended, Entitled, Exchange};

/// A registered client may have expired since its credential was made; plans are found anew for every request.
pub(crate) async fn resolve(mut exchange: Exchange<Authenticated>) -> Result<Exchange<Entitled>, Ended> {
    let now = exchange.now().unix_seconds();
    let identities = exchange.proof.principal.identities();
    let expired =
        identities.filter_map(|identity| identity.client.as_ref()?.expires_at).any(|end| now >= end);
    if expired {
        return Err(exchange.refuse(Reason::ClientInactive));
    }
    let plans = match &exchange.proof.routed.api.plans {
        None => Ok(None),
        Some(plans) => plans.source.plans_of(&exchange.proof.principal, now),
    };
    if let (Some(notes), Ok(Some(found)), Some(api)) =
        (&mut exchange.passage.ledger.notes, &plans, &exchange.proof.routed.api.plans)
    {
        notes.plans = api.source.names(found).cloned().collect();
    }
    match plans {
        Ok(plans) => Ok(exchange.advance(|authenticated| Entitled { authenticated, plans })),
        Err(rejection) => Err(exchange.refuse(rejection)),
    }
}
