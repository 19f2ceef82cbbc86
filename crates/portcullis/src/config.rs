//! `portcullis config`: each effective setting of `gateway.yaml`, and where it comes from.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use portcullis_core::Diagnostic;
use portcullis_gateway::{Environment, Loaded, Setting, effective_settings};
use serde_json::{Value, json};

use crate::output::{self, Format};
use crate::report::{self, Look, Tally};

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

/// Prints the settings. A secret is printed as the reference to it. A setting that is wrong is shown as `check`
/// shows it, on standard error.
///
/// # Errors
/// There is no `gateway.yaml` that can be read as YAML.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let environment = Environment::of_process();
    let settings = effective_settings(&arguments.policies, &environment);
    let Loaded { sources, faults, .. } = portcullis_gateway::load(&arguments.policies, &environment);
    let of_settings =
        |fault: &Diagnostic| fault.place.is_none_or(|place| is_setting(sources.name(place.file)));
    let faults: Vec<_> = faults.into_iter().filter(of_settings).collect();
    output::say(&report::human(&faults, &sources, Look::of(&std::io::stderr())));
    if settings.is_empty() {
        bail!("no settings can be read from `{}`", arguments.policies.display());
    }
    output::print(&match arguments.format {
        Format::Human => human(&settings),
        Format::Json => machine(&settings),
    })?;
    Ok(if Tally::of(&faults).errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether settings come from this file. What an API file says is for `check` to judge.
fn is_setting(file: &str) -> bool {
    matches!(file, "gateway.yaml" | "environment")
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
