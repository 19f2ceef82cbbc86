//! A policy directory as it is written, before it is compiled: the trees that whoever rehearses may change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_core::document::Node;
use portcullis_core::{Diagnostic, Faults};

use crate::config::{self, Environment, FileKind, SourceMap, Trees};

/// The files of a policy directory, with the tests beside them.
pub struct Written {
    pub(super) sources: SourceMap,
    pub(super) trees: Trees,
    tests: Vec<Node>,
}

/// What stands in for keys, certificates and secrets: policies that name files which are not there, and the files.
#[derive(Clone, Default)]
pub struct StandIns {
    pub(super) trees: Trees,
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Written {
    /// Reads every file. What is no YAML is among the faults, and so is a file of `tests/` that is not called so.
    pub fn read(directory: &Path, environment: &Environment, faults: &mut Faults) -> Self {
        let mut sources = SourceMap::read(directory, environment, faults);
        let trees = Trees::read(&mut sources, environment, faults);
        sources.read_tests(faults);
        let files: Vec<_> = sources.of_kind(FileKind::Test).collect();
        let tests = files.into_iter().filter_map(|file| config::tree(&sources, file, faults)).collect();
        Self { sources, trees, tests }
    }

    /// The files, for showing faults.
    pub const fn sources(&self) -> &SourceMap {
        &self.sources
    }

    /// `gateway.yaml`, with the environment's overrides.
    pub const fn gateway(&self) -> Option<&Node> {
        self.trees.gateway.as_ref()
    }

    /// The files of APIs.
    pub fn apis(&self) -> impl Iterator<Item = &Node> {
        self.trees.apis.iter().map(|(_, root)| root)
    }

    /// The files of clients.
    pub fn clients(&self) -> impl Iterator<Item = &Node> {
        self.trees.clients.iter()
    }

    /// The files of tests, by name.
    pub fn tests(&self) -> impl Iterator<Item = &Node> {
        self.tests.iter()
    }

    /// Stand-ins to begin with: nothing stands in for anything.
    pub fn stand_ins(&self) -> StandIns {
        StandIns { trees: self.trees.clone(), files: BTreeMap::new() }
    }

    /// Every fault of the policies with these stand-ins that is an error.
    pub(super) fn errors(faults: Faults) -> Vec<Diagnostic> {
        let errors = faults.into_sorted().into_iter();
        errors.filter(|fault| fault.severity == portcullis_core::Severity::Error).collect()
    }
}

impl StandIns {
    /// `gateway.yaml`.
    pub const fn gateway(&mut self) -> Option<&mut Node> {
        self.trees.gateway.as_mut()
    }

    /// The files of APIs.
    pub fn apis(&mut self) -> impl Iterator<Item = &mut Node> {
        self.trees.apis.iter_mut().map(|(_, root)| root)
    }

    /// The files of clients.
    pub fn clients(&mut self) -> impl Iterator<Item = &mut Node> {
        self.trees.clients.iter_mut()
    }

    /// Puts a file in the place of what an absolute path leads to.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.insert(PathBuf::from(path), content.into());
    }
}
