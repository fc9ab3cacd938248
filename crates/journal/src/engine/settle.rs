//! For engines that close slots one by one: decides which slots a take reads and closes, step by step and without I/O. All steps of one
//! round are made at the same time. It must not know buckets nor what entries mean.

use std::collections::BTreeMap;

use crate::engine::{Content, WINDOW};

/// Slots read in one round: the window, beyond a run of the same length.
const READS: u64 = 2 * WINDOW;

/// A step on one slot; its answer is what the slot holds afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Read(u64),
    /// Create the filler if the slot is free.
    Fill(u64),
}

/// One take, from its first slot to the end of what is settled.
pub struct Settle {
    from: u64,
    through: u64,
    /// Every slot below was read.
    read_to: u64,
    held: BTreeMap<u64, Content>,
    /// The first slot of the tenure, once it is known.
    end: Option<u64>,
    filled: bool,
}

impl Settle {
    /// Settles the slots from `from` on, and every slot below `through`.
    pub fn new(from: u64, through: u64) -> Self {
        Settle {
            from,
            through,
            read_to: from,
            held: BTreeMap::new(),
            end: None,
            filled: false,
        }
    }

    /// The steps of the next round, once all of the one before are answered; none once all is
    /// settled.
    pub fn round(&mut self) -> Vec<Step> {
        let Some(end) = self.end() else {
            let range = self.read_to..self.read_to + READS;
            self.read_to = range.end;
            return range.map(Step::Read).collect();
        };
        if std::mem::replace(&mut self.filled, true) {
            return Vec::new();
        }
        let is_free = |index: &u64| !self.held.contains_key(index);
        (self.from..end).filter(is_free).map(Step::Fill).collect()
    }

    /// Takes the answer to a step: `None` if the slot is free, which it never is after it was
    /// filled.
    pub fn answer(&mut self, step: Step, content: Option<Content>) {
        let (Step::Read(index) | Step::Fill(index)) = step;
        if let Some(content) = content {
            self.held.insert(index, content);
        }
    }

    /// The slot after the last that is occupied or to be closed; `None` while more must be read.
    fn end(&mut self) -> Option<u64> {
        if self.end.is_none() {
            let free = (self.from..self.read_to).find(|index| !self.held.contains_key(index))?;
            // The whole window beyond the first free slot must have been read.
            if self.read_to < free + WINDOW {
                return None;
            }
            let last = self.held.last_key_value();
            let occupied = last.map_or(self.from, |(index, _)| index + 1);
            self.end = Some(occupied.max(self.through).max(self.from));
        }
        self.end
    }

    /// The settled slots, in order, and the first slot of the tenure.
    pub fn settled(self) -> (Vec<(u64, Content)>, u64) {
        let end = self.end.unwrap_or(self.from);
        let settled: Vec<_> = self.held.into_iter().collect();
        debug_assert!(
            (self.from..end).eq(settled.iter().map(|(index, _)| *index)),
            "a slot is not settled"
        );
        (settled, end)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Rounds and steps until all is settled, with some slots occupied.
    fn settle(occupied: &[u64], from: u64, through: u64) -> (Vec<usize>, Vec<u64>, u64) {
        let mut settle = Settle::new(from, through);
        let (mut rounds, mut filled) = (Vec::new(), Vec::new());
        loop {
            let round = settle.round();
            if round.is_empty() {
                let (_, end) = settle.settled();
                return (rounds, filled, end);
            }
            rounds.push(round.len());
            for step in round {
                let content = match step {
                    Step::Read(index) => {
                        let entry = Content::Entry(Bytes::from_static(b"x"));
                        occupied.contains(&index).then_some(entry)
                    }
                    Step::Fill(index) => {
                        filled.push(index);
                        Some(Content::Filler)
                    }
                };
                settle.answer(step, content);
            }
        }
    }

    #[test]
    fn a_run_without_holes_is_read_and_nothing_is_closed() {
        assert_eq!(settle(&[], 1, 1), (vec![16], vec![], 1));
        assert_eq!(settle(&[4, 5], 4, 4), (vec![16], vec![], 6));
    }

    #[test]
    fn holes_below_what_is_occupied_are_closed_in_one_round() {
        assert_eq!(settle(&[4, 6, 9], 4, 4), (vec![16, 3], vec![5, 7, 8], 10));
    }

    #[test]
    fn what_may_still_be_on_its_way_is_shut_out() {
        let closed: Vec<u64> = (7..12).collect();
        assert_eq!(settle(&[4, 5, 6], 4, 12), (vec![16, 5], closed, 12));
    }

    #[test]
    fn a_long_run_is_read_on_until_all_that_may_fly_is_seen() {
        let occupied: Vec<u64> = (1..=30).chain([33]).collect();
        assert_eq!(settle(&occupied, 1, 1).1, vec![31, 32]);
        // The first free slot is the last but seven of what was read.
        let occupied: Vec<u64> = (1..=9).collect();
        assert_eq!(settle(&occupied, 1, 1).0, vec![16, 16]);
    }
}
