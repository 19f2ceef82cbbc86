//! Reads a policy directory. The only I/O of loading: everything after it is a function of what was read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use portcullis_core::{Diagnostic, Faults, FileId, Materials, Spanned};

use crate::forward::hex;
use crate::listener::digest;

/// The process environment as far as loading may see it.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. A variable that is not UTF-8 is not seen.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Its variables, in name order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// What a file is for, by its place in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    /// `gateway.yaml`
    Gateway,
    /// `apis/*.yaml`
    Api,
    /// `plans.yaml`
    Plans,
    /// `clients/*.yaml`
    Clients,
    /// `tests/*.test.yaml`, read by whoever runs them and by nobody who serves.
    Test,
    /// What was registered while a gateway ran.
    Stored,
    /// Overrides taken from the environment, written out as lines so that a fault can point into them.
    Environment,
}

/// In front of the name of a registered client, where a file would have its name.
const STORED_CLIENTS: &str = "store/clients/";

/// The file of plans; there need not be one.
const PLANS: &str = "plans.yaml";

#[derive(Clone, Debug)]
struct SourceFile {
    name: Arc<str>,
    text: Arc<str>,
    kind: FileKind,
}

/// The files of one load, by [`FileId`].
#[derive(Clone, Debug)]
pub struct SourceMap {
    directory: PathBuf,
    files: Vec<SourceFile>,
    environment: Environment,
    /// Digests of keys, certificates and secrets that were read, so that the configuration's hash covers them.
    materials: RefCell<BTreeMap<PathBuf, [u8; 32]>>,
    /// Files that are not there: what stands in for keys and certificates while policies are tested.
    stand_ins: BTreeMap<PathBuf, Vec<u8>>,
}

impl SourceMap {
    /// Reads every policy file of the directory. A file that nothing reads is a fault, because its author
    /// believes that it does something.
    pub(crate) fn read(directory: &Path, environment: &Environment, faults: &mut Faults) -> Self {
        let mut sources = Self {
            directory: directory.to_owned(),
            files: Vec::new(),
            environment: environment.clone(),
            materials: RefCell::default(),
            stand_ins: BTreeMap::new(),
        };
        if !directory.is_dir() {
            let message = format!("{} is not a directory of policy files", directory.display());
            faults.push(Diagnostic::nowhere("no_directory", message));
            return sources;
        }
        sources.add(FileKind::Gateway, "gateway.yaml".to_owned(), faults);
        for (kind, folder) in [(FileKind::Api, "apis"), (FileKind::Clients, "clients")] {
            for name in sources.listing(folder, faults) {
                sources.add(kind, format!("{folder}/{name}"), faults);
            }
        }
        for name in yaml_files(&sources.directory).unwrap_or_default() {
            if name == PLANS {
                sources.add(FileKind::Plans, name, faults);
            } else if name != "gateway.yaml" {
                let message = format!("`{name}` is not a file that the gateway reads here");
                faults.push(
                    Diagnostic::nowhere("stray_file", message)
                        .note("policy files are gateway.yaml, plans.yaml, apis/*.yaml and clients/*.yaml"),
                );
            }
        }
        sources
    }

    /// The same from texts at hand, by name (`apis/accounts.yaml`). Keys and certificates are still read from the
    /// directory.
    pub(super) fn of_texts(directory: &Path, texts: &[(&str, &str)], environment: &Environment) -> Self {
        let mut sources = Self {
            directory: directory.to_owned(),
            files: Vec::new(),
            environment: environment.clone(),
            materials: RefCell::default(),
            stand_ins: BTreeMap::new(),
        };
        for (name, text) in texts {
            let kind = match name.split_once('/') {
                Some(("apis", _)) => FileKind::Api,
                Some(("clients", _)) => FileKind::Clients,
                None if *name == PLANS => FileKind::Plans,
                _ => FileKind::Gateway,
            };
            sources.push(SourceFile { name: (*name).into(), text: (*text).into(), kind });
        }
        sources
    }

    /// Adds the files of `tests/` that hold tests of these policies. One that is called otherwise is a fault, because
    /// its author believes that it is run.
    pub(crate) fn read_tests(&mut self, faults: &mut Faults) {
        for name in self.listing("tests", faults) {
            if name.ends_with(".test.yaml") {
                self.add(FileKind::Test, format!("tests/{name}"), faults);
            } else {
                let message = format!("`tests/{name}` is not run");
                let note = "files of tests are called tests/*.test.yaml";
                faults.push(Diagnostic::nowhere("stray_file", message).note(note));
            }
        }
    }

    /// Lets these files stand in the place of what paths lead to.
    pub(crate) fn stand_in(&mut self, files: BTreeMap<PathBuf, Vec<u8>>) {
        self.stand_ins = files;
    }

    /// The file's name relative to the directory, as messages show it.
    pub fn name(&self, file: FileId) -> &str {
        self.file_at(file).map_or("?", |file| &file.name)
    }

    /// The file's text.
    pub fn text(&self, file: FileId) -> &str {
        self.file_at(file).map_or("", |file| &file.text)
    }

    /// The directory that was read.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The folders in which a change may be one of what was read.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.directory.clone()];
        folders.extend(["apis", "clients"].map(|folder| self.directory.join(folder)));
        let materials = self.materials.borrow();
        folders.extend(materials.keys().filter_map(|path| path.parent()).map(Path::to_path_buf));
        folders.retain(|folder| folder.is_dir());
        folders.sort();
        folders.dedup();
        folders
    }

    /// All files of one kind.
    pub(crate) fn of_kind(&self, kind: FileKind) -> impl Iterator<Item = FileId> {
        (0u32..).zip(&self.files).filter(move |(_, file)| file.kind == kind).map(|(index, _)| FileId(index))
    }

    /// Every file a person wrote.
    pub(super) fn written(&self) -> impl Iterator<Item = FileId> {
        (0u32..)
            .zip(&self.files)
            .filter(|(_, file)| !matches!(file.kind, FileKind::Environment | FileKind::Stored))
            .map(|(index, _)| FileId(index))
    }

    /// Adds the pseudo-file of the environment overrides.
    pub(super) fn add_environment(&mut self, text: String) -> FileId {
        self.push(SourceFile { name: "environment".into(), text: text.into(), kind: FileKind::Environment })
    }

    /// Adds what was registered while a gateway ran.
    pub(super) fn add_stored(&mut self, client: &str, text: String) -> FileId {
        let name = format!("{STORED_CLIENTS}{client}");
        self.push(SourceFile { name: name.into(), text: text.into(), kind: FileKind::Stored })
    }

    /// Twelve hexadecimal digits that change when any policy file, key, certificate or secret changes.
    pub(super) fn hash(&self) -> String {
        let materials = self.materials.borrow();
        let files = self.files.iter().flat_map(|file| [file.name.as_bytes(), file.text.as_bytes()]);
        let all = digest::of(files.chain(materials.values().map(|digest| digest.as_slice())));
        all.map(|all| hex(all.get(..6).unwrap_or_default())).unwrap_or_default()
    }

    fn file_at(&self, file: FileId) -> Option<&SourceFile> {
        self.files.get(usize::try_from(file.0).ok()?)
    }

    fn push(&mut self, file: SourceFile) -> FileId {
        self.files.push(file);
        FileId(u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX))
    }

    fn add(&mut self, kind: FileKind, name: String, faults: &mut Faults) {
        match fs::read_to_string(self.directory.join(&name)) {
            Ok(text) => {
                self.push(SourceFile { name: name.into(), text: text.into(), kind });
            }
            Err(error) => faults
                .push(Diagnostic::nowhere("unreadable", format!("cannot read {name}: {}", plain(&error)))),
        }
    }

    fn listing(&self, folder: &str, faults: &mut Faults) -> Vec<String> {
        let path = self.directory.join(folder);
        if !path.exists() {
            return Vec::new();
        }
        yaml_files(&path).unwrap_or_else(|error| {
            faults
                .push(Diagnostic::nowhere("unreadable", format!("cannot read {folder}/: {}", plain(&error))));
            Vec::new()
        })
    }

    /// Where a path of a policy file leads.
    pub(crate) fn path_of(&self, path: &Spanned<String>) -> PathBuf {
        self.resolve(path.place.file, &path.value)
    }

    /// Paths in a policy file are relative to that file, wherever the gateway was started.
    fn resolve(&self, named_in: FileId, path: &str) -> PathBuf {
        if self.file_at(named_in).is_some_and(|file| file.kind == FileKind::Stored) {
            return self.directory.join(path);
        }
        // The environment's overrides belong to gateway.yaml, and so do their paths.
        let folder = self.directory.join(self.name(named_in));
        folder.parent().unwrap_or(&self.directory).join(path)
    }

    /// SECURITY: whoever may register clients is not whoever may read the machine's files, and learns nothing of which there
    /// are.
    fn may_name(&self, named_in: FileId, path: &str) -> Result<(), String> {
        let is_stored = self.file_at(named_in).is_some_and(|file| file.kind == FileKind::Stored);
        let is_inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if is_stored && !Path::new(path).components().all(is_inside) {
            return Err(format!(
                "`{path}` is outside of the policy directory, where a registered client names nothing"
            ));
        }
        Ok(())
    }

    /// The files that were read beside the policies.
    pub(crate) fn materials(&self) -> BTreeSet<PathBuf> {
        self.materials.borrow().keys().cloned().collect()
    }

    fn read_material(&self, path: PathBuf, shown: &str) -> Result<Vec<u8>, String> {
        if let Some(bytes) = self.stand_ins.get(&path) {
            return Ok(bytes.clone());
        }
        let bytes = fs::read(&path).map_err(|error| format!("cannot read `{shown}`: {}", plain(&error)))?;
        self.materials.borrow_mut().insert(path, digest::of([bytes.as_slice()]).unwrap_or_default());
        Ok(bytes)
    }
}

impl Materials for SourceMap {
    fn file(&self, named_in: FileId, path: &str) -> Result<Vec<u8>, String> {
        self.may_name(named_in, path)?;
        self.read_material(self.resolve(named_in, path), path)
    }

    fn directory(&self, named_in: FileId, path: &str) -> Result<Option<portcullis_core::NamedFiles>, String> {
        self.may_name(named_in, path)?;
        let folder = self.resolve(named_in, path);
        if !folder.is_dir() {
            return Ok(None);
        }
        let path = path.trim_end_matches('/');
        let mut names = files_of(&folder, path)?;
        names.sort();
        let read = names.into_iter().map(|name| {
            let bytes = self.read_material(folder.join(&name), &format!("{path}/{name}"))?;
            Ok((name, bytes))
        });
        read.collect::<Result<_, _>>().map(Some)
    }

    fn is_read_again(&self, named_in: FileId, path: &str) {
        let path = self.resolve(named_in, path);
        self.materials.borrow_mut().retain(|read, _| !read.starts_with(&path));
    }

    fn environment(&self, name: &str) -> Result<Vec<u8>, String> {
        let value = self
            .environment
            .0
            .get(name)
            .ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
        self.materials
            .borrow_mut()
            .insert(PathBuf::from(format!("env:{name}")), digest::of([value.as_bytes()]).unwrap_or_default());
        Ok(value.clone().into_bytes())
    }

    fn credential(&self, name: &str) -> Result<Vec<u8>, String> {
        if name.contains(['/', '\0']) || name.starts_with('.') {
            return Err(format!("`{name}` is not the name of a credential"));
        }
        let folder = self.environment.0.get("CREDENTIALS_DIRECTORY").ok_or_else(|| {
            format!("there is no credential `{name}`: the gateway was started without CREDENTIALS_DIRECTORY")
        })?;
        self.read_material(Path::new(folder).join(name), name)
    }
}

/// The names of the files in a folder that messages call `shown`. SECURITY: what is there and cannot be read is an
/// error, not something less: a list of what counts no more that is left out gives it back.
fn files_of(folder: &Path, shown: &str) -> Result<Vec<String>, String> {
    let unreadable =
        |error: &std::io::Error, name: &str| format!("cannot read `{shown}{name}`: {}", plain(error));
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(&error, ""))? {
        let name = entry.map_err(|error| unreadable(&error, ""))?.file_name();
        // A ConfigMap mount holds dot-files that point at its versions.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let lossy = name.to_string_lossy();
        // What a link leads to counts; one that leads nowhere is a file that somebody believes in.
        let found = fs::metadata(folder.join(&name));
        let found = found.map_err(|error| unreadable(&error, &format!("/{lossy}")))?;
        if found.is_dir() {
            continue;
        }
        if !found.is_file() {
            return Err(format!("`{shown}/{lossy}` is not a file"));
        }
        match name.to_str() {
            Some(name) => names.push(name.to_owned()),
            None => return Err(format!("the name of `{shown}/{lossy}` is not UTF-8")),
        }
    }
    Ok(names)
}

fn yaml_files(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| (name.ends_with(".yaml") || name.ends_with(".yml")) && !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

/// The operating system's words without its number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
