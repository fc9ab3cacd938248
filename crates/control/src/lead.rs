//! How this node came to lead: from whom it took the lead, and why that one leads no more. Pure. It must not know how a lead is
//! taken.

use std::collections::BTreeMap;
use std::fmt;

use host::clock::Instant;
use rpc::peer::Reason;

/// Why a node took the lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Because {
    /// Nobody is known to have led before.
    First,
    /// The process that led was gone: its machine refused connections.
    Lost,
    /// The one that led was silent.
    Silent,
    /// It resigned.
    Resigned(Reason),
}

impl Because {
    /// One word, for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Because::First => "first",
            Because::Lost => "lost",
            Because::Silent => "silent",
            Because::Resigned(Reason::Ended) => "ended",
            Because::Resigned(Reason::ClockWrong) => "clock_wrong",
            Because::Resigned(Reason::Unreached) => "unreached",
            Because::Resigned(Reason::Preferred) => "preferred",
            Because::Resigned(Reason::Faster) => "faster",
            Because::Resigned(Reason::StoresNothing) => "stores_nothing",
        }
    }
}

/// What is said of the one that led before.
impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Because::First => "is known to have led before",
            Because::Lost => "was lost",
            Because::Silent => "was silent",
            Because::Resigned(Reason::Ended) => "resigned: it was told to end",
            Because::Resigned(Reason::ClockWrong) => "resigned: its clock is wrong",
            Because::Resigned(Reason::Unreached) => "resigned: no agent reached it",
            Because::Resigned(Reason::Preferred) => "resigned: this region is preferred",
            Because::Resigned(Reason::Faster) => "resigned: commits take less time here",
            Because::Resigned(Reason::StoresNothing) => "resigned: it could not store snapshots",
        })
    }
}

/// The lead as this node has taken it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What the one that led before calls itself in its claims, if it is known.
    pub from: Option<String>,
    pub because: Because,
    pub at: Instant,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_deref().unwrap_or("nobody");
        write!(f, "{from} {}", self.because)
    }
}

/// The last claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Its slot.
    pub(crate) slot: u64,
    /// What its node calls itself in it.
    pub(crate) by: String,
}

/// Memory of who led, and why this node does.
#[derive(Debug, Default)]
pub(crate) struct Lead {
    before: Option<Claim>,
    /// The claim whose node has resigned in favour of this one.
    told: Option<(u64, Reason)>,
    taken: Option<Taken>,
    counts: BTreeMap<Because, u64>,
}

impl Lead {
    /// The node whose claim is in this slot says that it has resigned, and why.
    pub(crate) fn hear(&mut self, claim: u64, reason: Reason) {
        self.told = Some((claim, reason));
    }

    /// Notes the last claim, which is `own` if this node leads by it; `gone` is the slot of the claim whose process was last said to be
    /// gone. Yields how the lead was taken, if this node has just taken it.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        last: Claim,
        own: bool,
        gone: u64,
    ) -> Option<Taken> {
        if self.before.as_ref() == Some(&last) {
            return None;
        }
        let before = self.before.replace(last.clone());
        let is_renewed = before.as_ref().is_some_and(|before| before.by == last.by);
        if !own || is_renewed {
            return None;
        }
        let because = match (&before, self.told) {
            (_, Some((claim, reason))) if before.as_ref().is_none_or(|one| one.slot == claim) => {
                Because::Resigned(reason)
            }
            (None, _) => Because::First,
            (Some(before), _) if before.slot == gone => Because::Lost,
            (Some(_), _) => Because::Silent,
        };
        let taken = Taken {
            from: before.map(|before| before.by),
            because,
            at: now,
        };
        *self.counts.entry(because).or_default() += 1;
        self.taken = Some(taken.clone());
        Some(taken)
    }

    /// How this node last came to lead, whether or not it still does.
    pub(crate) fn taken(&self) -> Option<&Taken> {
        self.taken.as_ref()
    }

    /// How often it did for each reason.
    pub(crate) fn counts(&self) -> &BTreeMap<Because, u64> {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(slot: u64, by: &str) -> Claim {
        Claim {
            slot,
            by: by.to_owned(),
        }
    }

    /// Follows b's claim in slot 5 and has then taken the lead itself.
    fn taken(told: Option<(u64, Reason)>, gone: u64) -> Because {
        let mut lead = Lead::default();
        let now = Instant::from_millis(1);
        assert_eq!(lead.look(now, claim(5, "b"), false, 0), None);
        if let Some((slot, reason)) = told {
            lead.hear(slot, reason);
        }
        let taken = lead.look(now, claim(9, "a"), true, gone).expect("taken");
        assert_eq!(taken.from.as_deref(), Some("b"));
        taken.because
    }

    #[test]
    fn the_reason_is_that_of_the_one_that_led_before() {
        assert_eq!(taken(None, 0), Because::Silent);
        assert_eq!(taken(None, 5), Because::Lost);
        let preferred = Because::Resigned(Reason::Preferred);
        assert_eq!(taken(Some((5, Reason::Preferred)), 0), preferred);
        // What was said of an earlier claim is of no account.
        assert_eq!(taken(Some((4, Reason::Preferred)), 0), Because::Silent);
        assert_eq!(taken(Some((4, Reason::Preferred)), 5), Because::Lost);
    }

    #[test]
    fn a_claim_that_is_renewed_or_of_another_takes_nothing() {
        let mut lead = Lead::default();
        let now = Instant::from_millis(1);
        let first = lead.look(now, claim(1, "a"), true, 0).expect("the first");
        assert_eq!((first.from, first.because), (None, Because::First));
        assert_eq!(lead.look(now, claim(1, "a"), true, 0), None);
        assert_eq!(lead.look(now, claim(4, "a"), true, 0), None);
        assert_eq!(lead.look(now, claim(6, "b"), false, 0), None);
        assert_eq!(lead.counts().values().sum::<u64>(), 1);
        assert!(lead.look(now, claim(8, "a"), true, 6).is_some());
        assert_eq!(lead.counts()[&Because::Lost], 1);
        assert_eq!(lead.taken().expect("twice").to_string(), "b was lost");
    }
}
