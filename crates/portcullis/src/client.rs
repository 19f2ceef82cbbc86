//! `portcullis client`: callers that are registered in the running gateway, and looked after.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use http::Method;
use serde_json::{Map, Value, json};

use crate::admin_client::{AdminClient, OfGateway};
use crate::output;

/// Arguments of `client`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Register a client in the running gateway
    Create(Create),
    /// List all clients, those of the policy files among them
    List(OfGateway),
    /// Show one of them
    Show(One),
    /// Change a registered client
    Change(Change),
    /// Remove a registered client, and its API keys with it
    Remove(One),
}

#[derive(clap::Args)]
struct Create {
    #[command(flatten)]
    said: Said,
    #[command(flatten)]
    one: One,
}

#[derive(clap::Args)]
struct Change {
    #[command(flatten)]
    said: Said,
    /// Let it count again
    #[arg(long, conflicts_with = "disabled")]
    enabled: bool,
    /// Let it have no end any more
    #[arg(long, conflicts_with = "expires")]
    no_end: bool,
    #[command(flatten)]
    one: One,
}

/// What is said of a client.
#[derive(clap::Args)]
struct Said {
    /// A plan it has; all of them are said together
    #[arg(long = "plan", value_name = "NAME")]
    plans: Vec<String>,
    /// An attribute, such as tier=gold; all of them are said together. Numbers, true and false are what they look like
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Value)>,
    /// When it ends: a day, or a moment with its offset
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Let it count no more, and keep it
    #[arg(long)]
    disabled: bool,
    /// A JSON file with what else would stand under its name in a file of clients, such as credentials; - is standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

#[derive(clap::Args)]
struct One {
    /// The name of the client
    name: String,
    #[command(flatten)]
    gateway: OfGateway,
}

/// Does what was asked for.
///
/// # Errors
/// The policies do not say how the gateway is reached, there is none, or it says no.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.verb {
        Verb::Create(Create { said, one }) => {
            let mut record = said.record()?;
            record.insert("name".to_owned(), one.name.as_str().into());
            let made = call(&one.gateway, Method::POST, "/v1/clients", Some(&Value::Object(record)))?;
            let how =
                "make a key with `portcullis key create --client`, or give it credentials with `--from`";
            output::answer(one.gateway.format, &made, &format!("{} is registered; {how}\n", one.name))
        }
        Verb::List(gateway) => {
            let answer = call(gateway, Method::GET, "/v1/clients", None)?;
            output::answer(gateway.format, &answer, &table(&answer))
        }
        Verb::Show(one) => {
            let answer = call(&one.gateway, Method::GET, &path_of(one), None)?;
            output::answer(one.gateway.format, &answer, &members(&answer))
        }
        Verb::Change(Change { said, enabled, no_end, one }) => {
            let mut record = said.record()?;
            if *enabled {
                record.insert("disabled".to_owned(), Value::Null);
            }
            if *no_end {
                record.insert("expires".to_owned(), Value::Null);
            }
            let changed = call(&one.gateway, Method::PATCH, &path_of(one), Some(&Value::Object(record)))?;
            output::answer(one.gateway.format, &changed, &members(&changed))
        }
        Verb::Remove(one) => {
            let removed = call(&one.gateway, Method::DELETE, &path_of(one), None)?;
            output::answer(
                one.gateway.format,
                &removed,
                &format!("{} is nobody any more, and neither are its keys\n", one.name),
            )
        }
    }
}

impl Said {
    fn record(&self) -> anyhow::Result<Map<String, Value>> {
        let mut record = match &self.from {
            None => Map::new(),
            Some(path) => read(path)?,
        };
        if !self.plans.is_empty() {
            record.insert("plans".to_owned(), json!(self.plans));
        }
        if !self.attributes.is_empty() {
            record.insert("attributes".to_owned(), Value::Object(self.attributes.iter().cloned().collect()));
        }
        if let Some(expires) = &self.expires {
            record.insert("expires".to_owned(), expires.as_str().into());
        }
        if self.disabled {
            record.insert("disabled".to_owned(), true.into());
        }
        Ok(record)
    }
}

fn read(path: &PathBuf) -> anyhow::Result<Map<String, Value>> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("standard input cannot be read")?
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    let read: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    match read {
        Value::Object(record) => Ok(record),
        _ => Err(anyhow!("{} holds something else than an object", path.display())),
    }
}

fn attribute(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as tier=gold")?;
    let value = match serde_json::from_str(value) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
        _ => value.into(),
    };
    Ok((name.to_owned(), value))
}

fn call(gateway: &OfGateway, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    AdminClient::of(gateway)?.call(method, path, body)
}

/// Its name may hold what means something in a path.
fn path_of(one: &One) -> String {
    let mut path = "/v1/clients/".to_owned();
    for byte in one.name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

fn text(value: &Value, member: &str) -> String {
    match value.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let texts = items.iter().map(|item| match item {
                Value::String(text) => text.clone(),
                other => {
                    other.get("kind").and_then(Value::as_str).map_or_else(|| other.to_string(), str::to_owned)
                }
            });
            texts.collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    }
}

fn table(answer: &Value) -> String {
    let clients = answer.get("clients").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let state = |client: &Value| match client.get("disabled").and_then(Value::as_bool) {
        Some(true) => "disabled".to_owned(),
        _ => "-".to_owned(),
    };
    let row = |client: &Value| {
        [
            text(client, "name"),
            text(client, "from"),
            text(client, "plans"),
            text(client, "expires"),
            state(client),
        ]
    };
    let mut rows = vec![["NAME", "FROM", "PLANS", "EXPIRES", "STATE"].map(str::to_owned)];
    rows.extend(clients.iter().map(row));
    output::table(&rows)
}

fn members(client: &Value) -> String {
    let members = client.as_object().into_iter().flatten();
    members.fold(String::new(), |mut lines, (name, _)| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(lines, "{name:<12} {}", text(client, name));
        lines
    })
}

#[cfg(test)]
mod tests {
    use super::{attribute, table};
    use serde_json::json;

    #[test]
    fn clients_are_a_table() {
        let clients = json!({ "clients": [
            { "name": "acme", "from": "registered", "plans": ["gold", "eu"], "expires": "2027-06-30", "disabled": true },
            { "name": "initech", "from": "declared" },
        ]});
        assert_eq!(
            table(&clients),
            "\
NAME     FROM        PLANS     EXPIRES     STATE
acme     registered  gold, eu  2027-06-30  disabled
initech  declared    -         -           -
"
        );
        assert_eq!(attribute("tier=gold"), Ok(("tier".to_owned(), json!("gold"))));
        assert_eq!(attribute("limit=5"), Ok(("limit".to_owned(), json!(5))));
        assert!(attribute("tier").is_err());
    }
}
