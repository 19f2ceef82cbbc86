//! Which header names mean what, for the decisions of this room.
//!
//! SECURITY: names are compared after folding: CGI, WSGI and their kind turn `X-SSL-Cert` and `X_SSL_Cert` (and some
//! of them `X.SSL.Cert`) into one variable, so to an upstream they are one name (FWD-02).

use std::borrow::Cow;

/// A question about names, and the table of what it knows: names, and beginnings of names. The tests go by the tables.
macro_rules! names {
    ($(#[$doc:meta])* $question:ident, $table:ident: [$($name:literal),* $(,)?], [$($prefix:literal),* $(,)?]) => {
        $(#[$doc])*
        fn $question(name: &str) -> bool {
            matches!(name, $($name)|*) $(|| name.starts_with($prefix))*
        }

        #[cfg(test)]
        pub(super) const $table: Table = Table { names: &[$($name),*], prefixes: &[$($prefix),*] };
    };
}

/// What a question about names knows.
#[cfg(test)]
pub(super) struct Table {
    pub(super) names: &'static [&'static str],
    pub(super) prefixes: &'static [&'static str],
}

/// The name as the most careless upstream would see it: everything but letters and digits is a dash.
pub(super) fn folded(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Cow::Borrowed(name);
    }
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect::<String>().into()
}

/// Whether a caller's field of this name stops here.
pub(super) fn stops_at_the_door(name: &str) -> bool {
    // Most fields of most requests begin with other letters and are done with here. Letters do not fold.
    match name.as_bytes() {
        [b'x', ..]
        | [b'c', b'f' | b'l' | b'o', ..]
        | [b'e', b'x', ..]
        | [b'f', b'a' | b'o' | b'r', ..]
        | [b'h', b't', ..]
        | [b'k', b'e', ..]
        | [b'p', b'r', ..]
        | [b'r', b'e', ..]
        | [b's', b's', ..]
        | [b't', b'e' | b'r', ..]
        | [b'u', b'p', ..]
        | [b'w', b'l', ..] => {
            let plain = folded(name);
            concerns_one_hop(&plain) || is_a_disguised_length(name, &plain) || speaks_for_the_gateway(&plain)
        }
        _ => false,
    }
}

/// Whether an upstream's field of this name stops here.
pub(super) fn stops_on_the_way_back(name: &str) -> bool {
    match name.as_bytes() {
        // Nothing that stops here begins like `content-type`.
        [b'c', b'o', b'n', b't', ..] => false,
        [b'c', b'f' | b'l' | b'o', ..]
        | [b'e', b'x', ..]
        | [b'h', b't', ..]
        | [b'k', b'e', ..]
        | [b'p', b'r', ..]
        | [b's', b's', ..]
        | [b't', b'e' | b'r', ..]
        | [b'u', b'p', ..]
        | [b'x', ..] => {
            let name = folded(name);
            // `Trailer` announces what we pass on; RFC 9440 section 3.1 wants no `Client-Cert` in an answer.
            (concerns_one_hop(&name) && name != "trailer") || describes_a_certificate(&name)
        }
        _ => false,
    }
}

names! {
    /// Fields about the connection between two neighbours (RFC 9110 section 7.6.1), and those answered by us.
    /// `Trailer` goes because a request's trailers are not passed on, `Expect` because the gateway itself says
    /// `100 Continue` once the request is admitted.
    concerns_one_hop, ONE_HOP: [
        "connection",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ], []
}

/// SECURITY: where `content_length` is the same variable as `Content-Length`, it gives the body a second length,
/// which nobody compared with its framing.
fn is_a_disguised_length(written: &str, plain: &str) -> bool {
    plain == "content-length" && written != plain
}

/// Fields by which a proxy tells an upstream who the caller is or what was asked for. From a caller they are lies
/// (FWD-02, PRX-04, PRX-05).
fn speaks_for_the_gateway(name: &str) -> bool {
    describes_a_certificate(name) || names_an_authenticated_user(name) || describes_the_request(name)
}

names! {
    /// Every known way of handing on where a request came from, and what it was before it was rewritten.
    describes_the_request, OF_THE_REQUEST: [
        "cf-connecting-ip",
        "fastly-client-ip",
        "forwarded",
        "front-end-https",
        "proxy-client-ip",
        "true-client-ip",
        "x-appengine-user-ip",
        "x-azure-clientip",
        "x-azure-socketip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-host",
        "x-http-host-override",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-originating-ip",
        "x-real-ip",
        "x-remote-addr",
        "x-remote-ip",
        "x-rewrite-url",
        "x-scheme",
    ], ["x-forwarded", "x-original-", "x-envoy-", "wl-proxy-"]
}

names! {
    /// Every known way in which a proxy that authenticates says who is calling (FWD-02).
    names_an_authenticated_user, OF_THE_USER: [
        "remote-email",
        "remote-groups",
        "remote-name",
        "remote-user",
        "x-jwt-assertion",
        "x-userinfo",
    ], [
        "cf-access-authenticated-user-",
        "x-amzn-oidc-",
        "x-authenticated-",
        "x-authentik-",
        "x-consumer-",
        "x-credential-",
        "x-pomerium-",
        "x-remote-",
        "x-vouch-",
        "x-webauth-",
        "x-auth-request-",
        "x-goog-authenticated-user-",
        "x-ms-client-principal",
    ]
}

/// Every known way of handing on a client certificate (FWD-02).
fn describes_a_certificate(name: &str) -> bool {
    is_for_a_certificate(name) || (name.starts_with(WSO2) && name.contains("-cert"))
}

/// Certificates in the fields of WSO2's gateways have this before a name of the operator's.
pub(super) const WSO2: &str = "x-wso2-";

names! {
    /// The same by its fixed names.
    is_for_a_certificate, OF_THE_CERTIFICATE: [
        "client-cert",
        "client-cert-chain",
        "x-arr-clientcert",
        "x-client-verify",
        "x-forwarded-client-cert",
        "x-tls-client-cert",
    ], [
        "x-forwarded-tls-client-cert",
        "x-ssl-",
        "ssl-client-",
        "x-goog-client-cert",
        "x-client-cert",
        "x-amzn-mtls-",
        "cf-client-cert-",
        "cf-cert-",
    ]
}

/// What `Connection` may name without more ado: options, and fields that concern one hop anyway.
pub(super) fn is_connection_option(name: &str) -> bool {
    matches!(
        name,
        "close"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "trailers"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields meant for the far end, so that nobody may have them removed on the way by naming them in `Connection`.
/// Those that carry credentials, identities, signatures, or a meaning the upstream decides by.
pub(super) fn is_end_to_end(name: &str) -> bool {
    matches!(
        name.split('-').next(),
        Some("accept" | "access" | "authorization" | "content" | "cookie" | "if")
    ) || name.starts_with("x-fapi-")
        || name.starts_with("sec-")
        || name.starts_with("grpc-")
        || matches!(
            name,
            "age"
                | "allow"
                | "api-key"
                | "apikey"
                | "authentication-info"
                | "cache-control"
                | "date"
                | "digest"
                | "dpop"
                | "etag"
                | "expires"
                | "from"
                | "host"
                | "idempotency-key"
                | "last-modified"
                | "location"
                | "max-forwards"
                | "origin"
                | "pragma"
                | "priority"
                | "range"
                | "referer"
                | "repr-digest"
                | "retry-after"
                | "server"
                | "set-cookie"
                | "signature"
                | "signature-input"
                | "strict-transport-security"
                | "traceparent"
                | "tracestate"
                | "user-agent"
                | "vary"
                | "via"
                | "want-content-digest"
                | "want-repr-digest"
                | "www-authenticate"
                | "x-api-key"
                | "x-auth-token"
                | "x-csrf-token"
                | "x-idempotency-key"
                | "x-jws-signature"
                | "x-request-id"
        )
}

/// Fields of which a trailer is a proper place although they are meant for the far end.
pub(super) fn may_trail(name: &str) -> bool {
    matches!(name, "content-digest" | "digest" | "etag" | "repr-digest" | "signature" | "signature-input")
        || name.starts_with("grpc-")
}
