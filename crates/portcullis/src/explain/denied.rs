//! Why the running gateway refused a request.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::anyhow;
use http::Method;
use portcullis_core::Reason;
use serde_json::Value;

use crate::admin_client::{AdminClient, OfGateway};
use crate::output::{self, Format};

/// The id of a request, as it is written.
pub(super) fn request_id(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (plain && !text.is_empty()).then(|| text.to_owned()).ok_or_else(|| {
        "a request's id is hexadecimal digits and `-`, such as 019a0b1c-2d3e-7f40-8a5b-6c7d8e9f0a1b"
            .to_owned()
    })
}

/// Asks the gateway and tells what it remembers.
///
/// # Errors
/// The policies do not say how the gateway is reached, there is none, or it does not remember the request.
pub(super) fn explain(request_id: Option<&str>, of: &OfGateway) -> anyhow::Result<ExitCode> {
    let gateway = AdminClient::of(of)?;
    let denial = match request_id {
        Some(id) => gateway.call(Method::GET, &format!("/v1/denials/{id}"), None)?,
        None => {
            let last = gateway.call(Method::GET, "/v1/denials?limit=1", None)?;
            let last = last.get("denials").and_then(|denials| denials.get(0)).cloned();
            last.ok_or_else(|| anyhow!("the gateway has refused nothing since it started"))?
        }
    };
    let text = match of.format {
        Format::Json => format!("{denial}\n"),
        Format::Human => told(&denial),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The refusal, in the order in which a request meets what may refuse it.
fn told(denial: &Value) -> String {
    let text = |field: &str| denial.get(field).and_then(Value::as_str);
    let number = |field: &str| denial.get(field).and_then(Value::as_f64);
    let mut lines = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(lines, "{name:<10}{value}");
    };
    line("request", &format!("{} {}", text("method").unwrap_or("?"), text("path").unwrap_or("?")));
    line("id", text("request_id").unwrap_or("?"));
    line("at", text("ts").unwrap_or("?"));
    let (listener, client) = (text("listener").unwrap_or("?"), text("client").unwrap_or("?"));
    line("came to", &format!("{listener}, from {client}"));
    line("api", text("api").unwrap_or("none: not reached, or no API serves it"));
    if let Some(certificate) = text("cert") {
        line("cert", &format!("SHA-256 begins with {certificate}"));
    }
    line("caller", &caller(text("identity"), text("auth"), text("key_id")));
    line("rule", text("rule").unwrap_or("none: not reached, or none fits"));
    if let Some(limit) = text("limit") {
        line("limit", limit);
    }
    if let Some(trial) = text("shadow") {
        line("shadow", trial);
    }
    let status = number("status").unwrap_or_default();
    let decision = text("decision").unwrap_or("deny").to_uppercase();
    let reason = text("reason");
    line("=>", &format!("{decision} {status} {}", reason.unwrap_or_default()));
    if let Some(told) = reason.and_then(|code| Reason::ALL.iter().find(|reason| reason.code() == code)) {
        line("told", told.title());
    }
    line("why", text("detail").unwrap_or("the reason says it all"));
    line("took", &format!("{} ms", number("total_ms").unwrap_or_default()));
    line("config", text("config").unwrap_or("?"));
    lines
}

fn caller(identity: Option<&str>, auth: Option<&str>, key_id: Option<&str>) -> String {
    let Some(identity) = identity else { return "nobody was proven".to_owned() };
    let by = auth.map(|auth| format!(", by {auth}")).unwrap_or_default();
    let key = key_id.map(|key| format!(", key {key}")).unwrap_or_default();
    format!("{identity}{by}{key}")
}

#[cfg(test)]
mod tests {
    use super::{request_id, told};
    use serde_json::json;

    #[test]
    fn a_refusal_is_told_from_the_door_to_the_reason() {
        let text = told(&json!({
            "ts": "2026-11-26T12:00:00.123Z", "level": "warn", "request_id": "019a-1", "listener": "public",
            "api": "open-banking", "rule": null, "method": "GET", "path": "/open-banking/*", "status": 401,
            "decision": "deny", "reason": "certificate_mismatch", "detail": "the token is bound to another certificate",
            "identity": null, "auth": null, "cert": "00112233", "client": "192.0.2.1", "gateway_ms": 0.2,
            "total_ms": 0.21, "out": 0, "config": "5fbbb8c90f33",
        }));
        assert_eq!(
            text,
            "\
request   GET /open-banking/*
id        019a-1
at        2026-11-26T12:00:00.123Z
came to   public, from 192.0.2.1
api       open-banking
cert      SHA-256 begins with 00112233
caller    nobody was proven
rule      none: not reached, or none fits
=>        DENY 401 certificate_mismatch
told      The credential is not bound to this certificate.
why       the token is bound to another certificate
took      0.21 ms
config    5fbbb8c90f33
"
        );
        assert!(request_id("019a0b1c-2d3e").is_ok());
        for wrong in ["", "a b", "../keys", "x"] {
            assert!(request_id(wrong).is_err(), "{wrong}");
        }
    }
}
