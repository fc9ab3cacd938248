//! A trim: the floor is raised in two buckets before anything is deleted, and in a bucket only what lies below that bucket's
//! own floor is (R14). Which slots may be deleted the caller says (R15). It must not know what they hold.

use std::sync::Arc;

use super::BUCKETS;
use super::call::{Ask, Call, Owner, Said};
use super::context::{Cx, Outcome};
use super::rule::Mutation;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Trim {
    floor: u64,
    slots: Arc<[u64]>,
    raised: [bool; BUCKETS],
    sweeping: [bool; BUCKETS],
    swept: [bool; BUCKETS],
    told: bool,
}

impl Trim {
    pub(crate) fn new(floor: u64, slots: Arc<[u64]>) -> Self {
        Trim {
            floor,
            slots,
            raised: [false; BUCKETS],
            sweeping: [false; BUCKETS],
            swept: [false; BUCKETS],
            told: false,
        }
    }

    pub(crate) fn begin(&mut self, cx: &mut Cx<'_>, ask: Ask) {
        for bucket in 0..BUCKETS {
            let floor = self.floor;
            let raise = Call::Raise {
                floor,
                again: false,
            };
            cx.send(Owner::Trim(ask), bucket, raise);
        }
        if cx.rules.broken(Mutation::DeleteBeforeFloor) {
            self.raised = [true; BUCKETS];
            self.sweep(cx, ask);
        }
    }

    /// Takes a bucket's answer; true once the trim is over in all three.
    pub(crate) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        ask: Ask,
        bucket: usize,
        call: &Call,
        said: &Said,
    ) -> bool {
        match (call, said) {
            (Call::Raise { .. }, Said::Done) => {
                self.raised[bucket] = true;
                self.sweep(cx, ask);
            }
            (Call::Sweep { .. }, Said::Done) => self.swept[bucket] = true,
            (_, Said::Wrong) => {}
            _ => cx.send(Owner::Trim(ask), bucket, call.repeated()),
        }
        let swept = self.swept.iter().filter(|swept| **swept).count();
        if swept >= 2 && !self.told {
            self.told = true;
            cx.done(ask, Outcome::Trimmed);
        }
        swept == BUCKETS
    }

    fn sweep(&mut self, cx: &mut Cx<'_>, ask: Ask) {
        let quorum = match cx.rules.broken(Mutation::FloorInOne) {
            true => 1,
            false => 2,
        };
        if self.raised.iter().filter(|raised| **raised).count() < quorum {
            return;
        }
        for bucket in 0..BUCKETS {
            if self.raised[bucket] && !self.sweeping[bucket] {
                self.sweeping[bucket] = true;
                let slots = Arc::clone(&self.slots);
                let sweep = Call::Sweep {
                    slots,
                    again: false,
                };
                cx.send(Owner::Trim(ask), bucket, sweep);
            }
        }
    }
}
