//! The data path: listeners, snapshot, stages, stack.
//!
//! Start reading at `stack.rs`: it lists what happens to a request, in order.

// The fuzz targets' bodies name this crate as the fuzzer sees it.
#[cfg(test)]
extern crate self as portcullis_gateway;

mod access_log;
#[cfg(test)]
mod allocation_tests;
mod body;
mod caching;
mod config;
mod content;
mod denials;
mod events;
mod exchange;
mod forward;
mod host;
mod ledger;
pub mod listener;
mod managed;
mod passage;
mod path;
mod quota_alerts;
mod readiness;
mod registering;
pub mod rehearsal;
mod reload;
mod request_body;
mod revocation;
mod route_table;
mod run;
#[cfg(test)]
mod seed_tests;
mod snapshot;
mod stack;
mod stage;
mod stages;
mod telemetry;
mod thread;
mod unread;
mod usage_of;
mod worker;

pub use config::{
    AdminAccess, Environment, FileSummary, Loaded, NotToBeHad, Plan, ReloadWhen, Setting, Settings, Shutdown,
    SourceMap, admin_access, effective_settings, load, load_texts, pepper,
};
pub use denials::{Denial, DenialFilter};
pub use events::EventKind;
pub use listener::admin_door::{AdminCertificate, AdminDoor, AdminStream, Shown};
pub use listener::{Expiry, ExpiryKind};
pub use managed::{
    ApiKeyChange, ApiKeyError, ApiKeyView, KeyState, ManagedApiKeys, NewApiKey, RestoreError, RevokeError,
};
pub use path::is_normal_path;
pub use readiness::Check;
pub use registering::{ClientError, ClientView};
pub use reload::{NotReloaded, Reloaded};
pub use run::{Gateway, Options, StartError};
pub use telemetry::{Kind as MetricKind, METRICS};
pub use usage_of::{ApiLimits, Caller, CallerUsage, UsageError};
