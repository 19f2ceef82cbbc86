//! `portcullis hash`: makes the stored form of a password.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use portcullis_core::Secret;
use portcullis_jose::PasswordHash;
use serde_json::json;

use crate::output::{self, Format};

/// More is no password, but the wrong file.
const MAX_PASSWORD: u64 = 1024;

/// Arguments of `hash`. SECURITY: the password is none of them: everybody on a machine can read arguments.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Reads a password, from standard input up to the end of its first line or from the terminal twice, and prints what a
/// client's file holds of it.
///
/// # Errors
/// There is no password that could be sent, or no randomness.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let password = if std::io::stdin().is_terminal() { ask()? } else { read(std::io::stdin().lock())? };
    check(&password)?;
    let hash = PasswordHash::make(password.expose()).context("no stored form was made")?;
    output::print(&shown(&hash, arguments.format))?;
    Ok(ExitCode::SUCCESS)
}

fn ask() -> anyhow::Result<Secret> {
    let prompt = |text: &str| -> anyhow::Result<Secret> {
        Ok(Secret::new(rpassword::prompt_password(text).context("cannot ask for the password")?.into_bytes()))
    };
    let (first, again) = (prompt("Password: ")?, prompt("Once more: ")?);
    if first != again {
        bail!("the two passwords are not the same");
    }
    Ok(first)
}

/// One line; its end is no part of the password.
fn read(input: impl std::io::Read) -> anyhow::Result<Secret> {
    let mut bytes = Vec::new();
    input.take(MAX_PASSWORD + 3).read_to_end(&mut bytes).context("cannot read the password")?;
    let password = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let password = Secret::new(password.strip_suffix(b"\r").unwrap_or(password).to_vec());
    drop(Secret::new(bytes));
    Ok(password)
}

/// What could never be sent is refused here and not when somebody tries.
fn check(password: &Secret) -> anyhow::Result<()> {
    let text = std::str::from_utf8(password.expose()).map_err(|_| anyhow!("the password is not UTF-8"))?;
    if text.is_empty() {
        bail!("the password is empty");
    }
    if password.len() as u64 > MAX_PASSWORD {
        bail!("the password is longer than {MAX_PASSWORD} bytes");
    }
    if text.chars().any(char::is_control) {
        bail!(
            "the password holds a control character or a second line, which Basic cannot carry (RFC 7617 section 2)"
        );
    }
    Ok(())
}

fn shown(hash: &str, format: Format) -> String {
    match format {
        Format::Json => format!("{}\n", json!({ "password_hash": hash })),
        Format::Human => format!("{hash}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::{check, read, shown};
    use crate::output::Format;
    use portcullis_core::Secret;

    #[test]
    fn one_line_is_read_as_it_is() {
        for (input, expected) in [
            ("se:cret ", "se:cret "),
            ("se:cret\n", "se:cret"),
            ("se:cret\r\n", "se:cret"),
            ("two\nlines\n", "two\nlines"),
            ("", ""),
        ] {
            assert_eq!(read(input.as_bytes()).expect("read").expose(), expected.as_bytes());
        }
        assert!(read(&[b'a'; 5000][..]).expect("read").len() > 1024);
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let checked = |bytes: &[u8]| check(&Secret::new(bytes.to_vec())).map_err(|error| error.to_string());
        assert_eq!(checked("se:cret ä".as_bytes()), Ok(()));
        for (bytes, saying) in [
            (&b""[..], "empty"),
            (b"two\nlines", "control character"),
            (b"nul\0", "control character"),
            (b"\xff", "not UTF-8"),
            (&[b'a'; 1025], "longer"),
        ] {
            let error = checked(bytes).expect_err("refused");
            assert!(error.contains(saying), "{error}");
            assert!(!error.contains("two") && !error.contains("nul"), "{error}");
        }
    }

    #[test]
    fn the_stored_form_is_printed_alone() {
        assert_eq!(shown("$argon2id$x", Format::Human), "$argon2id$x\n");
        assert_eq!(shown("$argon2id$x", Format::Json), "{\"password_hash\":\"$argon2id$x\"}\n");
    }
}
