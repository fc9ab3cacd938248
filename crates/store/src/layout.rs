//! Where objects lie in a bucket (docs/formats/bucket.md). The journal keeps its own names below
//! [`JOURNAL`]; this module must not know them.

use crate::bucket::{InvalidKey, Key};
use crate::checksum::crc32c;

/// The marker object: whose bucket this is.
pub const MARKER: &str = "seaway.cluster";
pub const JOURNAL: &str = "journal/";
/// Journal bodies that are too large for their slot, by hash.
pub const BODIES: &str = "bodies/";
pub const SNAPSHOTS: &str = "snapshots/";
/// Snapshot chunks, by hash.
pub const CHUNKS: &str = "chunks/";
/// Files with record batches.
pub const FILES: &str = "files/";
/// Where processes of the cluster can be reached.
pub const NODES: &str = "nodes/";
/// Objects of the start-up probe; some stay behind if it is killed.
pub const PROBE: &str = "probe/";

/// A file's identity. Agents number their files from zero in each incarnation, so an identity is
/// never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The metadata shard; 0 as long as a cluster is one state machine.
    pub shard: u16,
    pub incarnation: u64,
    /// The file's number within the incarnation.
    pub number: u64,
}

/// The key of a file. The first part spreads consecutive files over 256 prefixes, because object
/// stores scale request rates by prefix. `nonce` is fresh for each cut file: a name is unique
/// even if an incarnation were ever given out twice.
pub fn file_key(mut id: FileId, mut nonce: u32) -> Key {
    if host::trial::leaves_out("overwrite-files") {
        (id.incarnation, nonce) = (0, 0);
    }
    let name = format!(
        "{:04x}-{:016x}-{:016x}-{nonce:08x}",
        id.shard, id.incarnation, id.number
    );
    let spread = crc32c(name.as_bytes()) & 0xff;
    known(Key::new(format!("{FILES}{spread:02x}/{name}")))
}

pub fn parse_file_key(key: &Key) -> Option<(FileId, u32)> {
    let (_, name) = key.as_str().strip_prefix(FILES)?.split_once('/')?;
    let mut parts = name.split('-');
    let mut next = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        u64::from_str_radix(part, 16).ok()
    };
    let id = FileId {
        shard: u16::try_from(next(4)?).ok()?,
        incarnation: next(16)?,
        number: next(16)?,
    };
    let nonce = u32::try_from(next(8)?).ok()?;
    // A key that decodes but is spelled otherwise is not a file that we named.
    (file_key(id, nonce) == *key).then_some((id, nonce))
}

pub fn marker_key() -> Key {
    known(Key::new(MARKER))
}

/// Unwraps a key that is built from valid parts.
pub(crate) fn known(key: Result<Key, InvalidKey>) -> Key {
    match key {
        Ok(key) => key,
        Err(error) => unreachable!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_key_says_which_file_it_is() {
        let id = FileId {
            shard: 0,
            incarnation: 0x17,
            number: 0xabc,
        };
        let key = file_key(id, 0xdead_beef);
        assert_eq!(
            key.as_str(),
            "files/ac/0000-0000000000000017-0000000000000abc-deadbeef"
        );
        assert_eq!(parse_file_key(&key), Some((id, 0xdead_beef)));
    }

    #[test]
    fn only_our_own_spelling_is_a_file() {
        let name = "0000-0000000000000017-0000000000000abc-deadbeef";
        let wrong_spread = format!("files/00/{name}");
        let signed = "files/ac/0000-000000000000+017-0000000000000abc-deadbeef";
        for text in [
            wrong_spread.as_str(),
            "files/ac/x",
            "chunks/aa",
            "files/ac/0-1-2-3",
        ] {
            let key = Key::new(text).expect("a key");
            assert_eq!(parse_file_key(&key), None, "{text}");
        }
        assert!(Key::new(signed).is_err());
    }

    #[test]
    fn consecutive_files_spread_over_prefixes() {
        let prefixes: std::collections::BTreeSet<String> = (0..1_000)
            .map(|number| {
                let id = FileId {
                    shard: 0,
                    incarnation: 1,
                    number,
                };
                file_key(id, 0).as_str()[..9].to_owned()
            })
            .collect();
        assert!(prefixes.len() > 200, "only {} prefixes", prefixes.len());
    }
}
