//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the store could not be opened. In no case has the file been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it. Two gateways never share one file: each would hand out the other's units.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is something else: not a redb file, or one that another program wrote.
    #[error("{} is not a store of this gateway, and is left as it is", path.display())]
    NotOurs {
        /// The file that was found.
        path: PathBuf,
    },
    /// The file is a store, in a format this version does not know.
    #[error("{} has store format {found}, this version reads format {expected}", path.display())]
    OtherFormat {
        /// The store's file.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The format that is read.
        expected: u32,
    },
    /// The file is a store, or was one, and is damaged.
    #[error("{} is damaged: {detail}", path.display())]
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// The directory the file should be in does not exist.
    #[error("the directory {} does not exist", directory.display())]
    DirectoryMissing {
        /// The missing directory.
        directory: PathBuf,
    },
    /// There is no file yet and none can be made.
    #[error("{} cannot be created: {source}", path.display())]
    CannotCreate {
        /// The file to be made.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is there and cannot be used: no permission, a directory, a failing disk.
    #[error("{} cannot be opened for reading and writing: {source}", path.display())]
    CannotOpen {
        /// The store's file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The address of the shared store, or the trust for it, cannot be used.
    #[error(
        "the address of the shared store is none: write `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS"
    )]
    BadAddress,
    /// One of the other nodes of the shared store is none.
    #[error("`{0}` is no node of the shared store: write `host:port`")]
    BadNode(String),
    /// The thread that writes could not be started.
    #[error("the store's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// Why a quota could not be decided. Every one of them refuses the request (LIM-04): the caller may not be told that
/// units are used up, and may not be let through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The reservation could not be made durable: the disk is full, failing, or gone.
    #[error("the store cannot be written: {0}")]
    Disk(Arc<str>),
    /// The disk did not answer in time.
    #[error("the store did not answer in time")]
    TimedOut,
    /// More requests wait for the disk than may.
    #[error("too many requests wait for the store")]
    Overloaded,
    /// The shared store cannot be asked, or did not answer in time, or answered something else.
    #[error("the shared store does not answer")]
    NoAnswer,
    /// Another gateway has changed the same thing a moment ago; nothing was changed.
    #[error("another gateway has changed it a moment ago")]
    Conflict,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// The caller's key is longer than [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES).
    #[error("the caller's key is too long to be counted")]
    KeyTooLong,
}
