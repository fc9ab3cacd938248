//! What each bucket that should hold a file has under its name. It must not know why somebody asks, nor what follows.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use meta::ids::{FileId, Incarnation};
use meta::places::{FileRef, StoredFile};
use store::bucket::Key;
use store::buckets::Buckets;
use store::checksum::crc32c;
use store::layout::{file_key, parse_file_key};
use store::retry::Retry;

use super::report::Word;
use crate::data::cache::stored_id;

/// Most files that wait to be examined: readers name them again.
const DOUBTFUL_MAX: usize = 1_000;

/// What was found of the copies of a file.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// The file as it was written, if a bucket gave it so.
    pub whole: Option<Bytes>,
    /// Buckets that do not have it as it was written.
    pub bad: Vec<(u32, Word)>,
}

/// Reads a file whole from each bucket that holds it as far as is known, but for one, until one has given it as it was written; `all`: from each.
/// One that does not answer is left out.
pub(crate) async fn examine(
    buckets: &Buckets,
    but: Option<u32>,
    all: bool,
    file: &StoredFile,
    retry: &Retry,
) -> Examined {
    let key = key_of(file.file);
    let mut examined = Examined::default();
    for number in file.held.iter().filter(|number| Some(**number) != but) {
        if examined.whole.is_some() && !all {
            break;
        }
        let Some(bucket) = buckets.by_itself(*number) else {
            continue;
        };
        match retry.get(&*bucket, &key).await {
            Ok(Some(content)) if is_whole(&content, file) => {
                examined.whole.get_or_insert(content);
            }
            Ok(Some(_)) => examined.bad.push((*number, Word::Damaged)),
            Ok(None) => examined.bad.push((*number, Word::Missing)),
            Err(error) => tracing::debug!(number, %key, %error, "a copy could not be read"),
        }
    }
    examined
}

/// Whether these are the bytes that the metadata know.
pub(crate) fn is_whole(content: &Bytes, file: &StoredFile) -> bool {
    content.len() as u64 == file.length && crc32c(content) == file.checksum
}

/// The name of a file in a bucket.
pub(crate) fn key_of(file: FileRef) -> Key {
    file_key(stored_id(file.file), file.nonce)
}

/// The file that has this name in a bucket; `None` if it is not the name of a file.
pub(crate) fn file_of(key: &Key) -> Option<FileRef> {
    let (id, nonce) = parse_file_key(key)?;
    let file = FileId {
        incarnation: Incarnation(id.incarnation),
        number: id.number,
    };
    Some(FileRef { file, nonce })
}

/// Files of which a reader was given something else than their index says, or nothing.
#[derive(Debug, Default)]
pub(crate) struct Doubtful {
    files: Mutex<BTreeSet<FileRef>>,
}

impl Doubtful {
    pub(crate) fn note(&self, file: FileRef) {
        let mut files = self.files();
        if files.len() < DOUBTFUL_MAX {
            files.insert(file);
        }
    }

    /// One that is to be examined.
    pub(crate) fn take(&self) -> Option<FileRef> {
        self.files().pop_first()
    }

    fn files(&self) -> MutexGuard<'_, BTreeSet<FileRef>> {
        // No code that can panic runs under this lock.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
