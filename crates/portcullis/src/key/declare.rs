//! `portcullis key create --declare`: makes an API key and the line that declares it.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use portcullis_authn::{KeyHash, generate_key, hash_key};
use portcullis_gateway::Environment;
use serde_json::json;

use super::Create;
use crate::output::{self, Format};
use crate::report::{self, Look};

/// What the key is called, and when and where it counts, as its line will say.
#[derive(clap::Args, Default)]
pub(super) struct Terms {
    /// What the key is called in logs and headers, among the keys of its client; no secret
    #[arg(long, value_name = "NAME", value_parser = key_name)]
    name: Option<String>,
    /// From when on it counts: a day such as 2027-06-30, or a moment such as 2027-06-30T12:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    not_before: Option<String>,
    /// From when on it no longer counts
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    expires: Option<String>,
    /// An API it may be used at, by name; repeat for several. All, where none is named
    #[arg(long, value_name = "NAME", value_parser = api_name)]
    api: Vec<String>,
    /// A network it may be used from; repeat for several. All, where none is named
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    from: Vec<String>,
}

impl Terms {
    /// The keys of the line, as YAML and as JSON write them.
    pub(super) fn entries(&self) -> Vec<(&'static str, serde_json::Value)> {
        let mut entries = Vec::new();
        entries.extend(self.name.as_ref().map(|name| ("name", json!(name))));
        entries.extend(self.not_before.as_ref().map(|when| ("not_before", json!(when))));
        entries.extend(self.expires.as_ref().map(|when| ("expires", json!(when))));
        entries.extend((!self.api.is_empty()).then(|| ("apis", json!(self.api))));
        entries.extend((!self.from.is_empty()).then(|| ("from", json!(self.from))));
        entries
    }

    /// A key that ends before it begins would be refused by `check`.
    pub(super) fn are_possible(&self) -> bool {
        let second = |text: &Option<String>| text.as_deref().and_then(portcullis_authn::moment);
        match (second(&self.not_before), second(&self.expires)) {
            (Some(from), Some(end)) => from < end,
            _ => true,
        }
    }
}

pub(super) fn moment(text: &str) -> Result<String, String> {
    match portcullis_authn::moment(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("write a day such as 2027-06-30, or a moment such as 2027-06-30T12:00:00Z".to_owned()),
    }
}

fn api_name(text: &str) -> Result<String, String> {
    short_name(text).ok_or_else(|| "an API's name has at most 64 letters, digits, `-`, `_` or `.`".to_owned())
}

fn key_name(text: &str) -> Result<String, String> {
    short_name(text)
        .ok_or_else(|| "a key's name here has at most 64 letters, digits, `-`, `_` or `.`".to_owned())
}

fn short_name(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!text.is_empty() && text.len() <= 64 && text.bytes().all(plain)).then(|| text.to_owned())
}

fn network(text: &str) -> Result<String, String> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "0"));
    if address.parse::<std::net::IpAddr>().is_ok() && prefix.parse::<u8>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("write an address, or a network such as 192.0.2.0/24".to_owned())
    }
}

/// A name that needs no quotes in a policy file.
pub(super) fn client_name(text: &str) -> Result<String, String> {
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
pub(super) fn declare(create: &Create) -> anyhow::Result<ExitCode> {
    let policies = &create.gateway.policies;
    let found = portcullis_gateway::pepper(policies, &Environment::of_process());
    let pepper = found.map_err(|none| {
        output::say(&report::human(&none.faults, &none.sources, Look::of(&std::io::stderr())));
        anyhow!("no key was made: `{}` has no pepper that can be used", policies.display())
    })?;
    if !create.terms.are_possible() {
        return Err(anyhow!("no key was made: it would end before it begins to count"));
    }
    let key = generate_key().context("cannot make a key")?;
    let hash = hash_key(&pepper, &key);
    output::print(&shown(create, &key, &hash))?;
    Ok(ExitCode::SUCCESS)
}

fn shown(create: &Create, key: &str, hash: &KeyHash) -> String {
    let client = &create.client;
    let terms = create.terms.entries();
    match create.gateway.format {
        Format::Json => {
            let mut object = json!({ "client": client, "key": key, "hash": hash.to_string() });
            if let Some(object) = object.as_object_mut() {
                object.extend(terms.into_iter().map(|(name, value)| (name.to_owned(), value)));
            }
            format!("{object}\n")
        }
        Format::Human => {
            // JSON is YAML too.
            let terms: String = terms.iter().map(|(name, value)| format!(", {name}: {value}")).collect();
            format!(
                "\
{key}

This is the key. It is shown once and stored nowhere. To let it count, put its hash among the credentials of the
client, in a file of clients/:

clients:
  {client}:
    credentials:
      - api_key: {{ hash: \"{hash}\"{terms} }}
"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Create, Terms, client_name, moment, network, shown};
    use crate::admin_client::OfGateway;
    use crate::output::Format;
    use portcullis_authn::{KeyHash, hash_key};
    use portcullis_core::Secret;

    fn create(format: Format) -> Create {
        let gateway = OfGateway { policies: "policies".into(), admin: None, format };
        Create { client: "acme".to_owned(), declare: true, terms: Terms::default(), gateway }
    }

    fn hash() -> KeyHash {
        hash_key(&Secret::new(vec![7; 32]), "pc_example")
    }

    #[test]
    fn the_key_is_printed_with_the_line_that_declares_it() {
        let hash = hash();
        assert_eq!(
            shown(&create(Format::Human), "pc_example", &hash),
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
        let text = shown(&create(Format::Json), "pc_example", &hash);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({ "client": "acme", "key": "pc_example", "hash": hash.to_string() })
        );
    }

    /// KEY-02.
    #[test]
    fn what_the_key_is_for_is_said_in_its_line() {
        let terms = Terms {
            name: Some("2027".to_owned()),
            not_before: Some("2027-01-01".to_owned()),
            expires: Some("2028-01-01T12:00:00Z".to_owned()),
            api: vec!["orders".to_owned(), "stock".to_owned()],
            from: vec!["192.0.2.0/24".to_owned()],
        };
        assert!(terms.are_possible());
        let create = Create { terms, ..create(Format::Human) };
        let hash = hash();
        let line = format!(
            "      - api_key: {{ hash: \"{hash}\", name: \"2027\", not_before: \"2027-01-01\", expires: \"2028-01-01T12:00:00Z\", apis: \
             [\"orders\",\"stock\"], from: [\"192.0.2.0/24\"] }}\n"
        );
        let text = shown(&create, "pc_example", &hash);
        assert!(text.ends_with(&line), "{text}");
        let turned = Terms {
            not_before: Some("2028-01-01".to_owned()),
            expires: Some("2027-01-01".to_owned()),
            ..Terms::default()
        };
        assert!(!turned.are_possible());
        assert!(moment("2027-02-30").is_err() && moment("tomorrow").is_err());
        assert!(
            network("acme").is_err() && network("10.0.0.0/x").is_err() && network("2001:db8::/32").is_ok()
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
