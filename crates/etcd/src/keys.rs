//! How keys are named, below a prefix that one cluster has for itself. It must not know what they hold.

use bytes::Bytes;

/// The names of one shard's keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    shard: u16,
}

/// Keys from the first on, before the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Bytes,
    pub(crate) end: Bytes,
}

impl Keys {
    pub(crate) fn new(prefix: &str, shard: u16) -> Self {
        Keys {
            prefix: prefix.to_owned(),
            shard,
        }
    }

    /// Says whose the prefix is.
    pub(crate) fn cluster(&self) -> Bytes {
        Bytes::from(format!("{}/cluster", self.prefix))
    }

    pub(crate) fn floor(&self) -> Bytes {
        Bytes::from(format!("{}/journal/{:04x}-floor", self.prefix, self.shard))
    }

    fn slots(&self) -> String {
        format!("{}/journal/{:04x}/", self.prefix, self.shard)
    }

    pub(crate) fn slot(&self, index: u64) -> Bytes {
        Bytes::from(format!("{}{index:020}", self.slots()))
    }

    /// All slots from this one on.
    pub(crate) fn slots_from(&self, index: u64) -> Span {
        Span {
            first: self.slot(index),
            end: after_all(&self.slots()),
        }
    }

    /// The slot that a key is, if it is one.
    pub(crate) fn index_of(&self, key: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(key).ok()?;
        let index = text.strip_prefix(&self.slots())?.parse().ok()?;
        (self.slot(index) == key).then_some(index)
    }

    /// Everything below the prefix.
    pub(crate) fn everything(&self) -> Span {
        let all = format!("{}/", self.prefix);
        Span {
            end: after_all(&all),
            first: Bytes::from(all),
        }
    }
}

/// The first key after all that begin with `prefix`, which ends with a slash.
fn after_all(prefix: &str) -> Bytes {
    let end = prefix.strip_suffix('/').unwrap_or(prefix);
    Bytes::from(format!("{end}0"))
}

/// A floor as its key holds it: texts of the same width are in the order of the numbers.
pub(crate) fn floor_text(floor: u64) -> Bytes {
    Bytes::from(format!("{floor:020}"))
}

/// Reads a floor; nothing else is one.
pub(crate) fn floor_of(text: &[u8]) -> Option<u64> {
    let floor = std::str::from_utf8(text).ok()?.parse().ok()?;
    (floor_text(floor) == text).then_some(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lie_in_the_order_of_their_numbers_and_are_read_back() {
        let keys = Keys::new("a/b", 3);
        assert_eq!(keys.slot(9), "a/b/journal/0003/00000000000000000009");
        for index in [0, 9, 10, 4_097, u64::MAX] {
            assert_eq!(keys.index_of(&keys.slot(index)), Some(index));
            assert!(keys.slots_from(0).first <= keys.slot(index));
            assert!(keys.slot(index) < keys.slots_from(0).end);
        }
        assert!(keys.slot(9) < keys.slot(10));
        for other in ["a/b/journal/0003/9", "a/b/journal/0003-floor", "c"] {
            assert_eq!(keys.index_of(other.as_bytes()), None);
        }
    }

    #[test]
    fn everything_is_what_begins_with_the_prefix_and_a_slash() {
        let Span { first, end } = Keys::new("sea", 0).everything();
        let is_in = |key: &str| first.as_ref() <= key.as_bytes() && key.as_bytes() < end.as_ref();
        assert!(is_in("sea/cluster") && is_in("sea/journal/0000/1"));
        assert!(!is_in("seaway/cluster") && !is_in("sea0") && !is_in("sea"));
    }

    #[test]
    fn floors_are_compared_as_text_and_spelled_in_one_way() {
        assert!(floor_text(9) < floor_text(10));
        assert!(floor_text(10) < floor_text(u64::MAX));
        assert_eq!(floor_of(&floor_text(4_097)), Some(4_097));
        for wrong in ["", "7", "+0000000000000000007", "0000000000000000000x"] {
            assert_eq!(floor_of(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
