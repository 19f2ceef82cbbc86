use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_core::{FetchTrust, Unary as _, UnaryCall, UnaryError};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::GrpcCaller;

fn loopback() -> FetchTrust {
    FetchTrust { loopback_http: true, ..FetchTrust::default() }
}

fn call() -> UnaryCall {
    UnaryCall {
        path: "/a.B/C",
        message: Bytes::from_static(b"message"),
        max_bytes: 1024,
        timeout: Duration::from_secs(5),
    }
}

/// A server that answers every call at once with these fields.
async fn server(status: u16, fields: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let answer = service_fn(move |request: Request<Incoming>| async move {
                assert_eq!(request.uri().path(), "/a.B/C");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                let mut response = Response::builder().status(status);
                for (name, value) in fields {
                    response = response.header(*name, *value);
                }
                Ok::<_, Infallible>(response.body(Full::new(Bytes::new())).expect("a response"))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { drop(server.serve_connection(TokioIo::new(stream), answer).await) });
        }
    });
    url
}

#[tokio::test]
async fn a_status_of_the_service_is_told_from_a_service_that_is_not_there() {
    let refuses: &'static [_] =
        &[("content-type", "application/grpc"), ("grpc-status", "16"), ("grpc-message", "inner")];
    let url = server(200, refuses).await;
    let caller = GrpcCaller::new(&url, &loopback(), Some(&Handle::current())).expect("a caller");
    assert_eq!(caller.call(call()).await, Err(UnaryError::Status(16)));
    // An answer that is none: no gRPC at all.
    let url = server(503, &[("content-type", "text/html")]).await;
    let caller = GrpcCaller::new(&url, &loopback(), Some(&Handle::current())).expect("a caller");
    assert!(caller.call(call()).await.is_err());
    let gone =
        GrpcCaller::new("http://127.0.0.1:1", &loopback(), Some(&Handle::current())).expect("a caller");
    let Err(UnaryError::Connection(_)) = gone.call(call()).await else { panic!("a connection to nobody") };
}

#[tokio::test]
async fn a_silent_service_is_waited_for_no_longer_than_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let caller = GrpcCaller::new(&url, &loopback(), Some(&Handle::current())).expect("a caller");
    let timeout = Duration::from_millis(200);
    let begun = std::time::Instant::now();
    assert_eq!(caller.call(UnaryCall { timeout, ..call() }).await, Err(UnaryError::TimedOut(timeout)));
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn only_https_is_called_and_nobody_while_policies_are_checked() {
    for (url, trust) in [
        ("http://127.0.0.1:1", FetchTrust::default()),
        ("http://authz.example", loopback()),
        ("authz.example", loopback()),
        ("https://user@authz.example", FetchTrust::default()),
    ] {
        assert!(GrpcCaller::new(url, &trust, Some(&Handle::current())).is_err(), "{url}");
    }
    let checked = GrpcCaller::new("http://127.0.0.1:1", &loopback(), None).expect("a caller");
    let Err(UnaryError::Connection(why)) = checked.call(call()).await else { panic!("it called somebody") };
    assert!(why.contains("checked"), "{why}");
}
