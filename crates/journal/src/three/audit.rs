//! Which slots a single bucket does not prove by itself: what it missed, under whichever leader, and so has to be written to it
//! as learned (R17). Only a hint: what is written is proven elsewhere. It must not know what is done about them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::BUCKETS;
use super::call::{Ask, Call, Owner, Said};
use super::context::Cx;
use super::judge::{Verdict, judge};
use super::record::Record;
use super::view::View;

/// Slots of one bucket that are being read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Audit {
    bucket: usize,
    views: BTreeMap<u64, View>,
    /// Requests under way.
    open: usize,
}

impl Audit {
    /// Asks the bucket for the first link of every slot that is not known to be a promise.
    pub(crate) fn begin(cx: &mut Cx<'_>, ask: Ask, bucket: usize, slots: Range<u64>) -> Self {
        let mut audit = Audit {
            bucket,
            views: BTreeMap::new(),
            open: 0,
        };
        for slot in slots {
            audit
                .views
                .insert(slot, View::new(cx.runs.of(slot, bucket)));
            audit.get(cx, ask, slot);
        }
        audit
    }

    fn get(&mut self, cx: &mut Cx<'_>, ask: Ask, slot: u64) {
        let view = self.views.entry(slot).or_default();
        for link in view.next_links(cx.settings.links_at_once) {
            let call = Call::Get {
                slot,
                link,
                again: false,
            };
            self.open += 1;
            cx.send(Owner::Audit(ask), self.bucket, call);
        }
    }

    /// Takes an answer; the slots that the bucket does not prove, once all were read as far as they say anything.
    pub(crate) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        ask: Ask,
        call: &Call,
        said: &Said,
    ) -> Option<Vec<u64>> {
        let Call::Get { slot, link, .. } = call else {
            return None;
        };
        let view = self.views.entry(*slot).or_default();
        match said {
            Said::Found(record) => {
                cx.met(record);
                view.take(*link, said);
            }
            Said::Absent | Said::Unreadable(_) => view.take(*link, said),
            Said::Wrong => view.is_unusable = true,
            _ => {
                cx.send(Owner::Audit(ask), self.bucket, call.repeated());
                return None;
            }
        }
        self.open -= 1;
        match self.open {
            0 => self.go_on(cx, ask),
            _ => None,
        }
    }

    /// Reads chains further that prove nothing yet; what is missing, if there is nothing more to read.
    fn go_on(&mut self, cx: &mut Cx<'_>, ask: Ask) -> Option<Vec<u64>> {
        let slots = self.views.keys().copied();
        let missing: Vec<u64> = slots.filter(|slot| !self.proves(cx, *slot)).collect();
        for slot in &missing {
            let view = &self.views[slot];
            if !view.is_whole && !view.is_unusable {
                self.get(cx, ask, *slot);
            }
        }
        (self.open == 0).then_some(missing)
    }

    fn proves(&self, cx: &Cx<'_>, slot: u64) -> bool {
        let mut views: [View; BUCKETS] = Default::default();
        views[self.bucket] = self.views.get(&slot).cloned().unwrap_or_default();
        let later = self.views.range(slot + 1..);
        let later: Vec<Arc<Record>> = later.flat_map(|(_, view)| view.chain.clone()).collect();
        let mut by_bucket: [Vec<Arc<Record>>; BUCKETS] = Default::default();
        by_bucket[self.bucket] = later;
        matches!(
            judge(slot, &views, &by_bucket, cx.rules),
            Verdict::Chosen(..)
        )
    }
}
