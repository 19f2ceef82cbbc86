//! A request that is taken through the policies without a gateway.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use portcullis_core::document::Node;
use portcullis_core::{Clock, Faults};
use portcullis_gateway::Environment;
use portcullis_gateway::rehearsal::{Outcome, Outside, Question, Rehearsal, Written};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::With;
use super::told::Explanation;
use crate::admin_client::OfGateway;
use crate::output::{self, Format};
use crate::report::{self, Look};
use crate::test::tree::{at, entries};

/// Takes the request through the policies and prints what each part of them says.
///
/// # Errors
/// The policies have faults, or something that was named cannot be read.
pub(super) fn explain(method: &str, url: &str, with: &With, of: &OfGateway) -> anyhow::Result<ExitCode> {
    let asked = Asked::read(method, url, with)?;
    let mut faults = Faults::default();
    let written = Written::read(&of.policies, &Environment::of_process(), &mut faults);
    let faulty = |faults: &[_]| {
        output::say(&report::human(faults, written.sources(), Look::of(&std::io::stderr())));
        anyhow!("the policies in `{}` cannot be asked", of.policies.display())
    };
    if faults.any_error() {
        return Err(faulty(&faults.into_sorted()));
    }
    let now = Clock::System.now().unix_seconds();
    let listener = match &with.listener {
        Some(name) => name.as_str(),
        None => {
            written.gateway().and_then(|root| listener_for(root, asked.is_secure)).with_context(|| {
                let how = if asked.is_secure { "with TLS" } else { "in clear text" };
                format!("no listener of the policies is spoken to {how}; name one with --listener")
            })?
        }
    };
    let rehearsal = Rehearsal::new(&written, &written.stand_ins(), Outside::Real, now)
        .map_err(|faults| faulty(&faults))?;
    let outcome = rehearsal.ask(asked.question(Some(listener), with));
    let explanation =
        Explanation { asked: &asked, with, listener, written: &written, outcome: &outcome, now };
    output::print(&match of.format {
        Format::Human => explanation.human(),
        Format::Json => format!("{}\n", explanation.machine()),
    })?;
    Ok(exit_code(&outcome))
}

/// Scripts may ask, too.
fn exit_code(outcome: &Outcome) -> ExitCode {
    if outcome.decision == "allow" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first listener that speaks what the URL says.
fn listener_for(root: &Node, secure: bool) -> Option<&str> {
    let listeners = entries(at(root, "listen")?);
    let fitting = listeners.iter().find(|entry| at(&entry.value, "tls").is_some() == secure);
    fitting.map(|entry| entry.key.value.as_str())
}

/// A request as it was asked for.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) target: Uri,
    pub(super) is_secure: bool,
    pub(super) fields: HeaderMap,
    pub(super) certificate: Option<Vec<u8>>,
    content: Bytes,
}

impl Asked {
    fn read(method: &str, url: &str, with: &With) -> anyhow::Result<Self> {
        let method =
            Method::from_bytes(method.as_bytes()).with_context(|| format!("`{method}` is no method"))?;
        let url: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        let is_secure = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("write the whole URL, such as https://api.bank.example/accounts"),
        };
        let host = url.authority().context("the URL has no host")?.as_str().to_owned();
        let target = url.path_and_query().map_or("/", |target| target.as_str()).parse()?;
        let mut fields = HeaderMap::new();
        fields.insert(HOST, HeaderValue::from_str(&host).context("the URL's host cannot be sent")?);
        for text in &with.header {
            match text.strip_prefix('@') {
                Some(_) => {
                    let lines = content(text)?;
                    let lines = String::from_utf8(lines).with_context(|| format!("{text} is no text"))?;
                    let mut lines = lines.lines().filter(|line| !line.trim().is_empty());
                    lines.try_for_each(|line| add(&mut fields, line))?;
                }
                None => add(&mut fields, text)?,
            }
        }
        if let Some(token) = &with.token {
            let token = content(token)?;
            let mut value = HeaderValue::from_bytes(&[b"Bearer ", token.trim_ascii()].concat())
                .context("the token cannot be sent in a field")?;
            value.set_sensitive(true);
            fields.append(AUTHORIZATION, value);
        }
        let body = with.data.as_deref().map_or_else(|| Ok(Vec::new()), content)?;
        if !body.is_empty() {
            fields.insert(CONTENT_LENGTH, body.len().into());
        }
        let certificate = with.cert.as_deref().map(certificate).transpose()?;
        Ok(Self { method, host, target, is_secure, fields, certificate, content: body.into() })
    }

    fn question<'q>(&'q self, listener: Option<&'q str>, with: &With) -> Question<'q> {
        let mut request = Request::new(self.content.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.fields.clone();
        let name = self.host.rsplit_once(':').map_or(&*self.host, |(name, _port)| name);
        let server_name = self.is_secure.then_some(name);
        let certificate = self.certificate.as_deref();
        Question { listener, from: with.from, server_name, certificate, request }
    }
}

/// SECURITY: the field is not repeated in a message: it may be a credential.
fn add(fields: &mut HeaderMap, line: &str) -> anyhow::Result<()> {
    let (name, value) = line.split_once(':').context("a field is a name, a colon and a value")?;
    let name =
        HeaderName::from_bytes(name.trim().as_bytes()).context("the name of a field cannot be sent")?;
    let value = HeaderValue::from_str(value.trim())
        .map_err(|_| anyhow!("the value of `{name}` cannot be sent in a field"))?;
    if name == HOST {
        fields.insert(name, value);
    } else {
        fields.append(name, value);
    }
    Ok(())
}

/// The text itself, or what is in the file it names behind `@`; `@-` is standard input.
fn content(text: &str) -> anyhow::Result<Vec<u8>> {
    match text.strip_prefix('@') {
        None => Ok(text.as_bytes().to_vec()),
        Some("-") => {
            let mut read = Vec::new();
            std::io::stdin().read_to_end(&mut read).context("cannot read standard input")?;
            Ok(read)
        }
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {path}")),
    }
}

fn certificate(path: &str) -> anyhow::Result<Vec<u8>> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    let first = CertificateDer::pem_slice_iter(&pem).next();
    let first = first.with_context(|| format!("{path} holds no certificate in PEM"))?;
    Ok(first.with_context(|| format!("{path} cannot be read"))?.to_vec())
}
