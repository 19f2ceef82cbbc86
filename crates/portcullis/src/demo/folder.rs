//! The directory the demo writes its certificates, tokens, keys and policies to.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Says that the directory is the demo's own, and is locked while a demo runs.
const MARKER: &str = ".portcullis-demo";

/// A directory that holds nothing but what this demo wrote.
pub(crate) struct Folder {
    path: PathBuf,
    /// Held for its lock.
    _marker: File,
}

impl Folder {
    /// Makes the directory, empty. One that an earlier demo made is emptied; any other is left alone.
    ///
    /// # Errors
    /// The directory holds something else, belongs to a running demo, or cannot be written.
    pub(crate) fn fresh(path: PathBuf) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let written = || format!("cannot write the demo's files to `{shown}`");
        // SECURITY: the directory holds private keys and tokens, so nobody else may look into it.
        DirBuilder::new().recursive(true).mode(0o700).create(&path).with_context(written)?;
        if !path.join(MARKER).exists() && path.read_dir().with_context(written)?.next().is_some() {
            bail!("`{shown}` holds files that are not the demo's; name another directory with --directory");
        }
        let marker = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path.join(MARKER))
            .with_context(written)?;
        match marker.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another demo is running in `{shown}`; end it, or name another directory with --directory"
                )
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(written),
        }
        empty(&path).with_context(written)?;
        Ok(Self { path, _marker: marker })
    }

    /// Where a file of the directory is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> &Path {
        &self.path
    }

    /// Makes a file that only its owner can read, with the directories above it.
    ///
    /// # Errors
    /// The file cannot be made, or is there already.
    pub(crate) fn create(&self, name: &str) -> anyhow::Result<File> {
        let path = self.path(name);
        let made = || format!("cannot make `{}`", path.display());
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).with_context(made)?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(made)
    }

    /// Makes a file, as [`Folder::create`] does, and fills it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.create(name)?.write_all(content.as_ref()).with_context(|| format!("cannot write `{name}`"))
    }
}

/// Removes everything but the marker, so that at no moment the directory is without one.
fn empty(directory: &Path) -> std::io::Result<()> {
    for entry in directory.read_dir()? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        let removed = if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())
        } else {
            std::fs::remove_file(entry.path())
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Where a file is, as an argument that a shell takes as it stands.
pub(crate) fn argument(directory: &Path, name: &str) -> String {
    quoted(&directory.join(name).display().to_string())
}

/// A word as a POSIX shell takes it: bare where nothing in it means anything to the shell, else in single
/// quotes.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%+=:,./-_".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{Folder, MARKER, quoted};
    use std::fs;

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        for (word, expected) in [
            ("demo/ca.pem", "demo/ca.pem"),
            ("@demo/a.hdr", "@demo/a.hdr"),
            ("my demo", "'my demo'"),
            ("it's", r"'it'\''s'"),
            ("https://127.0.0.1/?n=[1-9]", "'https://127.0.0.1/?n=[1-9]'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn a_directory_with_other_files_is_left_alone() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("demo");
        fs::create_dir(&path).expect("made");
        fs::write(path.join("thesis.txt"), "precious").expect("written");
        let refused = Folder::fresh(path.clone()).err().expect("refused").to_string();
        assert!(refused.contains("holds files that are not the demo's"), "{refused}");
        assert_eq!(fs::read_to_string(path.join("thesis.txt")).expect("still there"), "precious");
    }

    #[test]
    fn a_demo_directory_is_emptied_and_used_again() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("demo");
        let first = Folder::fresh(path.clone()).expect("made");
        first.write("policies/apis/a.yaml", "api: a").expect("written");
        drop(first);
        Folder::fresh(path.clone()).expect("made again");
        let left: Vec<_> =
            fs::read_dir(&path).expect("read").map(|entry| entry.expect("entry").file_name()).collect();
        assert_eq!(left, [MARKER]);
    }

    #[test]
    fn the_directory_of_a_running_demo_is_left_alone() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("demo");
        let running = Folder::fresh(path.clone()).expect("made");
        running.write("ca.pem", "x").expect("written");
        let refused = Folder::fresh(path.clone()).err().expect("refused").to_string();
        assert!(refused.contains("another demo is running"), "{refused}");
        assert!(path.join("ca.pem").exists());
    }

    #[test]
    fn only_the_owner_can_read_what_the_demo_writes() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().expect("a directory");
        let folder = Folder::fresh(parent.path().join("demo")).expect("made");
        folder.write("tls/server.key", "x").expect("written");
        for (name, expected) in [("", 0o700), ("tls", 0o700), ("tls/server.key", 0o600)] {
            let mode = fs::metadata(folder.path(name)).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, expected, "{name}");
        }
    }
}
