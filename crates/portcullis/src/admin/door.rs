//! The admin listener over TLS, within reach of the network: who is let in.
//!
//! SECURITY: whoever shows neither the token nor a certificate of the named authorities learns no more than that a process
//! answers. What may be asked for with a certificate alone is asked for by no web page: browsers show certificates unasked.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{HeaderName, HeaderValue, ORIGIN};
use http::{HeaderMap, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use portcullis_gateway::{AdminCertificate, Gateway, Shown};
use tokio::net::{TcpListener, TcpStream};

use super::changes::{self, ended};
use super::problem::problem;

/// Connections at a time from one address, or from one IPv6 network of 64 bits, which is one caller's. SECURITY: nobody keeps
/// operators out by coming often; they come from elsewhere.
const FROM_ONE_ADDRESS: usize = 32;

/// Connections at a time from all addresses.
const CONNECTIONS: usize = 1_024;

/// How long a request head, and the pause before it, may take.
const HEAD: Duration = Duration::from_secs(10);

/// How long a connection may stay: longer than any call takes.
const STAY: Duration = Duration::from_secs(600);

/// How long is waited after an `accept` that failed, which may well fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// The largest request head. SECURITY: strangers send it before anybody knows them.
const HEAD_BYTES: usize = 32 << 10;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// On a request whose certificate was found good.
#[derive(Clone, Copy)]
pub(super) struct Certified;

/// Serves for as long as the runtime lives.
pub(crate) async fn serve(listener: TcpListener, gateway: Weak<Gateway>, router: Router) {
    let places = Places::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.enter(peer.ip()) else { continue };
        let (gateway, router) = (Weak::clone(&gateway), router.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = tokio::time::timeout(STAY, attend(stream, &gateway, router)).await;
        });
    }
}

async fn attend(stream: TcpStream, gateway: &Weak<Gateway>, router: Router) {
    // The gateway itself is held by no connection, or it could not come to its end.
    let Some(door) = gateway.upgrade().and_then(|gateway| gateway.admin_door()) else { return };
    let (stream, shown) = match door.handshake(stream).await {
        Ok(shaken) => shaken,
        Err(error) => {
            tracing::debug!(%error, "no handshake with the admin listener");
            return;
        }
    };
    let service = TowerToHyperService::new(router.layer(Extension(shown)));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection of the admin listener broke off");
    }
}

/// The connections there are, by address.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them.
struct Taken(Places, IpAddr);

impl Places {
    fn enter(&self, address: IpAddr) -> Option<Taken> {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (places.values().sum::<usize>(), places.get(&address).copied().unwrap_or_default());
        if all >= CONNECTIONS || own >= FROM_ONE_ADDRESS {
            return None;
        }
        places.insert(address, own + 1);
        Some(Taken(self.clone(), address))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut places = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match places.get_mut(&self.1) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(places.remove(&self.1)),
        }
    }
}

/// Lets in those who are known, to look; what changes something asks again, see `changes::token_only`. The certificate is judged
/// for each request: what was shown in the handshake may have ended since.
pub(super) async fn known_only(
    State(gateway): State<Weak<Gateway>>,
    Extension(shown): Extension<Shown>,
    mut request: Request,
    next: Next,
) -> Response {
    let judged = match gateway.upgrade() {
        None => Err(ended()),
        Some(gateway) => judge(&gateway, &shown, &request),
    };
    match judged {
        Err(refusal) => refusal,
        Ok(certified) => {
            if let Some(certified) = certified {
                request.extensions_mut().insert(certified);
            }
            next.run(request).await
        }
    }
}

#[expect(clippy::result_large_err, reason = "the refusal is the answer, and is sent at once")]
fn judge(gateway: &Gateway, shown: &Shown, request: &Request) -> Result<Option<Certified>, Response> {
    if is_of_a_page(request.headers()) {
        let how = "the admin API answers no web page";
        return Err(problem(StatusCode::FORBIDDEN, "from_a_page", how));
    }
    // Whether it speaks TLS is decided once, so there is one.
    let Some(door) = gateway.admin_door() else { return Err(ended()) };
    match door.judge(shown) {
        AdminCertificate::Good => Ok(Some(Certified)),
        AdminCertificate::Refused => {
            let how =
                "the certificate of this connection is not taken any more: it has ended, or was revoked";
            Err(problem(StatusCode::FORBIDDEN, "certificate_not_taken", how))
        }
        AdminCertificate::NotAsked if request.method().is_safe() && request.uri().path() == "/livez" => {
            Ok(None)
        }
        AdminCertificate::NotAsked => {
            match changes::refusal(gateway.admin_token().as_ref(), request.headers()) {
                Some(refusal) => Err(refusal),
                None => Ok(None),
            }
        }
    }
}

/// Whether a page in a browser sends it.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    headers.contains_key(ORIGIN) || site.is_some_and(|site| site != b"none")
}

#[cfg(test)]
mod tests {
    use super::{CONNECTIONS, FROM_ONE_ADDRESS, Places};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    #[test]
    fn one_address_leaves_room_for_others() {
        let places = Places::default();
        let at = |number: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
        let mut held: Vec<_> = (0..FROM_ONE_ADDRESS).map(|_| places.enter(at(1)).expect("a place")).collect();
        assert!(places.enter(at(1)).is_none());
        assert!(places.enter(at(2)).is_some());
        held.pop();
        assert!(places.enter(at(1)).is_some());
        drop(held);
        let in_network = |number: u128| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | number));
        let held: Vec<_> = (0..)
            .take(FROM_ONE_ADDRESS)
            .map(|number| places.enter(in_network(number)).expect("a place"))
            .collect();
        assert!(places.enter(in_network(1 << 63)).is_none(), "one network is one caller");
        assert!(places.enter(in_network(1 << 64)).is_some());
        drop(held);
        assert!(places.0.lock().expect("places").is_empty(), "nothing is left of who has gone");
        let mut all: Vec<_> =
            (0..).take(CONNECTIONS).map(|number| places.enter(at(number)).expect("a place")).collect();
        assert!(places.enter(at(100_000)).is_none());
        all.pop();
        assert!(places.enter(at(100_000)).is_some());
    }
}
