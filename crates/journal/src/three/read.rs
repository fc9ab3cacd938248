//! A scan: reads chains in as few buckets as will do and hands out the slots that they prove (R10 to R13). It must not know
//! what entries mean; the caller reads the floor where the journal asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::BUCKETS;
use super::ballot::Ballot;
use super::call::{Ask, Call, Owner, Said};
use super::context::Cx;
use super::held::acknowledged;
use super::judge::{Proven, Reading, Verdict, judge};
use super::record::Record;
use super::rule::{Mutation, Rules};
use super::view::View;

/// A scan under way: of several slots in the bucket that is asked first, of the first slot in others as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Read {
    from: u64,
    /// Slots that are read at once.
    slots: u64,
    /// Buckets from the nearest on.
    order: [usize; BUCKETS],
    /// Every bucket is asked for all slots.
    is_wide: bool,
    /// How many of them were asked.
    asked: usize,
    views: BTreeMap<u64, [View; BUCKETS]>,
    /// Requests under way, by bucket.
    open: [usize; BUCKETS],
}

impl Read {
    pub(crate) fn new(from: u64, slots: u64, order: [usize; BUCKETS], is_wide: bool) -> Self {
        Read {
            from,
            slots: slots.max(1),
            order,
            is_wide,
            asked: 0,
            views: BTreeMap::new(),
            open: [0; BUCKETS],
        }
    }

    /// Asks the nearest bucket for the first link of every slot; for a single slot, which is probably the last, and in a wide scan,
    /// a second bucket at once.
    pub(crate) fn begin(&mut self, cx: &mut Cx<'_>, ask: Ask) {
        self.ask_next(cx, ask);
        if self.slots == 1 || self.is_wide {
            self.ask_next(cx, ask);
        }
    }

    /// Asks one more bucket: the first for all slots, others for the first slot, unless the scan is wide. False if all were asked.
    pub(crate) fn ask_next(&mut self, cx: &mut Cx<'_>, ask: Ask) -> bool {
        let Some(bucket) = self.order.get(self.asked).copied() else {
            return false;
        };
        let slots = match self.asked > 0 && !self.is_wide {
            true => 1,
            false => self.slots,
        };
        self.asked += 1;
        for slot in self.from..self.from + slots {
            let run = cx.runs.of(slot, bucket);
            self.view(slot)[bucket] = View::new(run);
            self.get(cx, ask, bucket, slot);
        }
        true
    }

    fn view(&mut self, slot: u64) -> &mut [View; BUCKETS] {
        self.views.entry(slot).or_default()
    }

    /// Asks for the next links of a chain.
    fn get(&mut self, cx: &mut Cx<'_>, ask: Ask, bucket: usize, slot: u64) {
        let links = self.view(slot)[bucket].next_links(cx.settings.links_at_once);
        for link in links {
            let call = Call::Get {
                slot,
                link,
                again: false,
            };
            self.open[bucket] += 1;
            cx.send(Owner::Read(ask), bucket, call);
        }
    }

    /// True if two buckets have given their whole chain of the first slot.
    pub(crate) fn is_answered(&self) -> bool {
        let views = self.views.get(&self.from).into_iter().flatten();
        views.filter(|view| view.is_whole).count() >= 2
    }

    /// Takes a bucket's answer; yields what the scan came to once nothing is gained by asking on.
    pub(crate) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        ask: Ask,
        bucket: usize,
        call: &Call,
        said: &Said,
    ) -> Option<Reading> {
        let Call::Get { slot, link, .. } = call else {
            return None;
        };
        self.open[bucket] -= 1;
        let view = &mut self.view(*slot)[bucket];
        match said {
            Said::Found(record) => {
                cx.met(record);
                view.take(*link, said);
                cx.runs.note(*slot, bucket, view.run, &view.chain);
                let is_read = view.end() == view.asked;
                if is_read && !self.is_proven_alone(*slot, bucket, cx.rules) {
                    self.get(cx, ask, bucket, *slot);
                }
            }
            Said::Absent => view.take(*link, said),
            Said::Unreadable(why) => {
                if *why == super::record::Unreadable::Newer {
                    cx.alarm(format!("slot {slot} holds a record of a newer version"));
                }
                view.take(*link, said);
            }
            Said::Wrong => view.is_unusable = true,
            _ => {
                self.open[bucket] += 1;
                cx.send(Owner::Read(ask), bucket, call.repeated());
                // Others are not waited for once one has failed.
                if *slot == self.from {
                    self.ask_next(cx, ask);
                }
            }
        }
        self.look(cx, ask)
    }

    /// A chain that is long enough: its first record is an accept, which the ones of later slots may prove.
    fn is_proven_alone(&self, slot: u64, bucket: usize, rules: Rules) -> bool {
        let views = &self.views[&slot];
        let is_last = slot + 1 == self.from + self.slots;
        let is_first = slot == self.from;
        let has_value = |view: &View| view.chain.iter().any(|record| record.content().is_some());
        let verdict = judge(slot, views, &self.later(slot), rules);
        // The chain of the first slot is read until something proves it; of the others only up to a value.
        matches!(verdict, Verdict::Chosen(..))
            || (!is_first && has_value(&views[bucket]))
            || (!is_last
                && self.slots > 1
                && !self.is_wide
                && has_value(&views[bucket])
                && self.open[bucket] > 0)
    }

    fn later(&self, slot: u64) -> [Vec<Arc<Record>>; BUCKETS] {
        std::array::from_fn(|bucket| {
            let later = self.views.range(slot + 1..);
            let chains = later.flat_map(|(_, views)| views[bucket].chain.iter());
            chains.cloned().collect()
        })
    }

    fn look(&mut self, cx: &mut Cx<'_>, ask: Ask) -> Option<Reading> {
        let verdict = self.verdict(self.from, cx.rules);
        let is_chosen = matches!(verdict, Verdict::Chosen(..));
        // A run is read whole before it is handed out.
        if is_chosen && (self.slots == 1 || self.is_run_read()) {
            return Some(self.reading(cx, false));
        }
        if verdict == Verdict::Free {
            return Some(self.reading(cx, true));
        }
        let is_open = self.open.iter().any(|open| *open > 0);
        if is_open {
            return None;
        }
        // The chain of the first slot may have been left unread beyond its first value.
        for bucket in self.order.into_iter().take(self.asked) {
            let view = &self.views[&self.from][bucket];
            if !view.is_whole && !view.is_unusable && view.asked == view.end() {
                self.get(cx, ask, bucket, self.from);
                return None;
            }
        }
        match self.ask_next(cx, ask) {
            true => None,
            false => Some(self.reading(cx, false)),
        }
    }

    /// Nothing more comes of the buckets that were asked for the whole run: the nearest, or in a wide scan any two.
    fn is_run_read(&self) -> bool {
        if !self.is_wide {
            return self.open[self.order[0]] == 0;
        }
        let asked = self.order.iter().take(self.asked);
        asked.filter(|bucket| self.open[**bucket] == 0).count() >= 2
    }

    fn verdict(&self, slot: u64, rules: Rules) -> Verdict {
        match self.views.get(&slot) {
            Some(views) => judge(slot, views, &self.later(slot), rules),
            None => Verdict::Undecided,
        }
    }

    /// What is known now.
    pub(crate) fn reading(&self, cx: &mut Cx<'_>, is_free: bool) -> Reading {
        let mut slots = Vec::new();
        for slot in self.from..self.from + self.slots {
            let Verdict::Chosen(ballot, content, proof) = self.verdict(slot, cx.rules) else {
                break;
            };
            slots.push(Proven {
                slot,
                ballot,
                content,
                proof,
                acknowledged: self.acknowledged(slot, ballot),
            });
        }
        if slots.is_empty() && cx.rules.broken(Mutation::FillUnproven) {
            self.fill_unproven(cx);
        }
        let answered = self.views.get(&self.from).map_or(0, |views| {
            let gave = views
                .iter()
                .filter(|view| view.is_whole || !view.chain.is_empty());
            gave.count()
        });
        let holds_value = |slot: &u64| {
            let views = self.views.get(slot);
            views.is_some_and(|views| views.iter().any(View::has_value))
        };
        let seen = (self.from..self.from + self.slots).take_while(holds_value);
        Reading {
            slots,
            is_free,
            answered,
            seen: seen.count() as u64,
        }
    }

    fn acknowledged(&self, slot: u64, ballot: Ballot) -> [bool; BUCKETS] {
        let views = self.views.range(slot..).flat_map(|(_, views)| views);
        acknowledged(slot, ballot, views.flat_map(|view| &view.chain))
    }

    /// What R17 forbids: a single accept is taken for proof.
    fn fill_unproven(&self, cx: &mut Cx<'_>) {
        let views = self.views.get(&self.from);
        let records = views.into_iter().flatten().flat_map(|view| &view.chain);
        for record in records {
            if let Some(content) = record.content() {
                cx.proven(self.from, record.ballot, content.clone());
            }
        }
    }
}
