//! Whether another process lives that has this control node's name: by what the journal says of who registered by it, and what that
//! one answers. Of two the one that is registered goes on, and the other ends. Sans-IO; it must not know how others are asked.
//!
//! Where both are found at one address, so that none reaches the other, it shows by what each does: a run that takes the name back has
//! read that another took it, and lives.

use std::collections::BTreeMap;

use rpc::peer::Named;

/// Runs of which it is remembered how often they took the name.
const REMEMBERED_MAX: usize = 16;
/// Once may be from before the other ended.
const TAKEN_MAX: u32 = 2;

/// What to do about the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is this run's, or nobody's.
    Ours,
    /// Another run has registered by it: ask that one whether it is there.
    Ask,
    /// Another run that lives has it: this one is to end.
    Taken,
}

/// What one run knows of others that have its name.
#[derive(Debug)]
pub(crate) struct Namesakes {
    /// The nonce of this run.
    own: u128,
    /// The name was this run's at the last look.
    had_it: bool,
    /// How often others took it from this run, by their nonces.
    taken: BTreeMap<u128, u32>,
}

impl Namesakes {
    pub(crate) fn of(own: u128) -> Self {
        Namesakes {
            own,
            had_it: false,
            taken: BTreeMap::new(),
        }
    }

    /// The run with this nonce is registered by the name.
    pub(crate) fn see(&mut self, registered: Option<u128>) -> Verdict {
        let other = registered.filter(|nonce| *nonce != self.own);
        let had_it = std::mem::replace(&mut self.had_it, registered == Some(self.own));
        let Some(other) = other else {
            return Verdict::Ours;
        };
        if !had_it {
            return Verdict::Ask;
        }
        if self.taken.len() >= REMEMBERED_MAX {
            self.taken.pop_first();
        }
        let times = self.taken.entry(other).or_default();
        *times += 1;
        match *times >= TAKEN_MAX {
            true => Verdict::Taken,
            false => Verdict::Ask,
        }
    }

    /// What the one that is registered as `nonce` has answered; `None` if nobody has. One who does not find itself registered has not
    /// read as far as this run, or ends itself.
    pub(crate) fn judge(name: &str, nonce: u128, answer: Option<&Named>) -> Verdict {
        let is_it = |said: &Named| said.name == name && said.nonce == nonce && said.is_registered;
        match answer.is_some_and(is_it) {
            true => Verdict::Taken,
            false => Verdict::Ours,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(nonce: u128, is_registered: bool) -> Named {
        Named {
            name: "c".to_owned(),
            nonce,
            is_registered,
        }
    }

    #[test]
    fn the_name_of_a_run_that_answers_is_taken_and_that_of_one_that_is_gone_is_not() {
        let mut namesakes = Namesakes::of(1);
        assert_eq!(namesakes.see(None), Verdict::Ours);
        assert_eq!(namesakes.see(Some(2)), Verdict::Ask);
        let judge = |answer: Option<Named>| Namesakes::judge("c", 2, answer.as_ref());
        assert_eq!(judge(Some(named(2, true))), Verdict::Taken);
        assert_eq!(judge(None), Verdict::Ours);
        // Its address is this run's own by now, or another's.
        assert_eq!(judge(Some(named(1, false))), Verdict::Ours);
        // It has not read so far, or ends for the same reason.
        assert_eq!(judge(Some(named(2, false))), Verdict::Ours);
        assert_eq!(namesakes.see(Some(1)), Verdict::Ours);
    }

    #[test]
    fn of_two_runs_that_do_not_reach_each_other_the_one_ends_that_lost_the_name_twice() {
        let (mut one, mut two) = (Namesakes::of(1), Namesakes::of(2));
        let mut seen = Vec::new();
        // Whoever sees the other's name registered, and reaches nobody, registers again.
        for registered in [1, 2, 1, 2] {
            seen.push((one.see(Some(registered)), two.see(Some(registered))));
        }
        let (ours, ask, taken) = (Verdict::Ours, Verdict::Ask, Verdict::Taken);
        assert_eq!(seen, [(ours, ask), (ask, ours), (ours, ask), (taken, ours)]);
    }

    #[test]
    fn restarts_of_another_are_remembered_up_to_a_bound() {
        let mut namesakes = Namesakes::of(1);
        for nonce in 2..100 {
            assert_eq!(namesakes.see(Some(1)), Verdict::Ours);
            assert_eq!(namesakes.see(Some(nonce)), Verdict::Ask);
        }
        assert_eq!(namesakes.taken.len(), REMEMBERED_MAX);
    }
}
