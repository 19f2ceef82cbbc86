//! `Routed` → `Authenticated`: who is calling.

use portcullis_authn::Evidence;
use portcullis_core::{Moment, Principal, Rejection};

use crate::content::Content;
use crate::exchange::{Authenticated, Ended, Exchange, Routed};
use crate::ledger::AuthRecord;

/// Runs the API's chain. Whatever it cannot decide is a refusal.
pub(crate) async fn authenticate(mut exchange: Exchange<Routed>) -> Result<Exchange<Authenticated>, Ended> {
    let now = exchange.now();
    let outcome = if exchange.proof.api.chain.reads_content() {
        let content = Content::of(exchange.passage.take_body(), exchange.proof.api.body);
        let outcome = ask(&exchange, Some(&content), now).await;
        exchange.passage.body = content.into_body();
        outcome
    } else {
        ask(&exchange, None, now).await
    };
    let took = exchange.passage.worker.since(now);
    let thumbprint = exchange.certificate().map(|certificate| certificate.thumbprint);
    exchange.passage.ledger.certificate = thumbprint;
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

async fn ask(
    exchange: &Exchange<Routed>,
    content: Option<&Content>,
    now: Moment,
) -> Result<Principal, Rejection> {
    let evidence = Evidence {
        head: exchange.head(),
        connection: exchange.connection(),
        certificate: exchange.certificate(),
        worker: &exchange.passage.worker.tokens,
        content: content.map(|content| -> &dyn portcullis_authn::Content { content }),
        now,
    };
    exchange.proof.api.chain.authenticate(&evidence).await
}
