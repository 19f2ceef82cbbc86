//! `Accepted` → `Routed`: the guards that need no credential, then the API.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Version, header};
use http_body::Body as _;
use portcullis_core::{PeerCertificate, Reason, Rejection, Standing};
use portcullis_policy::{is_known_method, plainly_spelled};
use portcullis_proxy::hygiene;

use crate::exchange::{Accepted, Ended, Exchange, Routed};
use crate::listener::FramingFault;
use crate::listener::forwarded::CallersCertificate;
use crate::listener::ocsp::Ocsp;
use crate::passage::Passage;
use crate::{host, path};

/// Refuses what no API should see, and finds the API.
pub(crate) async fn route(mut exchange: Exchange<Accepted>) -> Result<Exchange<Routed>, Ended> {
    match find(&exchange) {
        Ok(routed) => {
            exchange.passage.ledger.api = Some(Rc::clone(&routed.api));
            if let Err(rejection) = guard(&mut exchange, &routed).await {
                return Err(exchange.refuse(rejection));
            }
            Ok(exchange.advance(|_| routed))
        }
        Err(rejection) => {
            exchange.passage.ledger.path = Some(exchange.head().uri.path().to_owned());
            Err(exchange.refuse(rejection))
        }
    }
}

fn find(exchange: &Exchange<Accepted>) -> Result<Routed, Rejection> {
    if let Some(fault) = exchange.passage.inbound.framing_fault() {
        return Err(fault.into());
    }
    let head = exchange.head();
    if head.version == Version::HTTP_2 {
        check_http2(exchange)?;
    }
    // SECURITY: what no rule and no limit can name is nobody's to allow; and servers that fold the case of methods would
    // take `post` for one that was judged otherwise.
    if !is_known_method(&head.method) {
        return Err(Reason::MethodNotAllowed.into());
    }
    let host =
        host::of(head).map_err(|fault| Rejection::new(Reason::HostInvalid).because(fault.to_string()))?;
    let path = head.uri.path();
    if head.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?')) {
        // `Uri` reads a path into it that is not there and would not be sent on.
        return Err(Rejection::new(Reason::PathNotNormal).because("holds no path"));
    }
    path::check_normal_form(path)
        .map_err(|fault| Rejection::new(Reason::PathNotNormal).because(fault.to_string()))?;
    let connection = exchange.connection();
    if let Some(tls) = &connection.tls
        && !exchange.passage.snapshot.shared.doors.fit(&connection.listener, &host, tls.policy)
    {
        return Err(Reason::Misdirected.into());
    }
    let routes = &exchange.passage.snapshot.shared.routes;
    let (index, below) = routes.find(&host, path).ok_or(Reason::RouteNotFound)?;
    // SECURITY: an API that is found only by how its path is spelled could be another one to the upstream.
    if let Cow::Owned(plain) = plainly_spelled(path)
        && routes.find(&host, &plain).is_none_or(|(other, _)| other != index)
    {
        return Err(Rejection::new(Reason::PathNotNormal).because("escapes hide which API is meant"));
    }
    let api = exchange.passage.snapshot.api(index).ok_or(Reason::RouteNotFound)?;
    // Without a `*` nothing lies below, and the rules see `/`.
    let below = if path.ends_with(below) && below != "/" { path.len() - below.len() } else { path.len() };
    Ok(Routed { api: Rc::clone(api), below })
}

/// What our own reading refuses in HTTP/1.1 and hyper lets through in HTTP/2. A fragment is not among it: hyper has
/// cut it off before anybody can see it, and nothing behind us sees it either.
fn check_http2(exchange: &Exchange<Accepted>) -> Result<(), Rejection> {
    let head = exchange.head();
    // SECURITY: an HTTP/1.1 upstream that looks for no body here takes it for the next request.
    if matches!(head.method, Method::GET | Method::HEAD) && !exchange.passage.body.is_end_stream() {
        return Err(FramingFault::BodyWithoutMeaning.into());
    }
    if head.uri.query().is_some_and(|query| !query.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(FramingFault::Target.into());
    }
    let listener = exchange.passage.snapshot.shared.doors.listener(&exchange.connection().listener);
    if listener.is_none_or(|listener| head.headers.len() > listener.limits.header_count) {
        return Err(Reason::HeadersTooLarge.into());
    }
    Ok(())
}

async fn guard(exchange: &mut Exchange<Accepted>, routed: &Routed) -> Result<(), Rejection> {
    let head = &exchange.passage.head;
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
    settle_certificate(exchange).await?;
    // SECURITY: before anything else reads a header: what a caller may not say is gone from here on (FWD-02, PRX-05).
    let Passage { head, snapshot, .. } = &mut *exchange.passage;
    hygiene::prepare_request(&mut head.headers, &routed.api.protected)?;
    hygiene::remove_aliases(&mut head.headers, &snapshot.shared.proxy_fields);
    Ok(())
}

/// Finds out whose certificate counts: where a proxy in front may tell one, and where lists of revoked certificates
/// have changed since the handshake. The one reader of those headers.
async fn settle_certificate(exchange: &mut Exchange<Accepted>) -> Result<(), Rejection> {
    let (shared, connection, now) =
        (&exchange.passage.snapshot.shared, exchange.connection(), exchange.now());
    let superseding = exchange.passage.inbound.superseding_certificate(now);
    let own = superseding.clone().or_else(|| connection.handshake_certificate.clone());
    // Without a field a proxy speaks in there is no listener that would listen to one.
    let listener =
        if shared.proxy_fields.is_empty() { None } else { shared.doors.listener(&connection.listener) };
    let forwarded = listener.and_then(|listener| listener.forwarded.as_ref());
    let settled = match forwarded {
        Some(forwarded) => {
            // SECURITY: a proxy is believed by its certificate, so somebody asks whether that one was revoked, too.
            let proxys = own.as_ref().filter(|own| forwarded.is_of_the_proxy(own));
            let own = match (exchange.passage.inbound.online(), proxys) {
                // Boxed, as below.
                (Some(ocsp), Some(proxys)) => Box::pin(asked(exchange, ocsp, proxys)).await.or(own),
                _ => own,
            };
            let memory = &exchange.passage.worker.forwarded;
            forwarded.settle(&exchange.passage.head.headers, connection, own.as_deref(), memory, now)?
        }
        None => CallersCertificate::Handshake,
    };
    let told = matches!(settled, CallersCertificate::Settled(_));
    exchange.passage.certificate_from = match settled {
        CallersCertificate::Handshake if superseding.is_some() => CallersCertificate::Settled(superseding),
        settled => settled,
    };
    let online = match forwarded.filter(|_| told) {
        Some(forwarded) => forwarded.online(),
        None => exchange.passage.inbound.online(),
    };
    if let Some(ocsp) = online.cloned() {
        // Boxed: few listeners ask, and few of their requests wait.
        Box::pin(ask(exchange, &ocsp)).await;
    }
    Ok(())
}

/// Waits for what a responder says of the caller's certificate. Whatever it is, the certificate carries it from here.
async fn ask(exchange: &mut Exchange<Accepted>, ocsp: &Arc<Ocsp>) {
    let Some(certificate) = exchange.certificate().cloned() else { return };
    if let Some(objected) = asked(exchange, ocsp, &certificate).await {
        exchange.passage.certificate_from = CallersCertificate::Settled(Some(objected));
    }
}

/// The certificate with what a responder says of it, unless that is good, or it is over anyway.
async fn asked(
    exchange: &Exchange<Accepted>,
    ocsp: &Arc<Ocsp>,
    certificate: &Arc<PeerCertificate>,
) -> Option<Arc<PeerCertificate>> {
    let now = exchange.now();
    if !certificate.is_current(now) {
        return None;
    }
    let memory = &exchange.passage.worker.online;
    let finding = match memory.find(ocsp, certificate, now) {
        Some(finding) => finding,
        None => {
            let finding = ocsp.ask(certificate, now).await;
            memory.remember(ocsp, certificate, finding);
            finding
        }
    };
    let objected = || PeerCertificate { standing: finding.standing, ..PeerCertificate::clone(certificate) };
    (finding.standing != Standing::Good).then(|| Arc::new(objected()))
}
