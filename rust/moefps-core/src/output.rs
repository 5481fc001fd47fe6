//! Where the tiles of a matrix go: memory, or a .npy file that appears whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// An element of an output matrix.
pub trait Element: bytemuck::Pod + Send + Sync {
    /// numpy's name of the dtype, little-endian.
    const DESCRIPTION: &'static str;
    /// The bytes that go to a file.
    fn to_le(self) -> Self;
}

impl Element for f32 {
    const DESCRIPTION: &'static str = "<f4";
    fn to_le(self) -> Self {
        Self::from_bits(self.to_bits().to_le())
    }
}

impl Element for f64 {
    const DESCRIPTION: &'static str = "<f8";
    fn to_le(self) -> Self {
        Self::from_bits(self.to_bits().to_le())
    }
}

/// Takes runs of elements at their place in the flattened matrix. Runs given by different threads never overlap.
pub trait Output<T: Element>: Sync {
    /// Stores `run` from element `at` on.
    ///
    /// # Errors
    /// The file could not be written.
    fn put(&self, at: usize, run: &[T]) -> Result<()>;
}

/// A slice that several threads fill, each its own part.
pub struct Memory<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `put`, and its callers never give overlapping runs to different threads.
unsafe impl<T: Send> Sync for Memory<'_, T> {}

impl<'a, T: Element> Memory<'a, T> {
    /// Fills `slice`.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }
}

impl<T: Element> Output<T> for Memory<'_, T> {
    fn put(&self, at: usize, run: &[T]) -> Result<()> {
        assert!(at <= self.len && run.len() <= self.len - at);
        // SAFETY: inside the slice, which is borrowed for as long as `self` lives; no overlap, see above.
        unsafe { self.start.add(at).copy_from_nonoverlapping(run.as_ptr(), run.len()) };
        Ok(())
    }
}

/// A .npy file under a temporary name in the folder of `path`, which it takes over in [`NpyFile::finish`]. Dropped
/// before that, it is removed.
pub struct NpyFile<T> {
    file: NamedTempFile,
    path: PathBuf,
    header: u64,
    element: PhantomData<T>,
}

impl<T: Element> NpyFile<T> {
    /// Starts a file that will hold an array of `shape` in C order.
    ///
    /// # Errors
    /// The folder is missing or not writable, or the disk is full.
    pub fn create(path: &Path, shape: &[usize]) -> Result<Self> {
        let failed = |source| Error::Output { path: path.to_path_buf(), source };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".moefps-").suffix(".npy.part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // What any new file gets; the process's umask takes away from it.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(folder).map_err(failed)?;
        let header = npy_header(T::DESCRIPTION, shape);
        let elements: usize = shape.iter().product();
        file.write_all(&header).map_err(failed)?;
        file.as_file().set_len((header.len() + elements * size_of::<T>()) as u64).map_err(failed)?;
        Ok(Self { file, path: path.to_path_buf(), header: header.len() as u64, element: PhantomData })
    }

    /// Gives the file its name, over any file of that name.
    ///
    /// # Errors
    /// The file could not be renamed.
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        self.file.persist(&path).map(drop).map_err(|e| Error::Output { path, source: e.error })
    }
}

impl<T: Element> Output<T> for NpyFile<T> {
    fn put(&self, at: usize, run: &[T]) -> Result<()> {
        let offset = self.header + (at * size_of::<T>()) as u64;
        let write = if cfg!(target_endian = "little") {
            write_all_at(self.file.as_file(), bytemuck::cast_slice(run), offset)
        } else {
            let run: Vec<T> = run.iter().map(|v| v.to_le()).collect();
            write_all_at(self.file.as_file(), bytemuck::cast_slice(&run), offset)
        };
        write.map_err(|source| Error::Output { path: self.path.clone(), source })
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// The header of a version 1.0 .npy file (numpy's NEP 1): padded so that the data starts at a multiple of 64.
fn npy_header(description: &str, shape: &[usize]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(|n| format!("{n},")).collect();
    let mut dictionary =
        format!("{{'descr': '{description}', 'fortran_order': False, 'shape': ({}), }}", sizes.join(" "));
    let prefix = b"\x93NUMPY\x01\x00".len() + 2;
    let unpadded = prefix + dictionary.len() + 1;
    dictionary.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    dictionary.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((dictionary.len() as u16).to_le_bytes());
    header.extend(dictionary.as_bytes());
    header
}
