//! The simulated bucket: a linearizable map of immutable objects behind requests that fail in every way a store can fail.
//!
//! A request is planned when it is sent ([`Plan`]): when it takes effect, if at all, and when and how it is answered. The
//! effect happens at one instant. Must not know what the objects mean.

use std::collections::BTreeMap;

use bytes::Bytes;
use host::rng::Rng;

use crate::faults::{Fault, Faults};

/// A request is answered within this time, or its client gives up.
pub const GIVE_UP_US: u64 = 2_000_000;
/// Without faults a request takes between these.
const USUAL_US: (u64, u64) = (1_000, 20_000);
/// A put that comes late comes up to so much later.
const LATE_US: u64 = 60_000_000;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Create if absent.
    Put(String, Bytes),
    Get(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Created,
    /// Perhaps something is there; it is no proof.
    Conflict,
    Found(Bytes),
    /// There is none.
    Absent,
    /// It did not happen.
    Throttled,
    /// It may have happened or may still happen.
    Unknown,
}

/// When a request happens and how it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// It takes effect after this delay; `None`: never.
    pub effect_us: Option<u64>,
    /// It is answered after this delay.
    pub answer_us: u64,
    /// What is answered whatever the effect says; `None`: what the effect says.
    pub instead: Option<Answer>,
    /// A read is altered on its way back.
    pub corrupt: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Bucket {
    objects: BTreeMap<String, Bytes>,
}

/// Draws what becomes of a request.
pub fn plan(request: &Request, faults: &mut Faults, rng: &mut Rng) -> Plan {
    let (low_us, high_us) = USUAL_US;
    let mut takes_us = low_us + rng.below(high_us - low_us);
    if faults.strike(Fault::SlowBucket, rng) {
        takes_us += rng.below(2 * GIVE_UP_US);
    }
    let mut plan = Plan {
        effect_us: Some(takes_us / 2),
        answer_us: takes_us,
        instead: None,
        corrupt: false,
    };
    if takes_us > GIVE_UP_US {
        (plan.answer_us, plan.instead) = (GIVE_UP_US, Some(Answer::Unknown));
    }
    if faults.strike(Fault::FailingBucket, rng) {
        let answer = if rng.below(2) == 0 {
            Answer::Throttled
        } else {
            Answer::Unknown
        };
        return Plan {
            effect_us: None,
            instead: Some(answer),
            ..plan
        };
    }
    if faults.strike(Fault::LostAnswer, rng) {
        (plan.answer_us, plan.instead) = (GIVE_UP_US, Some(Answer::Unknown));
    }
    if matches!(request, Request::Get(_)) && faults.strike(Fault::CorruptRead, rng) {
        plan.corrupt = true;
    }
    if matches!(request, Request::Put(..)) {
        if faults.strike(Fault::LatePut, rng) {
            let late_us = GIVE_UP_US + rng.below(LATE_US);
            let instead = Some(Answer::Unknown);
            return Plan {
                effect_us: Some(late_us),
                answer_us: GIVE_UP_US,
                instead,
                corrupt: false,
            };
        }
        if faults.strike(Fault::LyingConflict, rng) {
            // Either it created the object and a hidden retry met it, or it did nothing yet.
            plan.effect_us = plan.effect_us.filter(|_| rng.below(2) == 0);
            plan.instead = Some(Answer::Conflict);
        }
    }
    plan
}

impl Bucket {
    /// Lets the request take effect.
    pub fn perform(&mut self, request: &Request) -> Answer {
        match request {
            Request::Put(key, bytes) => match self.objects.get(key) {
                Some(_) => Answer::Conflict,
                None => {
                    self.objects.insert(key.clone(), bytes.clone());
                    Answer::Created
                }
            },
            Request::Get(key) => self
                .objects
                .get(key)
                .map_or(Answer::Absent, |bytes| Answer::Found(bytes.clone())),
        }
    }

    /// The object, without a request.
    pub fn peek(&self, key: &str) -> Option<&Bytes> {
        self.objects.get(key)
    }
}

/// The same bytes with one bit flipped, unless there are none.
pub fn corrupted(bytes: &Bytes, rng: &mut Rng) -> Bytes {
    let mut altered = bytes.to_vec();
    if !altered.is_empty() {
        let at = rng.below(altered.len() as u64) as usize;
        altered[at] ^= 1 << rng.below(8);
    }
    altered.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str) -> Request {
        Request::Put(key.into(), Bytes::from_static(b"x"))
    }

    #[test]
    fn objects_are_created_once() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.perform(&put("a")), Answer::Created);
        assert_eq!(bucket.perform(&put("a")), Answer::Conflict);
        let get = |key: &str| Request::Get(key.to_owned());
        let found = Answer::Found(Bytes::from_static(b"x"));
        assert_eq!(bucket.perform(&get("a")), found);
        assert_eq!(bucket.perform(&get("b")), Answer::Absent);
    }

    #[test]
    fn a_late_put_is_unknown_first_and_happens_after_the_client_gave_up() {
        let mut faults = Faults::only(&[Fault::LatePut], 1_000_000);
        let plan = plan(&put("a"), &mut faults, &mut Rng::seeded(1));
        assert_eq!(plan.instead, Some(Answer::Unknown));
        assert_eq!(plan.answer_us, GIVE_UP_US);
        assert!(
            plan.effect_us
                .is_some_and(|effect_us| effect_us >= GIVE_UP_US)
        );
    }

    #[test]
    fn corruption_changes_one_bit() {
        let bytes = Bytes::from_static(b"abc");
        let altered = corrupted(&bytes, &mut Rng::seeded(2));
        let bits: u32 = bytes
            .iter()
            .zip(&altered)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert_eq!(bits, 1);
    }
}
