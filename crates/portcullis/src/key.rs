//! `portcullis key create`: makes an API key and the line that declares it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use portcullis_authn::{KeyHash, generate_key, hash_key};
use portcullis_gateway::Environment;
use serde_json::json;

use crate::output::{self, Format};
use crate::report::{self, Look};

/// Arguments of `key`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make an API key, print it once, and print the line that declares it
    Create(Create),
}

#[derive(clap::Args)]
struct Create {
    /// The policy directory whose gateway.yaml names the pepper
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// The client the key is for
    #[arg(long, value_name = "NAME", value_parser = client_name)]
    client: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A name that needs no quotes in a policy file.
fn client_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.len() <= 255
        && text.bytes().all(plain)
    {
        Ok(text.to_owned())
    } else {
        Err("a client's name here is a letter, then letters, digits, `-`, `_` or `.`".to_owned())
    }
}

/// Makes the key. It is stored nowhere: who loses it makes another.
///
/// # Errors
/// There is no pepper to be had, or no randomness.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Verb::Create(create) = &arguments.verb;
    let found = portcullis_gateway::pepper(&create.policies, &Environment::of_process());
    let pepper = found.map_err(|none| {
        output::say(&report::human(&none.faults, &none.sources, Look::of(&std::io::stderr())));
        anyhow!("no key was made: `{}` has no pepper that can be used", create.policies.display())
    })?;
    let key = generate_key().context("cannot make a key")?;
    let hash = hash_key(&pepper, &key);
    output::print(&shown(&create.client, &key, &hash, create.format))?;
    Ok(ExitCode::SUCCESS)
}

fn shown(client: &str, key: &str, hash: &KeyHash, format: Format) -> String {
    match format {
        Format::Json => format!("{}\n", json!({ "client": client, "key": key, "hash": hash.to_string() })),
        Format::Human => format!(
            "\
{key}

This is the key. It is shown once and stored nowhere. To let it count, put its hash among the credentials of the
client, in a file of clients/:

clients:
  {client}:
    credentials:
      - api_key: {{ hash: \"{hash}\" }}
"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{client_name, shown};
    use crate::output::Format;
    use portcullis_authn::{KeyHash, hash_key};
    use portcullis_core::Secret;

    fn hash() -> KeyHash {
        hash_key(&Secret::new(vec![7; 32]), "pc_example")
    }

    #[test]
    fn the_key_is_printed_with_the_line_that_declares_it() {
        let hash = hash();
        assert_eq!(
            shown("acme", "pc_example", &hash, Format::Human),
            format!(
                "\
pc_example

This is the key. It is shown once and stored nowhere. To let it count, put its hash among the credentials of the
client, in a file of clients/:

clients:
  acme:
    credentials:
      - api_key: {{ hash: \"{hash}\" }}
"
            )
        );
    }

    #[test]
    fn machines_get_one_object() {
        let hash = hash();
        let text = shown("acme", "pc_example", &hash, Format::Json);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({ "client": "acme", "key": "pc_example", "hash": hash.to_string() })
        );
    }

    #[test]
    fn the_printed_hash_is_that_of_the_printed_key() {
        let text = hash().to_string();
        assert!(text.starts_with("pk1:"), "{text}");
        assert_eq!(text.parse::<KeyHash>(), Ok(hash()));
    }

    #[test]
    fn names_that_would_need_quotes_are_refused() {
        for name in ["acme", "acme-2", "a.b_c"] {
            assert_eq!(client_name(name).as_deref(), Ok(name));
        }
        for name in ["", "1acme", "two words", "a: b", "ä", "-x"] {
            assert!(client_name(name).is_err(), "{name}");
        }
    }
}
