//! Which requests a limit is about, or a plan gives.

use http::Method;
use portcullis_core::Faults;
use portcullis_core::document::Node;

use crate::PathTemplate;
use crate::rules::{MethodSet, read_methods, read_paths};

/// Methods and paths, as a rule names them; all, where none is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    methods: Option<MethodSet>,
    paths: Option<Box<[PathTemplate]>>,
}

impl Reach {
    /// Reads both. The outer `None` is one that cannot be read, which was told: a limit that is about too little
    /// would be none.
    pub(crate) fn read(methods: Option<&Node>, paths: Option<&Node>, faults: &mut Faults) -> Option<Self> {
        let methods = methods.map(|node| read_methods(node, faults));
        let paths = paths.map(|node| read_paths(node, faults));
        Some(Self {
            methods: methods.map_or(Some(None), |read| read.map(Some))?,
            paths: paths.map_or(Some(None), |read| read.map(|paths| Some(paths.into_boxed_slice())))?,
        })
    }

    /// Whether a request is among them.
    pub(crate) fn takes(&self, method: &Method, path_in_api: &str) -> bool {
        self.methods.is_none_or(|methods| methods.meets(MethodSet::of(method)))
            && self
                .paths
                .as_ref()
                .is_none_or(|paths| paths.iter().any(|path| path.matches(path_in_api).is_some()))
    }

    /// Whether all requests are.
    pub(crate) const fn is_whole(&self) -> bool {
        self.methods.is_none() && self.paths.is_none()
    }
}
