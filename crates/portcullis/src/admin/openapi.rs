//! What the admin API says of itself, as OpenAPI 3.1: made of the routes that answer, so that it cannot differ from them.

use std::sync::Weak;

use axum::extract::Extension;
use axum::response::Response;
use axum::{Router, middleware};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use portcullis_gateway::Gateway;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    Components, Content, Info, OpenApi, Paths, Ref, RefOr, Response as Answer, SecurityRequirement,
};
use utoipa::{PartialSchema as _, ToSchema as _};
use utoipa_axum::router::OpenApiRouter;

use super::answer;
use super::changes::token_only;
use super::problem::{PROBLEM_JSON, Problem};

/// The name of the token of `admin`, as the document calls it.
const TOKEN: &str = "admin_token";

/// Status and meaning of an answer that says no.
pub(super) type No = (StatusCode, &'static str);

/// Said of everything: see `loopback_host_only`.
const NOT_HERE: No = (
    StatusCode::FORBIDDEN,
    "The request is not for a loopback host; or, over TLS, it comes from a web page or its certificate is not taken any more.",
);

/// Said of everything: see `door::known_only`.
const NOT_KNOWN: No =
    (StatusCode::UNAUTHORIZED, "Over TLS, where no certificates are asked for, the token was not shown.");

/// Said of whatever asks for the token.
const GUARDED: [No; 6] = [
    (StatusCode::BAD_REQUEST, "The request cannot be read, or says something that makes no sense."),
    (StatusCode::UNAUTHORIZED, "The token of `admin` was not shown."),
    (
        StatusCode::FORBIDDEN,
        "`admin` names no token, so nobody may; or the request is not for a loopback host, comes from a web page, or its \
         certificate is not taken any more.",
    ),
    (StatusCode::NOT_FOUND, "There is nothing of this name."),
    (StatusCode::INTERNAL_SERVER_ERROR, "Something is broken; the log has more."),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "The gateway is coming to its end, or the store or the audit log cannot be written. What takes something away may be in \
         force all the same, and `code` says so.",
    ),
];

/// Said of whatever has a body.
const WITH_BODY: [No; 2] = [
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than any that makes sense here."),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is sent as something else than JSON."),
];

/// The document before anything is in it.
pub(super) fn beginning() -> OpenApi {
    let mut info = Info::new("Portcullis admin API", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "What is seen of a running gateway, and what can be changed in it. It answers on a loopback address, on a socket of the \
         file system, or over TLS to those who show the token or a certificate."
            .to_owned(),
    );
    let mut token = Http::new(HttpAuthScheme::Bearer);
    token.description = Some("The token of `admin` in gateway.yaml.".to_owned());
    let mut components = Components::new();
    components.add_security_scheme(TOKEN, SecurityScheme::Http(token));
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    let mut document = OpenApi::new(info, Paths::new());
    document.components = Some(components);
    document
}

/// Lets in those who have the token, and says so. `more` is what else these calls may be answered with.
pub(super) fn guarded<S: Clone + Send + Sync + 'static>(
    mut router: OpenApiRouter<S>,
    gateway: Weak<Gateway>,
    more: &[No],
) -> OpenApiRouter<S> {
    for operation in operations(router.get_openapi_mut()) {
        operation.security = Some(vec![SecurityRequirement::new(TOKEN, [] as [&str; 0])]);
        let with_body: &[No] = if operation.request_body.is_some() { &WITH_BODY } else { &[] };
        GUARDED.iter().chain(more).chain(with_body).for_each(|no| say(operation, *no));
    }
    router.route_layer(middleware::from_fn_with_state(gateway, token_only))
}

/// The routes, with the document in reach of [`show`].
pub(super) fn finished(router: OpenApiRouter) -> Router {
    let (router, mut document) = router.split_for_parts();
    operations(&mut document).for_each(|operation| {
        say(operation, NOT_HERE);
        say(operation, NOT_KNOWN);
    });
    // Maps with texts as keys: it cannot fail to be JSON.
    let text = serde_json::to_vec(&document).unwrap_or_default();
    router.layer(Extension(Document(text.into())))
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    let items = document.paths.paths.values_mut();
    items.flat_map(|item| [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete]).flatten()
}

/// Adds an answer that says no, where nothing is said of that status.
fn say(operation: &mut Operation, (status, meaning): No) {
    operation.responses.responses.entry(status.as_str().to_owned()).or_insert_with(|| {
        let mut answer = Answer::new(meaning);
        let problem = Content::new(Some(Ref::from_schema_name(Problem::name())));
        answer.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(problem));
        RefOr::T(answer)
    });
}

/// The document as it is sent.
#[derive(Clone)]
pub(super) struct Document(Bytes);

/// What the admin API can do: this document. It tells nothing of this gateway, so nobody needs a token for it.
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "showOpenApi", tag = "about",
    responses((status = 200, description = "The document.", body = Object, content_type = "application/json")),
)]
pub(super) async fn show(Extension(Document(text)): Extension<Document>) -> Response {
    answer(StatusCode::OK, ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text))
}
