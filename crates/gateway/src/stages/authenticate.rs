//! `Routed` → `Authenticated`: who is calling.

use std::rc::Rc;

use portcullis_authn::Evidence;
use portcullis_core::{Moment, Principal, Reason, Rejection};

use crate::content::Content;
use crate::exchange::{Authenticated, Ended, Exchange, Routed};
use crate::ledger::AuthRecord;
use crate::stages::limit::limit_failures;

/// Runs the API's chain. Whatever it cannot decide is a refusal.
pub(crate) async fn authenticate(mut exchange: Exchange<Routed>) -> Result<Exchange<Authenticated>, Ended> {
    if let Err(rejection) = limit_failures(&mut exchange).await {
        return Err(exchange.refuse(rejection));
    }
    let now = exchange.now();
    let outcome = if exchange.proof.api.chain.reads_content() {
        let room = Rc::clone(&exchange.passage.worker.room);
        let content = Content::of(exchange.passage.take_body(), exchange.proof.api.body, room);
        let outcome = ask(&exchange, Some(&content), now).await;
        exchange.passage.body = content.into_body();
        outcome
    } else {
        ask(&exchange, None, now).await
    };
    let took = exchange.passage.worker.since(now);
    let thumbprint = exchange.certificate().map(|certificate| certificate.thumbprint);
    exchange.passage.ledger.certificate = thumbprint;
    let outcome = match exchange.proof.api.chain.in_shadow() {
        None => outcome,
        Some(anybody) => {
            exchange.passage.ledger.shadow =
                Some(outcome.as_ref().map(|_nobody| ()).map_err(Rejection::reason));
            match outcome {
                Err(rejection) if is_of_the_body(rejection.reason()) => Err(rejection),
                Ok(_) | Err(_) => Ok(anybody),
            }
        }
    };
    match outcome {
        Ok(principal) => {
            exchange.passage.ledger.auth = AuthRecord::Verified { method: principal.identity.method, took };
            exchange.passage.ledger.principal = Some(principal.name.clone());
            exchange.passage.ledger.key_id.clone_from(&principal.identity.key_id);
            Ok(exchange.advance(|routed| Authenticated { routed, principal }))
        }
        Err(rejection) => {
            exchange.passage.ledger.auth = AuthRecord::Refused { took };
            Err(exchange.refuse(rejection))
        }
    }
}

/// A body that is too large, too slow, broken or one too many ends every request, whatever asked for it first.
fn is_of_the_body(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BodyTooLarge | Reason::BodyTimeout | Reason::RequestMalformed | Reason::Overloaded
    )
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
        clock: exchange.passage.worker.clock(),
        on_trial: false,
        uses: None,
        trace: exchange.passage.ledger.notes.as_ref().map(|notes| &notes.trace),
    };
    exchange.proof.api.chain.authenticate(&evidence).await
}
