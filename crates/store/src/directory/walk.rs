//! Listing a directory tree in the order of keys. It must not know how objects are written.
//!
//! Keys are ordered by bytes over the whole path, in which `-` and `.` come before `/`, so a
//! directory sorts as its name with a slash. Names that are no keys are not ours and are skipped.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::bucket::{Key, ObjectMeta};

/// At most `limit` objects below `root` that begin with `prefix` and come after `start_after`.
pub(super) fn list(
    root: &Path,
    prefix: &str,
    start_after: Option<&Key>,
    limit: usize,
) -> io::Result<Vec<ObjectMeta>> {
    let mut walk = Walk {
        root,
        prefix,
        after: start_after.map_or("", Key::as_str),
        limit,
        found: Vec::new(),
    };
    // Everything that begins with the prefix lies below its last whole part.
    let top = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
    walk.descend(top)?;
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    found: Vec<ObjectMeta>,
}

impl Walk<'_> {
    /// Visits the directory `path`, which is empty or ends with a slash.
    fn descend(&mut self, path: &str) -> io::Result<()> {
        for name in self.names(path)? {
            if self.found.len() >= self.limit {
                return Ok(());
            }
            if name.ends_with('/') {
                self.descend(&name)?;
            } else if let Ok(key) = Key::new(name) {
                self.visit(key)?;
            }
        }
        Ok(())
    }

    fn visit(&mut self, key: Key) -> io::Result<()> {
        match fs::symlink_metadata(self.root.join(key.as_str())) {
            Ok(metadata) => self.found.push(ObjectMeta {
                key,
                size: metadata.len(),
            }),
            // The object was deleted after its name was read.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The full names in the directory `path` that the listing may need, sorted as keys.
    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.root.join(path)) {
            Ok(entries) => entries,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let kind = entry.file_type()?;
            let slash = if kind.is_dir() { "/" } else { "" };
            let name = format!("{path}{name}{slash}");
            if (kind.is_dir() || kind.is_file()) && self.matters(&name) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn matters(&self, name: &str) -> bool {
        if let Some(directory) = name.strip_suffix('/') {
            // The directory may hold keys that begin with the prefix and come after the start.
            return Key::new(directory).is_ok()
                && (name.starts_with(self.prefix) || self.prefix.starts_with(name))
                && (name > self.after || self.after.starts_with(name));
        }
        name.starts_with(self.prefix) && name > self.after
    }
}
