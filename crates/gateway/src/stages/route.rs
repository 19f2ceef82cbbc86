//! `Accepted` → `Routed`: the guards that need no credential, then the API.

use std::rc::Rc;

use http::request::Parts;
use http::{Method, header};
use portcullis_core::{Reason, Rejection};
use portcullis_proxy::hygiene;

use crate::exchange::{Accepted, Ended, Exchange, Routed};
use crate::{host, path};

/// Refuses what no API should see, and finds the API.
pub(crate) async fn route(mut exchange: Exchange<Accepted>) -> Result<Exchange<Routed>, Ended> {
    match find(&exchange) {
        Ok(routed) => {
            exchange.passage.ledger.api = Some(Rc::clone(&routed.api));
            if let Err(rejection) = guard(&mut exchange.head, &routed) {
                return Err(exchange.refuse(rejection));
            }
            Ok(exchange.advance(|_| routed))
        }
        Err(rejection) => {
            exchange.passage.ledger.path =
                exchange.passage.worker.logs().then(|| exchange.head.uri.path().to_owned());
            Err(exchange.refuse(rejection))
        }
    }
}

fn find(exchange: &Exchange<Accepted>) -> Result<Routed, Rejection> {
    if let Some(fault) = exchange.passage.inbound.framing_fault() {
        return Err(fault.into());
    }
    let head = &exchange.head;
    if matches!(head.method, Method::TRACE | Method::CONNECT) {
        return Err(Reason::MethodNotAllowed.into());
    }
    let host =
        host::of(head).map_err(|fault| Rejection::new(Reason::HostInvalid).because(fault.to_string()))?;
    let path = head.uri.path();
    path::check_normal_form(path)
        .map_err(|fault| Rejection::new(Reason::PathNotNormal).because(fault.to_string()))?;
    let connection = exchange.connection();
    if let Some(tls) = &connection.tls
        && !exchange.passage.snapshot.shared.tls_hosts.fits(&connection.listener, &host, tls.policy)
    {
        return Err(Reason::Misdirected.into());
    }
    let (index, below) =
        exchange.passage.snapshot.shared.routes.find(&host, path).ok_or(Reason::RouteNotFound)?;
    let api = exchange.passage.snapshot.api(index).ok_or(Reason::RouteNotFound)?;
    Ok(Routed { api: Rc::clone(api), below: path.len() - below.len().min(path.len()) })
}

fn guard(head: &mut Parts, routed: &Routed) -> Result<(), Rejection> {
    if let Some(methods) = &routed.api.methods
        && !methods.list.contains(&head.method)
    {
        return Err(Rejection::new(Reason::MethodNotAllowed).allowing(methods.field.clone()));
    }
    if let Some(length) = head.headers.get(header::CONTENT_LENGTH) {
        let length: Option<u64> = length.to_str().ok().and_then(|text| text.parse().ok());
        match length {
            None => return Err(Reason::RequestMalformed.into()),
            Some(length) if length > routed.api.body.max_bytes => return Err(Reason::BodyTooLarge.into()),
            Some(_) => {}
        }
    }
    // SECURITY: before anything reads a header: what a caller may not say is gone from here on (FWD-02, PRX-05).
    hygiene::prepare_request(&mut head.headers, &routed.api.protected)
}
