//! A slot's chain in one bucket as a reader sees it: what was read, and which links to ask for next. It must not know what
//! the records prove.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::ahead::{Link, links_after};
use super::call::Said;
use super::record::Record;

/// One slot's chain in one bucket, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct View {
    /// Links below `chain`, which hold nothing but promises, as this process has read before.
    pub(crate) run: u32,
    /// The records behind those, without a gap.
    pub(crate) chain: Vec<Arc<Record>>,
    /// Links that were read beyond a gap.
    pub(crate) ahead: BTreeMap<u32, Link>,
    /// An absent link beyond the end of the chain, or at it.
    pub(crate) absent: Option<u32>,
    /// Links before this one were asked for.
    pub(crate) asked: u32,
    /// The chain was read to an absent link.
    pub(crate) is_whole: bool,
    /// A link cannot be read, and may be a higher promise: the bucket is not used for this slot.
    pub(crate) is_unusable: bool,
}

impl View {
    /// A chain of which so many links are known to be promises.
    pub(crate) fn new(run: u32) -> Self {
        View {
            run,
            asked: run,
            ..View::default()
        }
    }

    /// The first link that was not read.
    pub(crate) fn end(&self) -> u32 {
        self.run + self.chain.len() as u32
    }

    /// The links to ask for next, which count as asked for from now on.
    pub(crate) fn next_links(&mut self, at_once: u32) -> Range<u32> {
        let begin = self.asked;
        // Most chains hold a single record, or end with a value; only promises are often many.
        let links = match self.chain.last() {
            Some(last) if last.is_promise() => links_after(self.chain.len() as u32 - 1, at_once),
            _ => 1,
        };
        self.asked = self.asked.max(self.end() + links);
        begin..self.asked
    }

    /// Takes the answer of a link.
    pub(crate) fn take(&mut self, link: u32, said: &Said) {
        match Link::of(said) {
            Some(read) => drop(self.ahead.insert(link, read)),
            None => self.absent = Some(self.absent.map_or(link, |known| known.min(link))),
        }
        while let Some(read) = self.ahead.remove(&self.end()) {
            match read {
                Link::Holds(record) => self.chain.push(record),
                Link::Unreadable { .. } => {
                    self.is_unusable = true;
                    return;
                }
            }
        }
        self.is_whole |= self.absent == Some(self.end());
    }

    pub(crate) fn has_value(&self) -> bool {
        self.chain.iter().any(|record| record.content().is_some())
    }
}
