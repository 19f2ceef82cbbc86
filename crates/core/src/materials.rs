//! What policy files point at: keys, certificates, secrets.

use crate::{Faults, FileId, Secret, Spanned};

/// The files of a directory: their names and bytes.
pub type NamedFiles = Vec<(String, Vec<u8>)>;

/// Reads what the policy files name. Compiling is pure but for this, so a test can compile from memory.
pub trait Materials {
    /// The bytes of a file; `path` is relative to the policy file that names it.
    ///
    /// # Errors
    /// Why it cannot be read, in words for the person who wrote the path.
    fn file(&self, named_in: FileId, path: &str) -> Result<Vec<u8>, String>;

    /// The bytes of every file in a directory, in name order, with their names; `None` if there is no directory. Left
    /// out are other directories, and files whose names begin with a dot.
    ///
    /// # Errors
    /// As [`Materials::file`]. SECURITY: one file that cannot be read is an error of the whole: whoever wrote it believes
    /// that it counts.
    fn directory(&self, named_in: FileId, path: &str) -> Result<Option<NamedFiles>, String>;

    /// Says that a file or directory is read again by itself while the gateway runs, so that another content of it is no
    /// other configuration.
    fn is_read_again(&self, _named_in: FileId, _path: &str) {}

    /// An environment variable.
    ///
    /// # Errors
    /// It is not set.
    fn environment(&self, name: &str) -> Result<Vec<u8>, String>;

    /// A systemd credential (`$CREDENTIALS_DIRECTORY`).
    ///
    /// # Errors
    /// There is no such credential, or the process was started without any.
    fn credential(&self, name: &str) -> Result<Vec<u8>, String>;
}

/// Where a secret is to be found. A secret is never written in a policy file itself.
#[derive(Clone, Debug)]
pub enum SecretSpec {
    /// `{ file: path }`; one trailing line end is not part of the secret.
    File(Spanned<String>),
    /// `{ env: NAME }`
    Environment(Spanned<String>),
    /// `{ credential: name }`
    Credential(Spanned<String>),
}

impl SecretSpec {
    /// Fetches the secret, or says at the place of the reference why it cannot be had.
    pub fn resolve(&self, materials: &dyn Materials, faults: &mut Faults) -> Option<Secret> {
        let (name, found) = match self {
            Self::File(path) => (path, materials.file(path.place.file, &path.value)),
            Self::Environment(name) => (name, materials.environment(&name.value)),
            Self::Credential(name) => (name, materials.credential(&name.value)),
        };
        match found {
            Ok(mut bytes) => {
                if bytes.ends_with(b"\n") {
                    bytes.pop();
                    if bytes.ends_with(b"\r") {
                        bytes.pop();
                    }
                }
                if bytes.is_empty() {
                    faults.error("secret_empty", name.place, "the secret is empty");
                    return None;
                }
                Some(Secret::new(bytes))
            }
            Err(why) => {
                faults.error("unreadable", name.place, why);
                None
            }
        }
    }
}
