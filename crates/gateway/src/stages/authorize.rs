//! `Entitled` → `Authorized`: what the caller may do.

use portcullis_policy::{Facts, Granted};

use crate::exchange::{Authorized, Ended, Entitled, Exchange};
use crate::host;

/// The first rule that fits allows the request; none fits: denied.
pub(crate) async fn authorize(mut exchange: Exchange<Entitled>) -> Result<Exchange<Authorized>, Ended> {
    if exchange.passage.ledger.notes.is_some() {
        let told = exchange.proof.authenticated.routed.api.rules.tell(&facts(&exchange));
        exchange.passage.ledger.notes.iter_mut().for_each(|notes| notes.rules.clone_from(&told));
    }
    match exchange.proof.authenticated.routed.api.rules.authorize(&facts(&exchange)) {
        Ok(permit) => {
            exchange.passage.ledger.rule = Some(permit);
            Ok(exchange.advance(|entitled| Authorized { entitled }))
        }
        Err(rejection) => {
            exchange.passage.ledger.path = Some(exchange.head().uri.path().to_owned());
            Err(exchange.refuse(rejection))
        }
    }
}

fn facts(exchange: &Exchange<Entitled>) -> Facts<'_> {
    let Entitled { authenticated, plans } = &exchange.proof;
    let rights = authenticated.routed.api.plans.as_ref().map(|plans| &plans.rights);
    let granted = rights.zip(plans.as_deref()).map(|(rights, plans)| Granted { rights, plans });
    let head = exchange.head();
    let below = head.uri.path().get(authenticated.routed.below..).filter(|below| !below.is_empty());
    Facts {
        head,
        host: |head| host::of(head).ok(),
        path_in_api: below.unwrap_or("/"),
        address: exchange.connection().address(),
        principal: &authenticated.principal,
        certificate: exchange.certificate().map(AsRef::as_ref),
        granted,
        now: exchange.now(),
    }
}
