//! From a policy directory to a plan that can be served, or to every fault in it.
//!
//! Read (`sources`), parse (`yaml` and each room's specs), compile (`compile`). `check` and `run` take the same
//! way, so what `check` accepts is what `run` serves.

mod admin;
mod api;
mod compile;
mod fixed;
mod listing;
mod overrides;
mod resources;
mod secrets;
mod settings;
mod sources;
mod store;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_authn::ClientsSpec;
use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, FileId, Place, Severity};
use portcullis_policy::PlansSpec;

pub(crate) use admin::AdminSpec;
pub(crate) use compile::{Compiled, Particulars, compile};
pub(crate) use fixed::Fixed;
pub use listing::{Setting, effective_settings};
pub(crate) use resources::Resources;
pub use secrets::{AdminAccess, NotToBeHad, admin_access, pepper};
pub use settings::{ReloadWhen, Settings, Shutdown};
pub use sources::{Environment, SourceMap};

use api::ApiSpec;
use settings::GatewaySpec;
pub(crate) use sources::FileKind;

use crate::managed::ClientRows;
use crate::snapshot::Api;

/// What came of reading a directory.
pub struct Loaded {
    /// The files, for showing faults.
    pub sources: SourceMap,
    /// Everything found, sorted by place.
    pub faults: Vec<Diagnostic>,
    /// What can be served; `None` if any fault is an error.
    pub plan: Option<Plan>,
    /// One line for each file.
    pub summary: Vec<FileSummary>,
    /// Hash over policies, keys, certificates and secrets.
    pub hash: String,
}

/// What a file says, in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSummary {
    /// Name relative to the directory.
    pub name: String,
    /// `2 rules, 2 limits`, empty if there is nothing to say.
    pub text: String,
    /// Errors in it.
    pub errors: usize,
    /// Warnings in it.
    pub warnings: usize,
}

/// A policy directory without faults, to be served.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) directory: PathBuf,
    pub(crate) environment: Environment,
    /// What concerns the process.
    pub settings: Settings,
    /// The file in which changes over the admin API are written down.
    pub audit: Option<PathBuf>,
    /// The socket of the file system at which the admin API listens.
    pub admin_socket: Option<PathBuf>,
    /// Number of APIs.
    pub apis: usize,
    /// Number of rules in them.
    pub rules: usize,
}

/// All files as written.
pub(crate) struct PolicySpec {
    pub(crate) gateway: GatewaySpec,
    pub(crate) plans: PlansSpec,
    pub(crate) apis: Vec<(FileId, ApiSpec)>,
    /// The names of all APIs, those with faults among them, and where each is defined.
    pub(crate) api_names: Vec<(String, Place)>,
    pub(crate) clients: ClientsSpec,
    /// What a running gateway cannot change.
    pub(crate) fixed: Fixed,
}

impl PolicySpec {
    /// Adds clients that were registered while a gateway ran: JSON, which is YAML, too.
    pub(crate) fn add_stored(&mut self, clients: &ClientRows, sources: &mut SourceMap, faults: &mut Faults) {
        for (name, text) in clients {
            let text = String::from_utf8_lossy(text).into_owned();
            let file = sources.add_stored(name, text);
            if let Some(node) = tree(sources, file, faults) {
                self.clients.read_stored(name, &node, faults);
            }
        }
    }
}

/// Reads, parses and compiles a policy directory. Opens no socket and no store, and asks no server.
pub fn load(directory: &Path, environment: &Environment) -> Loaded {
    load_with(directory, environment, &ClientRows::new())
}

/// The same with clients that were registered while a gateway ran.
pub(crate) fn load_with(directory: &Path, environment: &Environment, clients: &ClientRows) -> Loaded {
    let mut faults = Faults::default();
    let sources = SourceMap::read(directory, environment, &mut faults);
    judge(sources, environment, clients, faults)
}

/// [`load`] for policy files that are at hand as texts, by name (`apis/accounts.yaml`). What they name is read from
/// the directory.
pub fn load_texts(directory: &Path, texts: &[(&str, &str)], environment: &Environment) -> Loaded {
    let sources = SourceMap::of_texts(directory, texts, environment);
    judge(sources, environment, &ClientRows::new(), Faults::default())
}

fn judge(
    mut sources: SourceMap,
    environment: &Environment,
    clients: &ClientRows,
    mut faults: Faults,
) -> Loaded {
    let directory = sources.directory().to_owned();
    let mut spec = parse(&mut sources, environment, &mut faults);
    if let Some(spec) = &mut spec {
        spec.add_stored(clients, &mut sources, &mut faults);
    }
    let settings = spec.as_ref().map(|spec| spec.gateway.settings.clone());
    let audit = spec.as_ref().and_then(|spec| spec.gateway.admin.as_ref()?.audit.as_ref());
    let audit = audit.map(|path| sources.path_of(path));
    let admin_socket = spec.as_ref().and_then(|spec| spec.gateway.admin.as_ref()?.socket.as_ref());
    let admin_socket = admin_socket.map(|path| sources.path_of(path));
    let compiled = match Resources::detached() {
        Ok(resources) => spec.and_then(|spec| compile(spec, &sources, &resources, &mut faults)),
        Err(error) => {
            faults.push(Diagnostic::nowhere("no_resources", error.to_string()));
            None
        }
    };
    let apis: Vec<(FileId, Arc<Api>)> = compiled
        .iter()
        .flat_map(|compiled| &compiled.snapshot.apis)
        .map(|api| (api.file, Arc::clone(api)))
        .collect();
    let whole = !faults.any_error() && compiled.is_some();
    let plan = settings.filter(|_| whole).map(|settings| Plan {
        directory,
        environment: environment.clone(),
        settings,
        audit,
        admin_socket,
        apis: apis.len(),
        rules: apis.iter().map(|(_, api)| api.rules.names().count()).sum(),
    });
    let faults = faults.into_sorted();
    Loaded { summary: summaries(&sources, &apis, &faults), hash: sources.hash(), sources, faults, plan }
}

/// Reads and parses, for whoever compiles.
pub(crate) fn read(
    directory: &Path,
    environment: &Environment,
    faults: &mut Faults,
) -> (SourceMap, Option<PolicySpec>) {
    let mut sources = SourceMap::read(directory, environment, faults);
    let spec = parse(&mut sources, environment, faults);
    (sources, spec)
}

/// [`read`] for texts at hand.
#[cfg(test)]
pub(crate) fn read_texts(
    directory: &Path,
    texts: &[(&str, &str)],
    environment: &Environment,
    faults: &mut Faults,
) -> (SourceMap, Option<PolicySpec>) {
    let mut sources = SourceMap::of_texts(directory, texts, environment);
    let spec = parse(&mut sources, environment, faults);
    (sources, spec)
}

fn parse(sources: &mut SourceMap, environment: &Environment, faults: &mut Faults) -> Option<PolicySpec> {
    Trees::read(sources, environment, faults).spec(faults)
}

/// The policy files as trees, with the environment's overrides in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trees {
    pub(crate) gateway: Option<Node>,
    pub(crate) plans: Option<Node>,
    pub(crate) apis: Vec<(FileId, Node)>,
    pub(crate) clients: Vec<Node>,
}

impl Trees {
    /// Parses every file.
    pub(crate) fn read(sources: &mut SourceMap, environment: &Environment, faults: &mut Faults) -> Self {
        let mut trees = Self::default();
        for file in sources.of_kind(FileKind::Gateway).collect::<Vec<_>>() {
            if let Some(mut root) = tree(sources, file, faults) {
                overrides::apply(&mut root, environment, sources, faults);
                trees.gateway = Some(root);
            }
        }
        for file in sources.of_kind(FileKind::Plans) {
            trees.plans = tree(sources, file, faults);
        }
        for file in sources.of_kind(FileKind::Api) {
            trees.apis.extend(tree(sources, file, faults).map(|root| (file, root)));
        }
        for file in sources.of_kind(FileKind::Clients) {
            trees.clients.extend(tree(sources, file, faults));
        }
        trees
    }

    /// Reads what the trees say.
    pub(crate) fn spec(&self, faults: &mut Faults) -> Option<PolicySpec> {
        let gateway = self.gateway.as_ref().and_then(|root| GatewaySpec::read(root, faults));
        let plans = match &self.plans {
            None => Some(PlansSpec::default()),
            Some(root) => Fields::of(root, "the file of plans", faults).and_then(|mut fields| {
                let plans = fields.require("plans", faults).and_then(|node| PlansSpec::read(node, faults));
                fields.finish(faults);
                plans
            }),
        };
        let (mut apis, mut api_names) = (Vec::new(), Vec::new());
        for (file, root) in &self.apis {
            api_names.extend(api_name(root));
            apis.extend(ApiSpec::read(root, faults).map(|api| (*file, api)));
        }
        let mut clients = ClientsSpec::default();
        for root in &self.clients {
            if let Some(mut fields) = Fields::of(root, "a file of clients", faults) {
                if let Some(node) = fields.require("clients", faults) {
                    clients.read(node, faults);
                }
                fields.finish(faults);
            }
        }
        let fixed = self.gateway.as_ref().map(Fixed::of).unwrap_or_default();
        Some(PolicySpec { gateway: gateway?, plans: plans?, apis, api_names, clients, fixed })
    }
}

fn api_name(root: &Node) -> Option<(String, Place)> {
    let Content::Map(entries) = &root.content else { return None };
    let name = &entries.iter().find(|entry| entry.key.value == "api")?.value;
    match &name.content {
        Content::Text(text) => Some((text.clone(), name.place)),
        _ => None,
    }
}

pub(crate) fn tree(sources: &SourceMap, file: FileId, faults: &mut Faults) -> Option<Node> {
    yaml::parse(file, sources.text(file)).map_err(|fault| faults.push(*fault)).ok()
}

fn summaries(sources: &SourceMap, apis: &[(FileId, Arc<Api>)], faults: &[Diagnostic]) -> Vec<FileSummary> {
    let of_file = |file: FileId, severity: Severity| {
        let there =
            |fault: &&Diagnostic| fault.severity == severity && fault.place.is_some_and(|at| at.file == file);
        faults.iter().filter(there).count()
    };
    let text = |file: FileId| {
        let api = apis.iter().find(|(id, _)| *id == file).map(|(_, api)| api);
        api.map_or_else(String::new, |api| {
            let limits = api.limits.as_ref().map_or(0, |limits| limits.names().count());
            let counts =
                format!("{}, {}", plural(api.rules.names().count(), "rule"), plural(limits, "limit"));
            match api.chain.anonymous_because() {
                Some(because) => format!("{counts}, open to anybody: {because}"),
                None => counts,
            }
        })
    };
    let summary = |file: FileId| FileSummary {
        name: sources.name(file).to_owned(),
        text: text(file),
        errors: of_file(file, Severity::Error),
        warnings: of_file(file, Severity::Warning),
    };
    sources.written().map(summary).collect()
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
