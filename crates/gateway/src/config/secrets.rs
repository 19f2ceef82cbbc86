//! Secrets of `gateway.yaml` alone, for verbs that work beside a gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use portcullis_core::{Diagnostic, Faults, Secret};

use super::settings::GatewaySpec;
use super::sources::{Environment, FileKind, SourceMap};
use super::{overrides, tree};

/// What was looked for cannot be had.
#[derive(Debug)]
pub struct NotToBeHad {
    /// The files, for showing faults.
    pub sources: SourceMap,
    /// Why.
    pub faults: Vec<Diagnostic>,
}

/// How the admin API of a gateway is reached by those who may change something.
#[derive(Debug)]
pub struct AdminAccess {
    /// Where it listens, if at an address and without TLS.
    pub address: Option<SocketAddr>,
    /// The socket of the file system at which it listens, if at one.
    pub socket: Option<PathBuf>,
    /// What has to be shown.
    pub token: Secret,
}

/// The secret under which API keys are hashed. Nothing but `gateway.yaml` must be in order for it: keys are made
/// before the clients are complete.
///
/// # Errors
/// `gateway.yaml` cannot be read, has no `api_keys`, or its secret cannot be fetched.
pub fn pepper(directory: &Path, environment: &Environment) -> Result<Secret, Box<NotToBeHad>> {
    look(directory, environment, |spec, sources, faults| {
        let Some(spec) = spec.api_keys else {
            faults.push(
                Diagnostic::nowhere("missing_pepper", "gateway.yaml has no `api_keys` with the pepper to hash keys with")
                    .note("add `api_keys: { pepper: { file: secrets/pepper } }`, a file with `openssl rand -base64 32`"),
            );
            return None;
        };
        spec.compile(sources, faults)
    })
}

/// How the admin API is reached.
///
/// # Errors
/// `gateway.yaml` cannot be read, has no `admin` with a `token`, or the token cannot be fetched.
pub fn admin_access(directory: &Path, environment: &Environment) -> Result<AdminAccess, Box<NotToBeHad>> {
    look(directory, environment, |spec, sources, faults| {
        let admin = spec.admin.filter(super::admin::AdminSpec::has_token);
        let Some(admin) = admin else {
            faults.push(
                Diagnostic::nowhere("missing_token", "gateway.yaml has no `admin` with a `token` to change something with")
                    .note("add `token: { file: secrets/admin-token }` to `admin`, a file with `openssl rand -hex 32`, and start the gateway again"),
            );
            return None;
        };
        let socket = admin.socket.as_ref().map(|path| sources.path_of(path));
        // SECURITY: the token goes in clear text to no address at which TLS is spoken, and the verbs speak none.
        let address = admin.address.filter(|_| admin.door.is_none());
        Some(AdminAccess { address, socket, token: admin.token(sources, faults)? })
    })
}

fn look<T>(
    directory: &Path,
    environment: &Environment,
    pick: impl FnOnce(GatewaySpec, &SourceMap, &mut Faults) -> Option<T>,
) -> Result<T, Box<NotToBeHad>> {
    let mut faults = Faults::default();
    let mut sources = SourceMap::read(directory, environment, &mut faults);
    let file = sources.of_kind(FileKind::Gateway).next();
    let root = file.and_then(|file| tree(&sources, file, &mut faults));
    let found = root.and_then(|mut root| {
        overrides::apply(&mut root, environment, &mut sources, &mut faults);
        pick(GatewaySpec::read(&root, &mut faults)?, &sources, &mut faults)
    });
    found.ok_or_else(|| Box::new(NotToBeHad { sources, faults: faults.into_sorted() }))
}
