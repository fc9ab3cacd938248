//! A bucket that is a directory: what it has acknowledged survives the loss of power. Every object
//! is written and synced under a temporary name, linked to its own name, which fails if that is
//! taken, and then the directory is synced. It must not know what the objects mean, nor who else
//! uses the directory: several processes may.
//!
//! The local store of the `object_store` crate is not used: it hides leftovers of a crash beside
//! the objects for ever, does not sync deletions, lists without order or limit, copies each piece
//! with its own system call, and cannot tell a missing object from a file system that was
//! unmounted.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::io::Errno;

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put, Space};
use crate::bucket::{check_prefix, check_range, short_object};

mod walk;

/// Where objects are written before they have their name. No key can contain `#`.
const STAGING: &str = "#staging";
/// Leftovers in the staging directory older than this belong to a process that is gone: no single
/// write takes as long.
const LEFTOVER_SECONDS: i64 = 3_600;
/// A name that changed within this time may not be on disk yet, if the process that made it died
/// or is still about to sync it. Journalling file systems commit every few seconds by themselves.
const YOUNG_SECONDS: i64 = 60;

/// A bucket in a local directory.
#[derive(Clone, Debug)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Directories that are known to exist durably. This process never removes one.
    durable: Mutex<BTreeSet<PathBuf>>,
}

impl Directory {
    /// Opens the bucket at `root`, creates the directory if it is missing, and makes durable what
    /// an earlier process left there. Blocks.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        let failed = |what: &str, error: io::Error| {
            let detail = format!("{what}: {error}");
            Error::definite(Op::Head, root.to_string_lossy(), detail)
        };
        fs::create_dir_all(&root).map_err(|e| failed("cannot create the directory", e))?;
        let root =
            fs::canonicalize(&root).map_err(|e| failed("cannot resolve the directory", e))?;
        let staging = root.join(STAGING);
        match fs::create_dir(&staging) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("cannot write to the directory", error));
            }
            _ => {}
        }
        for directory in root.ancestors() {
            // An ancestor that we may not read was not made by us, and needs no sync.
            if sync_directory(directory).is_err() && directory == root {
                let error = io::Error::other("the directory cannot be synced");
                return Err(failed("cannot make the directory durable", error));
            }
        }
        sweep(&staging);
        sync_file_system(&root).map_err(|e| failed("cannot sync the file system", e))?;
        let durable = Mutex::new(BTreeSet::new());
        Ok(Directory {
            inner: Arc::new(Inner { root, durable }),
        })
    }

    /// The directory, without symbolic links.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        host::task::spawn_blocking(move || work(&inner)).await
    }
}

#[async_trait]
impl Bucket for Directory {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let key = key.clone();
        self.run(move |inner| inner.put_new(&key, &body)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let key = key.clone();
        self.run(move |inner| {
            let Some((mut file, size)) = inner.look(Op::Get, &key)? else {
                return Ok(None);
            };
            // One byte more than the size, so that reading notices the end without another
            // allocation.
            let mut bytes = Vec::with_capacity(size as usize + 1);
            file.read_to_end(&mut bytes)
                .map_err(|error| inner.failure(Op::Get, &key, &error))?;
            Ok(Some(bytes.into()))
        })
        .await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        check_range(key, &range)?;
        let key = key.clone();
        self.run(move |inner| {
            let Some((mut file, size)) = inner.look(Op::GetRange, &key)? else {
                return Ok(None);
            };
            if range.end > size {
                return Err(short_object(&key, &range, size));
            }
            let wanted = range.end - range.start;
            let mut bytes = Vec::with_capacity(wanted as usize);
            file.seek(SeekFrom::Start(range.start))
                .and_then(|_| file.take(wanted).read_to_end(&mut bytes))
                .map_err(|error| inner.failure(Op::GetRange, &key, &error))?;
            if bytes.len() as u64 != wanted {
                return Err(short_object(&key, &range, range.start + bytes.len() as u64));
            }
            Ok(Some(bytes.into()))
        })
        .await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        let key = key.clone();
        self.run(move |inner| Ok(inner.look(Op::Head, &key)?.map(|(_, size)| size)))
            .await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        let start_after = start_after.cloned();
        self.run(move |inner| {
            inner.present(Op::List, &prefix)?;
            walk::list(&inner.root, &prefix, start_after.as_ref(), limit)
                .map_err(|error| inner.failure(Op::List, &prefix, &error))
        })
        .await
    }

    async fn space(&self) -> io::Result<Option<Space>> {
        let inner = Arc::clone(&self.inner);
        let look = move || rustix::fs::statvfs(&inner.root);
        let found = host::task::spawn_blocking(look).await?;
        Ok(Some(Space {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        }))
    }

    fn is_remote(&self) -> bool {
        false
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let key = key.clone();
        self.run(move |inner| inner.delete(&key)).await
    }
}

impl Inner {
    fn put_new(&self, key: &Key, body: &Payload) -> Result<Put, Error> {
        let op = Op::PutNew;
        let path = self.root.join(key.as_str());
        let parent = path.parent().unwrap_or(&self.root);
        if path.symlink_metadata().is_ok() {
            // The existing object must survive a crash before a caller hears of it.
            sync_directory(parent).map_err(|error| self.failure(op, key, &error))?;
            return Ok(Put::Conflict);
        }
        self.make_durable(parent)
            .map_err(|error| self.no_effect(op, key, &error))?;
        let staged = self.root.join(STAGING).join(format!(
            "{}-{:032x}",
            std::process::id(),
            host::rng::nonce()
        ));
        let written = write_synced(&staged, body)
            .map_err(|error| self.no_effect(op, key, &error))
            .and_then(|()| self.publish(&staged, &path, parent, key));
        // If this fails, the next opening of the bucket removes the staged file.
        let _ = fs::remove_file(&staged);
        written
    }

    fn publish(&self, staged: &Path, path: &Path, parent: &Path, key: &Key) -> Result<Put, Error> {
        let mut linked = fs::hard_link(staged, path);
        if matches!(&linked, Err(error) if error.kind() == ErrorKind::NotFound) {
            // Somebody emptied the bucket under us: the directories must be made again.
            self.durable().clear();
            self.make_durable(parent)
                .map_err(|error| self.no_effect(Op::PutNew, key, &error))?;
            linked = fs::hard_link(staged, path);
        }
        let put = match linked {
            Ok(()) => Put::Created,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Put::Conflict,
            Err(error) => return Err(self.no_effect(Op::PutNew, key, &error)),
        };
        match sync_directory(parent) {
            Ok(()) => Ok(put),
            Err(error) => Err(Error::unknown(Op::PutNew, key, error)),
        }
    }

    fn delete(&self, key: &Key) -> Result<(), Error> {
        let path = self.root.join(key.as_str());
        match fs::remove_file(&path) {
            Ok(()) => {
                let parent = path.parent().unwrap_or(&self.root);
                sync_directory(parent).map_err(|error| Error::unknown(Op::Delete, key, error))
            }
            Err(error) if is_absence(&error) => self.present(Op::Delete, key.as_str()),
            // The key names a directory: it is no object, so there is nothing to delete.
            Err(_) if path.is_dir() => Ok(()),
            Err(error) => Err(self.failure(Op::Delete, key, &error)),
        }
    }

    /// Opens an object and says how long it is. What is seen here is durable: a name that was
    /// linked a moment ago, perhaps by a process that is dead by now, is synced first.
    fn look(&self, op: Op, key: &Key) -> Result<Option<(File, u64)>, Error> {
        let path = self.root.join(key.as_str());
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = match opened {
            Ok(opened) => opened,
            Err(error) if is_absence(&error) => {
                self.present(op, key.as_str())?;
                return Ok(None);
            }
            Err(error) => return Err(self.failure(op, key, &error)),
        };
        if !metadata.is_file() {
            return Ok(None);
        }
        let now = i64::try_from(host::clock::wall_millis() / 1_000).unwrap_or(i64::MAX);
        if metadata.ctime() > now.saturating_sub(YOUNG_SECONDS) {
            let parent = path.parent().unwrap_or(&self.root);
            sync_directory(parent).map_err(|error| self.failure(op, key, &error))?;
        }
        Ok(Some((file, metadata.len())))
    }

    /// Tells a bucket without the object from a directory that is gone, unmounted or replaced.
    fn present(&self, op: Op, key: &str) -> Result<(), Error> {
        if self.root.join(STAGING).is_dir() {
            return Ok(());
        }
        let detail = format!(
            "the bucket's directory {} is gone or not mounted",
            self.root.display()
        );
        Err(Error::definite(op, key, detail))
    }

    /// Creates `directory` and its parents below the root, durably.
    fn make_durable(&self, directory: &Path) -> io::Result<()> {
        if directory == self.root || self.durable().contains(directory) {
            return Ok(());
        }
        let parent = directory.parent().unwrap_or(&self.root);
        self.make_durable(parent)?;
        match fs::create_dir(directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => sync_directory(parent)?,
        }
        self.durable().insert(directory.to_owned());
        Ok(())
    }

    fn durable(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        // A set is whole whenever nobody is inside one of its methods.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error for a failure after which the effect is not known, unless its kind tells.
    fn failure(&self, op: Op, key: impl AsRef<str>, error: &io::Error) -> Error {
        match error.kind() {
            ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidFilename => Error::definite(op, key, error),
            _ => Error::unknown(op, key, error),
        }
    }

    /// The error for a failure before the object had its name.
    fn no_effect(&self, op: Op, key: impl AsRef<str>, error: &io::Error) -> Error {
        // Failures that pass by themselves when the machine is less busy.
        let busy = [
            Errno::INTR,
            Errno::NOMEM,
            Errno::MFILE,
            Errno::NFILE,
            Errno::AGAIN,
        ];
        match Errno::from_io_error(error) {
            Some(errno) if busy.contains(&errno) => Error::throttled(op, key, error),
            _ => Error::definite(op, key, error),
        }
    }
}

/// Whether `error` says that there is no such file.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn write_synced(path: &Path, body: &Payload) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut pieces: Vec<IoSlice<'_>> = body.pieces().iter().map(|p| IoSlice::new(p)).collect();
    let mut rest = pieces.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0); // drops empty pieces at the front
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // Syncs data and length; losing the times in the inode does no harm.
    file.sync_data()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(target_os = "linux")]
fn sync_file_system(root: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(root)?).map_err(io::Error::from)
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_root: &Path) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Removes from the staging directory what dead processes left; best effort.
fn sweep(staging: &Path) {
    let now = i64::try_from(host::clock::wall_millis() / 1_000).unwrap_or(i64::MAX);
    let Ok(entries) = fs::read_dir(staging) else {
        return;
    };
    for entry in entries.flatten() {
        let old = entry
            .metadata()
            .is_ok_and(|metadata| metadata.mtime() < now.saturating_sub(LEFTOVER_SECONDS));
        if old {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
