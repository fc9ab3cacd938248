//! What speaks against what a bucket is known to hold: a file that an agent missed there, and, once another agent has missed one, too, the
//! suspicion that it was emptied or comes from an older copy. It must not know files, nor how they are looked for.

use std::collections::BTreeMap;

use crate::terms::ids::AgentId;

/// Of each bucket that something speaks against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doubts {
    pub(crate) of: BTreeMap<u32, Doubt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// An agent has missed a file there, at a time in ticks.
    Missed { by: AgentId, ticks_millis: u64 },
    /// What it holds is to be compared with what it is known to hold; since a time in ticks.
    Suspect { since_ticks: u64 },
}

/// Which agent missed a file, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Miss {
    pub(crate) by: AgentId,
    /// The cluster has no other: its word is enough if it says so twice.
    pub(crate) is_alone: bool,
    pub(crate) ticks_millis: u64,
    /// Two within so many ticks make a bucket suspect.
    pub(crate) within_millis: u64,
}

impl Doubts {
    /// An agent missed a file in a bucket.
    pub(crate) fn missed(&mut self, bucket: u32, miss: Miss) {
        let now = miss.ticks_millis;
        let is_confirmed = |by: AgentId, ticks_millis: u64| {
            (by != miss.by || miss.is_alone)
                && now.saturating_sub(ticks_millis) <= miss.within_millis
        };
        let doubt = match self.of.get(&bucket) {
            Some(suspect @ Doubt::Suspect { .. }) => *suspect,
            Some(Doubt::Missed { by, ticks_millis }) if is_confirmed(*by, *ticks_millis) => {
                Doubt::Suspect { since_ticks: now }
            }
            _ => Doubt::Missed {
                by: miss.by,
                ticks_millis: now,
            },
        };
        self.of.insert(bucket, doubt);
    }

    /// A comparison is over that began after the bucket had become suspect, at a time in ticks.
    pub(crate) fn compared(&mut self, bucket: u32, since_ticks: u64) {
        if self.of.get(&bucket) == Some(&Doubt::Suspect { since_ticks }) {
            self.of.remove(&bucket);
        }
    }

    /// Since when a bucket is suspect, in ticks; `None` if it is not.
    pub(crate) fn suspect_since(&self, bucket: u32) -> Option<u64> {
        match self.of.get(&bucket) {
            Some(Doubt::Suspect { since_ticks }) => Some(*since_ticks),
            Some(Doubt::Missed { .. }) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miss(agent: i32, ticks_millis: u64) -> Miss {
        Miss {
            by: AgentId(agent),
            is_alone: false,
            ticks_millis,
            within_millis: 100,
        }
    }

    #[test]
    fn a_bucket_is_suspect_once_two_agents_have_missed_files_there_within_a_while() {
        let mut doubts = Doubts::default();
        doubts.missed(1, miss(1, 0));
        doubts.missed(1, miss(1, 50));
        doubts.missed(2, miss(2, 50));
        assert_eq!(doubts.suspect_since(1), None, "the same agent");
        doubts.missed(1, miss(2, 151));
        assert_eq!(doubts.suspect_since(1), None, "long after");
        doubts.missed(1, miss(1, 251));
        assert_eq!(doubts.suspect_since(1), Some(251));
        assert_eq!(doubts.suspect_since(2), None);
        doubts.missed(1, miss(2, 260));
        assert_eq!(doubts.suspect_since(1), Some(251), "it stays the same");
    }

    #[test]
    fn the_only_agent_is_believed_the_second_time() {
        let mut doubts = Doubts::default();
        let alone = |ticks_millis| Miss {
            is_alone: true,
            ..miss(1, ticks_millis)
        };
        doubts.missed(1, alone(0));
        assert_eq!(doubts.suspect_since(1), None);
        doubts.missed(1, alone(10));
        assert_eq!(doubts.suspect_since(1), Some(10));
    }

    #[test]
    fn only_the_comparison_of_this_suspicion_ends_it() {
        let mut doubts = Doubts::default();
        doubts.missed(1, miss(1, 10));
        doubts.missed(1, miss(2, 20));
        doubts.compared(1, 10);
        doubts.compared(2, 20);
        assert_eq!(doubts.suspect_since(1), Some(20));
        doubts.compared(1, 20);
        assert_eq!(doubts.suspect_since(1), None);
        doubts.missed(1, miss(1, 30));
        assert_eq!(doubts.suspect_since(1), None, "it begins anew");
    }
}
