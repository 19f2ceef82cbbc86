//! `/v1/clients`: callers that are registered, changed and removed while the gateway runs.

use std::sync::Weak;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::{Json, middleware};
use http::StatusCode;
use http::header::HeaderMap;
use portcullis_gateway::{ClientError, ClientView, EventKind, Gateway};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::{Action, Made, change, look, not_json};
use super::openapi::{No, guarded};
use super::problem::{Refusal, problem};
use super::{Admin, answer, refused_calls};
use crate::report;

/// The largest body: a thousand clients.
const MOST_BYTES: usize = 8 << 20;
/// How many may be registered in one call.
const MOST_AT_ONCE: usize = 1_000;

const MORE: [No; 2] = [
    (
        StatusCode::CONFLICT,
        "It contradicts what is there: a client of that name is registered or declared, or nothing is kept here.",
    ),
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        "The client does not fit the policies; `faults` says what is wrong, as `portcullis check --format json` does.",
    ),
];

/// The service.
pub(super) fn router(admin: Admin) -> OpenApiRouter {
    let router = OpenApiRouter::new()
        .routes(routes!(list, register))
        .routes(routes!(show, alter, remove))
        .layer(DefaultBodyLimit::max(MOST_BYTES));
    guarded(router, admin.gateway.clone(), &MORE)
        .route_layer(middleware::from_fn_with_state(admin.clone(), refused_calls::write_down))
        .with_state(admin)
}

/// A client to be registered. Everything but its name is as in a file of clients.
#[derive(Deserialize, ToSchema)]
struct NewClient {
    /// 1 to 255 printable characters.
    #[schema(example = "partner-17")]
    name: String,
    #[serde(flatten)]
    #[schema(inline)]
    record: ClientRecord,
}

/// What is said of a client: `plans`, `attributes`, `expires`, `disabled`, `credentials`.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(value_type = Object)]
struct ClientRecord(Map<String, Value>);

/// One or many.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum NewClients {
    Many(Vec<NewClient>),
    One(Box<NewClient>),
}

/// A client as it is seen.
#[derive(Serialize, ToSchema)]
struct Client {
    name: String,
    /// `declared` in the policy files, or `registered` over the admin API.
    from: &'static str,
    /// What was registered; of credentials, only their kinds.
    #[serde(flatten)]
    #[schema(value_type = Option<Object>)]
    record: Option<Value>,
}

/// All of them.
#[derive(Serialize, ToSchema)]
struct Clients {
    clients: Vec<Client>,
}

/// The names of those that were registered.
#[derive(Serialize, ToSchema)]
struct Registered {
    registered: Vec<String>,
}

impl From<ClientView> for Client {
    fn from(view: ClientView) -> Self {
        let from = if view.is_declared { "declared" } else { "registered" };
        Self { name: view.name, from, record: view.record }
    }
}

/// Why a call about clients is refused.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
struct Refused {
    error: ClientError,
    faults: Option<Value>,
}

impl From<ClientError> for Refused {
    fn from(error: ClientError) -> Self {
        let faults = match &error {
            ClientError::DoesNotFit(why) => {
                serde_json::to_value(report::findings(&why.faults, &why.sources)).ok()
            }
            _ => None,
        };
        Self { error, faults }
    }
}

impl Refusal for Refused {
    fn refusal(&self) -> (StatusCode, &'static str) {
        match &self.error {
            ClientError::Unknown => (StatusCode::NOT_FOUND, "unknown_client"),
            ClientError::Declared(_) => (StatusCode::CONFLICT, "declared_in_files"),
            ClientError::Exists(_) => (StatusCode::CONFLICT, "registered_already"),
            ClientError::Unfit(_) => (StatusCode::BAD_REQUEST, "unfit"),
            ClientError::DoesNotFit(_) => (StatusCode::UNPROCESSABLE_ENTITY, "does_not_fit"),
            ClientError::Full => (StatusCode::CONFLICT, "too_many_clients"),
            ClientError::NotKept => (StatusCode::CONFLICT, "no_store"),
            ClientError::ChangedElsewhere => (StatusCode::CONFLICT, "changed_elsewhere"),
            ClientError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            ClientError::InForceNotKept(_) => (StatusCode::SERVICE_UNAVAILABLE, "in_force_not_kept"),
        }
    }

    fn faults(&self) -> Option<&Value> {
        self.faults.as_ref()
    }

    fn is_in_force(&self) -> bool {
        matches!(self.error, ClientError::InForceNotKept(_))
    }
}

/// Lists every client.
#[utoipa::path(
    get, path = "/v1/clients", operation_id = "listClients", tag = "clients",
    responses((status = 200, description = "The clients, by name.", body = Clients)),
)]
async fn list(State(gateway): State<Weak<Gateway>>) -> Response {
    let seen = |gateway: &Gateway| {
        Ok::<_, Refused>(Clients { clients: gateway.clients().into_iter().map(Client::from).collect() })
    };
    look(&gateway, seen).await
}

/// Shows one of them.
#[utoipa::path(
    get, path = "/v1/clients/{client}", operation_id = "showClient", tag = "clients",
    params(("client" = String, Path, description = "The name of the client.")),
    responses((status = 200, description = "The client.", body = Client)),
)]
async fn show(State(gateway): State<Weak<Gateway>>, Path(client): Path<String>) -> Response {
    look(&gateway, move |gateway| Ok::<_, Refused>(Client::from(gateway.client(&client)?))).await
}

/// Registers a client, or a list of up to a thousand, all or none. They are in force, and kept, when it is answered.
#[utoipa::path(
    post, path = "/v1/clients", operation_id = "registerClients", tag = "clients", request_body = NewClients,
    responses((status = 201, description = "They are in force.", body = Registered)),
)]
async fn register(State(admin): State<Admin>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = not_json(&headers) {
        return refusal;
    }
    let clients = match serde_json::from_slice(&body) {
        Ok(NewClients::One(client)) => vec![*client],
        Ok(NewClients::Many(clients)) if (1..=MOST_AT_ONCE).contains(&clients.len()) => clients,
        Ok(NewClients::Many(_)) => {
            let how = format!("register 1 to {MOST_AT_ONCE} clients in one call");
            return problem(StatusCode::BAD_REQUEST, "unfit", &how);
        }
        Err(_) => {
            let how = "it is `{\"name\": …}` with what would stand in a file of clients, or a list of these";
            return problem(StatusCode::BAD_REQUEST, "unfit", how);
        }
    };
    let names: Vec<String> = clients.iter().map(|client| client.name.clone()).collect();
    let of = match names.as_slice() {
        [name] => name.clone(),
        names => format!("{} clients", names.len()),
    };
    let clients: Vec<_> = clients.into_iter().map(|client| (client.name, client.record.0)).collect();
    let make = move |gateway: &Gateway| {
        gateway.register(clients)?;
        let note = Some(names.join(", "));
        Ok::<_, Refused>(Made {
            answer: answer(StatusCode::CREATED, Json(Registered { registered: names })),
            note,
        })
    };
    let action = Action { kind: EventKind::ClientChanged, name: "client registered", takes: false };
    change(&admin, action, of, make).await
}

/// Changes a registered client: each member that is said takes the place of what it was, `null` takes it away.
#[utoipa::path(
    patch, path = "/v1/clients/{client}", operation_id = "changeClient", tag = "clients", request_body = ClientRecord,
    params(("client" = String, Path, description = "The name of the client.")),
    responses((status = 200, description = "The client as it is now.", body = Client)),
)]
async fn alter(
    State(admin): State<Admin>,
    Path(client): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refusal) = not_json(&headers) {
        return refusal;
    }
    let Ok(ClientRecord(changes)) = serde_json::from_slice(&body) else {
        return problem(StatusCode::BAD_REQUEST, "unfit", "it is an object of what is to be another");
    };
    let of = client.clone();
    let make = move |gateway: &Gateway| {
        let members = changes.keys().cloned().collect::<Vec<_>>().join(", ");
        let is_other = gateway.change_client(&client, changes)?;
        let view = Client::from(gateway.client(&client)?);
        Ok::<_, Refused>(Made {
            answer: answer(StatusCode::OK, Json(view)),
            note: is_other.then_some(members),
        })
    };
    let action = Action { kind: EventKind::ClientChanged, name: "client changed", takes: false };
    change(&admin, action, of, make).await
}

/// Removes a registered client, and its API keys with it.
#[utoipa::path(
    delete, path = "/v1/clients/{client}", operation_id = "removeClient", tag = "clients",
    params(("client" = String, Path, description = "The name of the client.")),
    responses((status = 200, description = "It is nobody any more.", body = Object)),
)]
async fn remove(State(admin): State<Admin>, Path(client): Path<String>) -> Response {
    let of = client.clone();
    let make = move |gateway: &Gateway| {
        gateway.remove_client(&client)?;
        let removed = Json(json!({ "removed": client }));
        let note = Some("it is nobody any more, and neither are its keys".to_owned());
        Ok::<_, Refused>(Made { answer: answer(StatusCode::OK, removed), note })
    };
    let action = Action { kind: EventKind::ClientChanged, name: "client removed", takes: true };
    change(&admin, action, of, make).await
}
