//! `Routed` → `Authenticated`: who is calling.

use crate::exchange::{Authenticated, Ended, Exchange, Routed};
use crate::ledger::AuthRecord;

/// Runs the API's chain. Whatever it cannot decide is a refusal.
pub(crate) async fn authenticate(mut exchange: Exchange<Routed>) -> Result<Exchange<Authenticated>, Ended> {
    let now = exchange.now();
    let outcome = exchange
        .proof
        .api
        .chain
        .authenticate(&exchange.head, exchange.connection(), &exchange.passage.worker.tokens, now)
        .await;
    let took = exchange.passage.worker.since(now);
    exchange.passage.ledger.certificate =
        exchange.connection().certificate.as_ref().map(|certificate| certificate.thumbprint);
    match outcome {
        Ok(principal) => {
            exchange.passage.ledger.auth = AuthRecord::Verified { method: principal.identity.method, took };
            exchange.passage.ledger.principal = Some(principal.name.clone());
            Ok(exchange.advance(|routed| Authenticated { routed, principal }))
        }
        Err(rejection) => {
            exchange.passage.ledger.auth = AuthRecord::Refused { took };
            Err(exchange.refuse(rejection))
        }
    }
}
