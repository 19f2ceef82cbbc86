//! `/v1/config`, `/v1/reload` and `/v1/drain`: the configuration in force, and how it is replaced, or ends.

use std::sync::Weak;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use portcullis_gateway::{Environment, EventKind, Gateway, NotReloaded, Reloaded, effective_settings};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::{Action, Made, change, look};
use super::openapi::{No, guarded};
use super::problem::Refusal;
use super::{Admin, answer, refused_calls};
use crate::{reload, report};

/// What else a reload may be answered with.
const NOT_GOOD: [No; 1] = [(
    StatusCode::UNPROCESSABLE_ENTITY,
    "Something is wrong with the files, or needs a restart; `faults` says what, as `portcullis check --format json` does. What \
     was in force stays in force.",
)];

/// The service.
pub(super) fn router(admin: Admin) -> OpenApiRouter {
    let gateway = admin.gateway.clone();
    let reading = guarded(OpenApiRouter::new().routes(routes!(show)), gateway.clone(), &[]);
    let reloading = guarded(OpenApiRouter::new().routes(routes!(reload_now)), gateway.clone(), &NOT_GOOD);
    let ending = guarded(OpenApiRouter::new().routes(routes!(drain)), gateway, &[]);
    let all =
        reading.with_state(admin.gateway.clone()).merge(reloading.merge(ending).with_state(admin.clone()));
    all.layer(axum::middleware::from_fn_with_state(admin, refused_calls::write_down))
}

/// The configuration in force.
#[derive(Serialize, ToSchema)]
struct Config {
    /// Changes when any policy file, key, certificate or secret changes.
    hash: String,
    /// Number of APIs.
    apis: usize,
    /// The settings of gateway.yaml as they are written now; of a secret, the reference to it.
    settings: Vec<Setting>,
}

/// A setting, and where it comes from.
#[derive(Serialize, ToSchema)]
struct Setting {
    key: String,
    value: String,
    source: String,
}

/// The configuration in force.
#[utoipa::path(
    get, path = "/v1/config", operation_id = "showConfig", tag = "configuration",
    responses((status = 200, description = "It.", body = Config)),
)]
async fn show(State(gateway): State<Weak<Gateway>>) -> Response {
    let seen = |gateway: &Gateway| {
        let (directory, environment): (_, &Environment) = gateway.place();
        let settings = effective_settings(directory, environment).into_iter();
        let settings = settings.map(|setting| Setting {
            key: setting.key,
            value: setting.value,
            source: setting.source,
        });
        Ok::<_, NotGood>(Config {
            hash: gateway.config_hash().to_string(),
            apis: gateway.api_count(),
            settings: settings.collect(),
        })
    };
    look(&gateway, seen).await
}

/// What has come of a reload.
#[derive(Serialize, ToSchema)]
struct Outcome {
    /// The hash of the configuration in force.
    hash: String,
    /// Whether it is another one than before.
    changed: bool,
    /// Number of APIs.
    apis: usize,
    /// Milliseconds from the first file to the last worker.
    took_ms: u64,
}

/// Why it stays as it was.
#[derive(Debug, thiserror::Error)]
#[error("the policies are not good; those before stay in force")]
struct NotGood(Value);

impl Refusal for NotGood {
    fn refusal(&self) -> (StatusCode, &'static str) {
        (StatusCode::UNPROCESSABLE_ENTITY, "policies_not_good")
    }

    fn faults(&self) -> Option<&Value> {
        Some(&self.0)
    }
}

impl From<Box<NotReloaded>> for NotGood {
    fn from(why: Box<NotReloaded>) -> Self {
        let NotReloaded { sources, faults } = *why;
        // Texts and numbers: it cannot fail to be JSON.
        Self(serde_json::to_value(report::findings(&faults, &sources)).unwrap_or_default())
    }
}

/// Reads the policies again and puts them in force, if nothing is wrong with them.
#[utoipa::path(
    post, path = "/v1/reload", operation_id = "reload", tag = "configuration",
    responses((status = 200, description = "They are in force, or were already.", body = Outcome)),
)]
async fn reload_now(State(admin): State<Admin>) -> Response {
    let action = Action { kind: EventKind::ConfigChanged, name: "policies reloaded", takes: false };
    change(&admin, action, "policies".to_owned(), |gateway| {
        let Reloaded { hash, is_other, apis, took } =
            reload::reload(gateway, "the admin API").map_err(NotGood::from)?;
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let outcome = Outcome { hash: hash.to_string(), changed: is_other, apis, took_ms };
        let note = is_other.then(|| hash.to_string());
        Ok::<_, NotGood>(Made { answer: answer(StatusCode::OK, Json(outcome)), note })
    })
    .await
}

/// What a drain is answered with.
#[derive(Serialize, ToSchema)]
struct Draining {
    draining: bool,
}

/// Ends the gateway in good order, as SIGTERM does: `/readyz` says no from now on, connections are taken for the lame-duck
/// time, requests in flight are answered, and the process ends.
#[utoipa::path(
    post, path = "/v1/drain", operation_id = "drain", tag = "configuration",
    responses((status = 202, description = "It begins.", body = Draining)),
)]
async fn drain(State(admin): State<Admin>) -> Response {
    let action = Action { kind: EventKind::ConfigChanged, name: "drain begun", takes: true };
    let ending = std::sync::Arc::clone(&admin.ending);
    change(&admin, action, "gateway".to_owned(), move |_| {
        ending.notify_one();
        let note = Some("asked for over the admin API".to_owned());
        Ok::<_, NotGood>(Made {
            answer: answer(StatusCode::ACCEPTED, Json(Draining { draining: true })),
            note,
        })
    })
    .await
}
