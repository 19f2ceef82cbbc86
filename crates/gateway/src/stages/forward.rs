//! `Admitted` → `Reply`: to the upstream and back.

use std::rc::Rc;

use portcullis_core::{CertificateSource, Rejection};
use portcullis_proxy::hygiene;

use crate::body::ReplyBody;
use crate::caching;
use crate::exchange::{Admitted, Ended, Exchange, Outcome, Reply};
use crate::forward::Subject;

/// Sends the request on. Only an [`Admitted`] one can come here.
pub(crate) async fn forward(mut exchange: Exchange<Admitted>) -> Result<Reply, Ended> {
    if let Err(rejection) = prepare(&mut exchange) {
        return Err(exchange.refuse(rejection));
    }
    let Exchange { mut passage, proof } = exchange;
    let request = passage.take_request();
    let worker = Rc::clone(&passage.worker);
    passage.ledger.forwarded_at = Some(worker.since(passage.ledger.opened));
    let sent = worker.pools.send(&proof.api.upstream, request, proof.api.body).await;
    passage.ledger.answered_at = Some(worker.since(passage.ledger.opened));
    let response = match sent {
        Ok(response) => response,
        Err(error) => return Err(Ended { outcome: Outcome::Refused(Rejection::from(error)), passage }),
    };
    let (mut parts, body) = response.into_parts();
    passage.ledger.upstream_status = Some(parts.status);
    passage.ledger.status = parts.status;
    hygiene::prepare_response(&mut parts.headers);
    let told = passage.certificate().is_some_and(|known| known.source == CertificateSource::Proxy);
    caching::correct(&mut parts.headers, proof.api.forward.set_names(), told);
    if let (Some(limits), Some(admission)) = (&proof.api.limits, &proof.admission) {
        limits.write_fields(admission, parts.status, &mut parts.headers);
    }
    let response = http::Response::from_parts(parts, ReplyBody::Upstream(body));
    Ok(Reply { response, passage })
}

/// Takes out what would be mistaken for ours, then adds ours. Never the other way round (FWD-07).
pub(crate) fn prepare(exchange: &mut Exchange<Admitted>) -> Result<(), Rejection> {
    let Exchange { passage, proof } = exchange;
    let (api, current) = (&proof.api, passage.current_certificate().cloned());
    let passage = &mut **passage;
    if !api.forward.keep_credentials {
        api.chain.strip(&mut passage.head);
    }
    let headers = &mut passage.head.headers;
    hygiene::remove_aliases(headers, &api.removed);
    if api.forward.keep_credentials {
        hygiene::remove_other_spellings(headers, &api.credentials);
        api.chain.present_as_bearer(headers);
    }
    passage.inbound.forwarded().add(headers, &passage.head.uri);
    if let Some(fields) = &proof.principal.upstream_fields {
        // Callers' copies of these names were removed above, in every spelling.
        headers.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let (principal, request_id) = (&proof.principal, passage.ledger.id);
    api.forward.apply(headers, &Subject { principal, certificate: current.as_deref(), request_id })
}
