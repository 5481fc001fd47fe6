//! The one error type of the crate.

use std::path::PathBuf;

/// What can go wrong. The messages are written for the person who called: argument, found, accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another thread cancelled the task.
    #[error("cancelled")]
    Cancelled,
    /// A value of an array is not what it must be.
    #[error("{0}")]
    Data(String),
    /// An argument other than an array's values is not accepted.
    #[error("{0}")]
    Argument(String),
    /// An output file could not be written.
    #[error("{}: {}", path.display(), explain(source))]
    Output {
        /// The file that was to be written.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Memory for an intermediate array could not be had.
    #[error("out of memory: {bytes} bytes for {what}")]
    Memory {
        /// What the memory was for.
        what: &'static str,
        /// How much was asked for.
        bytes: usize,
    },
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// What the operating system said, in the terms of somebody who wants to write a file.
fn explain(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{FileTooLarge, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        NotFound | NotADirectory => "cannot be written: its folder does not exist".into(),
        PermissionDenied | ReadOnlyFilesystem => "cannot be written: its folder is not writable".into(),
        IsADirectory => "cannot be written: a folder of that name exists".into(),
        StorageFull | QuotaExceeded => "cannot be written: the disk is full".into(),
        FileTooLarge => "cannot be written: larger than files may be here".into(),
        _ => format!("cannot be written: {error}"),
    }
}
