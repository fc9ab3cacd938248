//! Where the records and floors of a journal over three buckets lie (docs/formats/journal-three.md). It must not know what
//! they hold.

use store::bucket::Key;
use store::layout::JOURNAL;

use super::record::Place;

/// What all names of a configuration begin with.
fn prefix(shard: u16, configuration: u32) -> String {
    format!("{JOURNAL}{shard:04x}/{configuration:010}/")
}

/// The record at a link of a slot's chain.
pub(super) fn link(place: Place, link: u32) -> Key {
    let Place {
        shard,
        configuration,
        slot,
    } = place;
    key(format!(
        "{}{slot:020}/{link:010}",
        prefix(shard, configuration)
    ))
}

/// What the names of all records of a configuration begin with, and those of floors do not.
pub(super) fn slots(shard: u16, configuration: u32) -> String {
    // Twenty digits hold any slot, and no journal lives to need the first one.
    format!("{}0", prefix(shard, configuration))
}

/// What the names of a configuration's floors begin with.
pub(super) fn floors(shard: u16, configuration: u32) -> String {
    format!("{}floor/", prefix(shard, configuration))
}

/// The slot and link that a key names, if it is one of this configuration.
pub(super) fn parse(shard: u16, configuration: u32, named: &Key) -> Option<(u64, u32)> {
    let rest = named.as_str().strip_prefix(&prefix(shard, configuration))?;
    let (slot, number) = rest.split_once('/')?;
    let (slot, number) = (slot.parse().ok()?, number.parse().ok()?);
    let place = Place {
        shard,
        configuration,
        slot,
    };
    (link(place, number) == *named).then_some((slot, number))
}

/// Keys are built from valid parts.
pub(super) fn key(text: String) -> Key {
    Key::new(text).expect("a key of the journal is a key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented_and_only_those_are_read() {
        let page = include_str!("../../../../docs/formats/journal-three.md");
        let place = Place {
            shard: 0,
            configuration: 1,
            slot: 9,
        };
        let named = link(place, 2);
        assert!(page.contains(&format!("`{named}`")));
        assert_eq!(parse(0, 1, &named), Some((9, 2)));
        assert_eq!(parse(0, 2, &named), None);
        let floor = key(format!("{}{:020}", floors(0, 1), 1));
        assert!(page.contains(&format!("`{floor}`")));
        assert_eq!(parse(0, 1, &floor), None);
        let short = key(format!("{}9/2", prefix(0, 1)));
        assert_eq!(parse(0, 1, &short), None);
    }
}
