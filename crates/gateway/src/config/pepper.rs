//! The pepper of API keys alone, for whoever makes keys.

use std::path::Path;

use portcullis_core::{Diagnostic, Faults, Secret};

use super::settings::GatewaySpec;
use super::sources::{Environment, FileKind, SourceMap};
use super::{overrides, tree};

/// There is no pepper to be had.
#[derive(Debug)]
pub struct NoPepper {
    /// The files, for showing faults.
    pub sources: SourceMap,
    /// Why.
    pub faults: Vec<Diagnostic>,
}

/// The secret under which API keys are hashed. Nothing but `gateway.yaml` must be in order for it: keys are made
/// before the clients are complete.
///
/// # Errors
/// `gateway.yaml` cannot be read, has no `api_keys`, or its secret cannot be fetched.
pub fn pepper(directory: &Path, environment: &Environment) -> Result<Secret, Box<NoPepper>> {
    let mut faults = Faults::default();
    let mut sources = SourceMap::read(directory, environment, &mut faults);
    let file = sources.of_kind(FileKind::Gateway).next();
    let root = file.and_then(|file| tree(&sources, file, &mut faults));
    let found = root.and_then(|mut root| {
        overrides::apply(&mut root, environment, &mut sources, &mut faults);
        let Some(spec) = GatewaySpec::read(&root, &mut faults)?.api_keys else {
            faults.push(
                Diagnostic::nowhere("missing_pepper", "gateway.yaml has no `api_keys` with the pepper to hash keys with")
                    .note("add `api_keys: { pepper: { file: secrets/pepper } }`, a file with `openssl rand -base64 32`"),
            );
            return None;
        };
        spec.compile(&sources, &mut faults)
    });
    found.ok_or_else(|| Box::new(NoPepper { sources, faults: faults.into_sorted() }))
}
