//! One partition of a fetch: what the reader wants of it, and what is known of it. Pure. It must
//! not know the reader.

use std::sync::Arc;

use host::trial::leaves_out;
use meta::ids::PartitionId;
use meta::places::{Located, SlicePlace};
use rpc::call::Locate;

use super::plan::{self, Want};

/// A partition's place in [`Items`].
pub type Slot = u32;

/// Something that happened to a partition, as a notice tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A slice was added.
    Advanced {
        high_watermark: i64,
        place: SlicePlace,
    },
    /// The first offset that can be read has moved.
    LogStart(i64),
    /// Something changed that only another look can tell, which must see this end or a later one.
    Look { high_watermark: i64 },
}

impl Change {
    /// Combines two changes, `next` after `self`.
    pub(super) fn and(self, next: Change) -> Change {
        match (self, next) {
            (Change::LogStart(before), Change::LogStart(after)) => {
                Change::LogStart(before.max(after))
            }
            _ => Change::Look {
                high_watermark: self.high_watermark().max(next.high_watermark()),
            },
        }
    }

    /// The end that it tells of, or an earlier one.
    fn high_watermark(self) -> i64 {
        match self {
            Change::Advanced { high_watermark, .. } | Change::Look { high_watermark } => {
                high_watermark
            }
            Change::LogStart(_) => 0,
        }
    }
}

/// What is known of the partition from the wanted offset on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// There are records at the offset; the control plane must be asked where.
    Behind(Bounds),
    /// Where the records are; no places if the offset is the end.
    Here(Bounds, Vec<SlicePlace>),
    /// The offset seems to be outside, or the partition gone: a current answer decides.
    Doubt,
    Outside(Bounds),
    Gone,
    /// The control plane gave no answer.
    Failed(Arc<rpc::Error>),
    /// The caller refused the partition, and knows why.
    Refused {
        ends_wait: bool,
    },
}

/// The offsets that can be read: from `log_start` to before `high_watermark`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub log_start: i64,
    pub high_watermark: i64,
}

/// The next step for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing, until the partition changes.
    None,
    /// Its records can be read.
    Read,
    Locate,
    /// Locate it again with a current answer.
    Confirm,
    /// Say so in an answer that waits for nothing.
    Tell,
}

/// One partition of a fetch.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) partition: PartitionId,
    pub(super) want: Want,
    pub(super) known: Known,
    /// The latest end that a notice told of. A look may be answered by a control node that is behind
    /// the one that told: then a current answer is asked for, since the notice does not come again.
    pub(super) told_end: i64,
}

impl Item {
    pub(super) fn need(&self) -> Need {
        match &self.known {
            Known::Nothing | Known::Behind(_) => Need::Locate,
            Known::Here(_, places) if places.is_empty() => Need::None,
            Known::Here(..) => Need::Read,
            Known::Doubt => Need::Confirm,
            Known::Refused { ends_wait: false } => Need::None,
            Known::Outside(_)
            | Known::Gone
            | Known::Failed(_)
            | Known::Refused { ends_wait: true } => Need::Tell,
        }
    }

    pub(super) fn bounds(&self) -> Option<Bounds> {
        match &self.known {
            Known::Here(bounds, _) | Known::Behind(bounds) | Known::Outside(bounds) => {
                Some(*bounds)
            }
            _ => None,
        }
    }

    pub(super) fn places(&self) -> &[SlicePlace] {
        match &self.known {
            Known::Here(_, places) => places,
            _ => &[],
        }
    }

    pub(super) fn request(&self) -> Locate {
        let Want { offset, max_bytes } = self.want;
        Locate {
            partition: self.partition,
            offset,
            max_bytes,
        }
    }

    /// Takes an answer of the control plane; `is_current` if it rests on a current index.
    pub(super) fn locate(&mut self, located: Located, is_current: bool, places_max: usize) {
        self.known = match located {
            Located::Found { high_watermark, .. }
                if !is_current && high_watermark < self.told_end =>
            {
                Known::Doubt
            }
            Located::Found {
                log_start,
                high_watermark,
                mut places,
            } => {
                if places.len() > places_max {
                    places.truncate(places_max);
                    places.shrink_to_fit();
                }
                let bounds = Bounds {
                    log_start,
                    high_watermark,
                };
                Known::Here(bounds, places)
            }
            _ if !is_current => Known::Doubt,
            Located::OutOfRange {
                log_start,
                high_watermark,
            } => Known::Outside(Bounds {
                log_start,
                high_watermark,
            }),
            Located::UnknownPartition => Known::Gone,
        };
    }

    /// Applies a change. A slice that begins where the known ones end is appended to them without
    /// another look. One that lies before that end is known already, from a look that was ahead of
    /// the notice.
    pub(super) fn note(&mut self, change: Change) {
        let want = self.want;
        self.told_end = self.told_end.max(change.high_watermark());
        let (bounds, places) = match &mut self.known {
            Known::Here(bounds, places) => (bounds, Some(places)),
            Known::Behind(bounds) => (bounds, None),
            Known::Nothing | Known::Doubt | Known::Refused { .. } => return,
            Known::Outside(_) | Known::Gone | Known::Failed(_) => {
                self.known = Known::Nothing;
                return;
            }
        };
        match change {
            Change::Advanced { high_watermark, .. } if high_watermark <= bounds.high_watermark => {}
            Change::Advanced {
                high_watermark,
                place,
            } if place.base_offset == bounds.high_watermark || leaves_out("the-tail-joins") => {
                let end = bounds.high_watermark;
                bounds.high_watermark = high_watermark;
                if let Some(places) = places {
                    let next = places
                        .last()
                        .map_or(want.offset, |last| last.last_offset + 1);
                    if next == end && plan::offered_bytes(want, places) < want.max_bytes.max(1) {
                        places.push(place);
                    }
                }
            }
            Change::LogStart(log_start) if log_start <= want.offset => {
                bounds.log_start = bounds.log_start.max(log_start);
            }
            Change::Advanced { .. } | Change::LogStart(_) | Change::Look { .. } => {
                self.known = Known::Nothing;
            }
        }
    }

    /// Changes what the reader wants. Places are not kept from one request to the next: a reader
    /// that is behind asks for them again, one at the end learns of them by notices.
    pub(super) fn want(&mut self, want: Want) {
        self.want = want;
        self.known = match &self.known {
            Known::Here(bounds, _) | Known::Behind(bounds)
                if want.offset == bounds.high_watermark =>
            {
                Known::Here(*bounds, Vec::new())
            }
            Known::Here(bounds, _) | Known::Behind(bounds)
                if (bounds.log_start..bounds.high_watermark).contains(&want.offset) =>
            {
                Known::Behind(*bounds)
            }
            Known::Refused { ends_wait } => Known::Refused {
                ends_wait: *ends_wait,
            },
            _ => Known::Nothing,
        };
    }
}

#[cfg(test)]
mod tests {
    use meta::ids::FileId;

    use super::*;

    fn place(base_offset: i64, last_offset: i64) -> SlicePlace {
        SlicePlace {
            file: FileId::default(),
            nonce: 0,
            file_length: 1_000,
            position: 16,
            length: 10,
            base_offset,
            last_offset,
            max_timestamp: 0,
        }
    }

    fn advanced(base_offset: i64, last_offset: i64) -> Change {
        Change::Advanced {
            high_watermark: last_offset + 1,
            place: place(base_offset, last_offset),
        }
    }

    /// A reader at the end of a partition of ten records.
    fn at_the_end() -> Item {
        let bounds = Bounds {
            log_start: 0,
            high_watermark: 10,
        };
        Item {
            partition: PartitionId(1),
            want: Want {
                offset: 10,
                max_bytes: 25,
            },
            known: Known::Here(bounds, Vec::new()),
            told_end: 0,
        }
    }

    #[test]
    fn a_slice_that_joins_the_end_needs_no_look() {
        let mut item = at_the_end();
        item.note(advanced(5, 9));
        assert_eq!(
            item.need(),
            Need::None,
            "what was seen already changes nothing"
        );
        item.note(advanced(10, 11));
        item.note(advanced(12, 12));
        assert_eq!(item.places(), [place(10, 11), place(12, 12)]);
        assert_eq!(item.bounds().unwrap().high_watermark, 13);
        item.note(advanced(13, 13));
        item.note(advanced(14, 14));
        assert_eq!(item.places().len(), 3, "no more than may be read");
        assert_eq!(item.bounds().unwrap().high_watermark, 15);
    }

    #[test]
    fn what_does_not_join_is_looked_for() {
        let look = Change::Look { high_watermark: 0 };
        for change in [advanced(11, 12), Change::LogStart(11), look] {
            let mut item = at_the_end();
            item.note(change);
            assert_eq!(item.need(), Need::Locate, "{change:?}");
        }
        let mut item = at_the_end();
        item.note(Change::LogStart(10));
        assert_eq!(
            (item.need(), item.bounds().unwrap().log_start),
            (Need::None, 10)
        );
    }

    #[test]
    fn an_answer_from_before_a_notice_is_asked_for_again() {
        let both = advanced(10, 11).and(advanced(12, 12));
        for (change, behind, end) in [(advanced(10, 11), 10, 12), (both, 12, 13)] {
            let found = |high_watermark| Located::Found {
                log_start: 0,
                high_watermark,
                places: Vec::new(),
            };
            let mut item = at_the_end();
            item.known = Known::Nothing;
            item.note(change);
            item.locate(found(behind), false, 8);
            assert_eq!(item.need(), Need::Confirm, "{change:?}");
            item.locate(found(end), false, 8);
            assert_eq!(item.need(), Need::None, "{change:?}");
        }
    }

    #[test]
    fn only_a_current_index_says_that_an_offset_is_outside() {
        let mut item = at_the_end();
        let outside = Located::OutOfRange {
            log_start: 12,
            high_watermark: 20,
        };
        item.locate(outside.clone(), false, 8);
        assert_eq!(item.need(), Need::Confirm);
        item.locate(outside, true, 8);
        assert_eq!(item.need(), Need::Tell);
        item.locate(Located::UnknownPartition, false, 8);
        assert_eq!(item.need(), Need::Confirm);
    }

    #[test]
    fn a_reader_that_moves_to_the_known_end_is_told_of_what_comes() {
        let mut item = at_the_end();
        item.note(advanced(10, 12));
        item.note(advanced(13, 13));
        let to = |offset| Want {
            offset,
            max_bytes: 25,
        };
        item.want(to(14));
        assert_eq!(item.need(), Need::None);
        item.want(to(13));
        assert_eq!(item.known, Known::Behind(item.bounds().unwrap()));
        item.want(to(15));
        assert_eq!(item.need(), Need::Locate);
    }
}
