//! `Entitled` → `Authorized`: what the caller may do.

use portcullis_core::Rejection;
use portcullis_policy::{Facts, Permit};

use crate::exchange::{Authorized, Ended, Entitled, Exchange};
use crate::host;

/// The first rule that fits allows the request; none fits: denied.
pub(crate) async fn authorize(mut exchange: Exchange<Entitled>) -> Result<Exchange<Authorized>, Ended> {
    match judge(&exchange) {
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

fn judge(exchange: &Exchange<Entitled>) -> Result<Permit, Rejection> {
    let authenticated = &exchange.proof.authenticated;
    let head = exchange.head();
    let below = head.uri.path().get(authenticated.routed.below..).filter(|below| !below.is_empty());
    authenticated.routed.api.rules.authorize(&Facts {
        head,
        host: |head| host::of(head).ok(),
        path_in_api: below.unwrap_or("/"),
        address: exchange.connection().address(),
        principal: &authenticated.principal,
        certificate: exchange.certificate().map(AsRef::as_ref),
        now: exchange.now(),
    })
}
