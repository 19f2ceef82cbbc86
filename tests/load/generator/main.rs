//! What the load benchmark needs beside the gateways: requests, an upstream, tokens.
//!
//! Everything runs on one thread, so that it can be pinned to one core.

use std::collections::HashMap;
use std::io::Write;

use anyhow::{Context as _, bail};

mod requests;
mod signed;
mod tokens;
mod upstream;

const USAGE: &str = "\
load upstream PORT
load tokens COUNT KEY.pem CLAIMS.json ALGORITHM      one token a line; {n} in a claim counts up
load signed hmac|signature COUNT HOST SECRET         the fields of one request a line, a tab between two
load signed dpop COUNT HOST KEY.pem CLAIMS.json      the same
load thumbprint CERTIFICATE.pem                      x5t#S256
load requests URL --seconds S [--connections N] [--rate PER_SECOND] [--close] [--ca PEM] [--cert PEM --key PEM]
              [--header 'name: value'] [--headers FILE]     JSON: count, statuses, latency in milliseconds";

/// Options by name, and the rest in order.
struct Arguments {
    options: HashMap<String, String>,
    rest: Vec<String>,
}

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut words = words.peekable();
        let (mut options, mut rest) = (HashMap::new(), Vec::new());
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                None => rest.push(word),
                Some("close") => {
                    options.insert("close".to_owned(), String::new());
                }
                Some(name) => {
                    let value = words.next().with_context(|| format!("--{name} needs a value"))?;
                    options.insert(name.to_owned(), value);
                }
            }
        }
        Ok(Self { options, rest })
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> anyhow::Result<Option<u64>> {
        self.option(name).map(|text| text.parse().with_context(|| format!("--{name} {text}"))).transpose()
    }

    fn at(&self, index: usize) -> anyhow::Result<&str> {
        self.rest.get(index).map(String::as_str).context(USAGE)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let said = match arguments.at(0)? {
        "upstream" => local.block_on(&runtime, upstream::serve(arguments.at(1)?.parse()?))?,
        "requests" => local.block_on(&runtime, requests::run(&arguments))?,
        "signed" => signed::signed(&arguments)?,
        "tokens" => tokens::tokens(&arguments)?,
        "thumbprint" => tokens::thumbprint(arguments.at(1)?)?,
        other => bail!("{other}?\n{USAGE}"),
    };
    writeln!(std::io::stdout(), "{said}")?;
    Ok(())
}
