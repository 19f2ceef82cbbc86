//! `portcullis config`: each effective setting of `gateway.yaml`, and where it comes from.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use portcullis_gateway::{Environment, Setting, effective_settings};
use serde_json::{Value, json};

use crate::output::{self, Format};

/// Arguments of `config`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The policy directory
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints the settings. A secret is printed as the reference to it.
///
/// # Errors
/// There is no `gateway.yaml` that can be read as YAML.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = effective_settings(&arguments.policies, &Environment::of_process());
    if settings.is_empty() {
        let directory = arguments.policies.display();
        bail!(
            "no settings can be read from `{directory}/gateway.yaml`: `portcullis check {directory}` says why"
        );
    }
    output::print(&match arguments.format {
        Format::Human => human(&settings),
        Format::Json => machine(&settings),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn human(settings: &[Setting]) -> String {
    let width = |of: fn(&Setting) -> &str| settings.iter().map(|setting| of(setting).chars().count()).max();
    let keys = width(|setting| &setting.key).unwrap_or_default();
    let values = width(|setting| &setting.value).unwrap_or_default();
    let lines = settings
        .iter()
        .map(|Setting { key, value, source }| format!("{key:<keys$}   {value:<values$}   {source}\n"));
    lines.collect()
}

fn machine(settings: &[Setting]) -> String {
    let list: Vec<Value> = settings
        .iter()
        .map(|Setting { key, value, source }| json!({ "key": key, "value": value, "source": source }))
        .collect();
    format!("{:#}\n", Value::Array(list))
}

#[cfg(test)]
mod tests {
    use super::{human, machine};
    use portcullis_gateway::Setting;

    fn settings() -> Vec<Setting> {
        [
            ("listen.public.address", "0.0.0.0:443", "environment PORTCULLIS_LISTEN__PUBLIC__ADDRESS"),
            ("api_keys.pepper.file", "secrets/pepper", "gateway.yaml:9:30"),
            ("workers", "2", "default"),
        ]
        .map(|(key, value, source)| Setting { key: key.into(), value: value.into(), source: source.into() })
        .into()
    }

    #[test]
    fn settings_are_listed_in_columns_with_their_source() {
        assert_eq!(
            human(&settings()),
            "\
listen.public.address   0.0.0.0:443      environment PORTCULLIS_LISTEN__PUBLIC__ADDRESS
api_keys.pepper.file    secrets/pepper   gateway.yaml:9:30
workers                 2                default
"
        );
    }

    #[test]
    fn machines_get_a_list_of_objects() {
        let value: serde_json::Value = serde_json::from_str(&machine(&settings())).expect("JSON");
        assert_eq!(value[2], serde_json::json!({ "key": "workers", "value": "2", "source": "default" }));
    }
}
