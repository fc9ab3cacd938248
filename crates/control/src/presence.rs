//! Which processes are there: whom the leader hears, whom it has lost, and whom it is to take for gone: agents, which it fences, and
//! control nodes, which it forgets. Sans-IO; it must not know how they are heard. Both are always safe: whoever is alive registers
//! anew. It only must not be hasty.
//!
//! An agent keeps a call open at the leader. One whose connection breaks is given a moment to call again, unless all its addresses
//! refuse connections, found so twice: one refusal may be that of a machine or a service in between. One that is silent is given a while. Silence counts only while this node leads and is awake: what it did not hear then says nothing about others.

use std::collections::BTreeMap;
use std::time::Duration;

use host::clock::Instant;

/// A node that looks this late has slept: whatever it has missed meanwhile, it has not listened.
pub(crate) const SLEPT: Duration = Duration::from_secs(1);

/// An agent that is there calls within so long: each call is answered after a second, and called again.
const CALLS_WITHIN: Duration = Duration::from_secs(4);

/// It calls a node that has just taken the lead within so long: without an answer it turns to all control nodes after half a second. One
/// that takes longer may lose its name to another process that asks for it then, and is told so; nothing else comes of it, while a
/// cluster that starts as a whole would wait.
const CALLS_FIRST_WITHIN: Duration = Duration::from_millis(1_500);

/// One whose connection has broken calls again at once, or looks who leads meanwhile.
const CALLS_AGAIN_WITHIN: Duration = Duration::from_secs(1);

/// Addresses that refuse connections do so for good if they still do after so long: who starts again at once, or a service that
/// has lost sight of its process for a moment, is back by then.
const REFUSES_FOR: Duration = Duration::from_millis(50);

/// One that has not called a leader for so long after it took the lead is looked for: whoever is there finds a new leader sooner.
const UNHEARD_FOR: Duration = Duration::from_millis(200);
/// How many are looked for at the same time.
const SOUGHT_MAX: usize = 256;

/// Whether a process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsHere {
    Yes,
    No,
    NotKnownYet,
}

/// How long processes may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// One that is not heard for so long is gone.
    pub silence_max: Duration,
    /// The same once its connection is lost.
    pub lost_for: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard<Said> {
    /// Calls that it keeps open.
    open: u32,
    /// When it was heard last, or, if it was not yet, when it was first seen to be registered.
    at: Instant,
    /// When it called last.
    called_at: Option<Instant>,
    is_lost: bool,
    /// Its last call was passed on by another node. If that breaks, it was not the agent's own connection, and says less.
    is_relayed: bool,
    /// Since when its addresses refuse connections, tried while it is lost.
    refused_since: Option<Instant>,
    /// They have refused more than once: nobody is there.
    is_refused: bool,
    /// What it has said of itself last.
    said: Option<Said>,
}

impl<Said> Heard<Said> {
    /// One that has not called yet.
    fn not_yet(at: Instant) -> Self {
        Heard {
            open: 0,
            at,
            called_at: None,
            is_lost: false,
            is_relayed: false,
            refused_since: None,
            is_refused: false,
            said: None,
        }
    }
}

/// The processes of a kind as the leader hears them, by what each run of them is known by, each with what it says of itself.
#[derive(Debug)]
pub struct Presence<Id, Said> {
    settings: Settings,
    heard: BTreeMap<Id, Heard<Said>>,
    /// Since when it listens; `None` while it does not lead.
    listens_since: Option<Instant>,
    looked_at: Instant,
}

impl<Id: Copy + Ord, Said: Clone> Presence<Id, Said> {
    pub fn new(settings: Settings) -> Self {
        Presence {
            settings,
            heard: BTreeMap::new(),
            listens_since: None,
            looked_at: Instant::default(),
        }
    }

    /// An agent has called.
    pub fn calls(&mut self, now: Instant, run: Id) {
        let heard = self.heard.entry(run);
        let heard = heard.or_insert(Heard::not_yet(now));
        heard.open += 1;
        heard.at = now;
        heard.called_at = Some(now);
        heard.is_lost = false;
        heard.is_relayed = false;
        heard.refused_since = None;
        heard.is_refused = false;
    }

    /// The call that has just come was passed on by another node.
    pub fn was_relayed(&mut self, run: Id) {
        if let Some(heard) = self.heard.get_mut(&run) {
            heard.is_relayed = true;
        }
    }

    /// One that has called says this of itself.
    pub fn says(&mut self, run: Id, said: Said) {
        if let Some(heard) = self.heard.get_mut(&run) {
            heard.said = Some(said);
        }
    }

    /// What each that was heard since this node listens has said of itself, and when it was heard last.
    pub fn said(&self) -> impl Iterator<Item = (Id, &Said, Instant)> {
        self.heard.iter().filter_map(|(run, heard)| {
            let called_at = heard.called_at?;
            Some((*run, heard.said.as_ref()?, called_at))
        })
    }

    /// Since when this node listens; `None` while it does not lead.
    pub fn listens_since(&self) -> Option<Instant> {
        self.listens_since
    }

    fn calls_after(&self, at: Instant) -> bool {
        let mut heard = self.heard.values();
        heard.any(|heard| heard.called_at > Some(at))
    }

    /// A call of an agent was answered, so that it calls again.
    pub fn answered(&mut self, now: Instant, run: Id) {
        self.ends(now, run, false);
    }

    /// The connection of a call broke.
    pub fn lost(&mut self, now: Instant, run: Id) {
        self.ends(now, run, true);
    }

    fn ends(&mut self, now: Instant, run: Id, is_lost: bool) {
        if let Some(heard) = self.heard.get_mut(&run) {
            heard.open = heard.open.saturating_sub(1);
            heard.at = now;
            // A later call may have come before the end of an earlier one was noticed.
            heard.is_lost = is_lost && heard.open == 0;
        }
    }

    /// Whether a run is there whose name another process asked for at `asked_at`: it is if it has called since. Whoever
    /// is there calls within [`CALLS_WITHIN`] of a call before, within [`CALLS_FIRST_WITHIN`] of the begin of this node's lead, and one
    /// whose connection has broken within [`CALLS_AGAIN_WITHIN`].
    pub fn is_here(&self, now: Instant, run: Id, asked_at: Instant) -> IsHere {
        let heard = self.heard.get(&run);
        let called_at = heard.and_then(|heard| heard.called_at);
        if called_at > Some(asked_at) {
            return IsHere::Yes;
        }
        let listens_since = self.listens_since.unwrap_or(now);
        let (silent_since, calls_within) = match called_at {
            Some(at) if at >= listens_since => (at, CALLS_WITHIN),
            _ => (listens_since, CALLS_FIRST_WITHIN),
        };
        let is_lost = heard.is_some_and(|heard| heard.is_lost && !heard.is_relayed);
        let is_gone = now.since(silent_since) >= calls_within
            || is_lost && now.since(asked_at) >= CALLS_AGAIN_WITHIN;
        match is_gone {
            true => IsHere::No,
            false => IsHere::NotKnownYet,
        }
    }

    /// Whether a run keeps a call open.
    pub fn keeps_a_call(&self, run: Id) -> bool {
        self.heard.get(&run).is_some_and(|heard| heard.open > 0)
    }

    /// Agents whose connection is lost and that have not called again, or that have not called at all since this node leads: it is
    /// worth a try whether somebody listens at their addresses.
    pub fn lost_ones(&self, now: Instant) -> Vec<Id> {
        let heard = self.heard.iter();
        let lost = heard.filter(|(_, heard)| heard.is_lost || self.is_unheard(now, heard));
        lost.map(|(run, _)| *run).take(SOUGHT_MAX).collect()
    }

    /// True of one that has not called since this node leads, though it has had time to.
    fn is_unheard(&self, now: Instant, heard: &Heard<Said>) -> bool {
        let Some(since) = self.listens_since else {
            return false;
        };
        let has_called = heard.open > 0 || heard.called_at.is_some_and(|at| at >= since);
        !has_called && now.since(heard.at.max(since)) >= UNHEARD_FOR
    }

    /// The addresses of an agent that is lost were tried: all refuse connections, or not. If they go on to, its process has ended, and
    /// it is not waited for.
    pub fn tried(&mut self, now: Instant, run: Id, all_refuse: bool) {
        let is_sought = |heard: &Heard<Said>| heard.is_lost || self.is_unheard(now, heard);
        if !self.heard.get(&run).is_some_and(is_sought) {
            return;
        }
        let Some(heard) = self.heard.get_mut(&run) else {
            return;
        };
        let since = heard.refused_since.get_or_insert(now);
        heard.is_refused = all_refuse && now.since(*since) >= REFUSES_FOR;
        if !all_refuse {
            heard.refused_since = None;
        }
    }

    /// Says which of the agents that are `alive` are to be fenced now. It is to be called often, with whether this node leads.
    /// If it `may_be_cut_off`, so that another should lead, silence shows nothing until somebody else calls.
    pub fn gone(
        &mut self,
        now: Instant,
        leads: bool,
        may_be_cut_off: bool,
        alive: impl IntoIterator<Item = Id>,
    ) -> Vec<Id> {
        let slept = now.since(self.looked_at);
        self.looked_at = now;
        if !leads {
            self.listens_since = None;
            self.heard.retain(|_, heard| heard.open > 0);
            return Vec::new();
        }
        let since = match self.listens_since {
            None => now,
            Some(since) if slept > SLEPT => {
                for heard in self.heard.values_mut() {
                    heard.at = heard.at + slept;
                }
                since + slept
            }
            Some(since) => since,
        };
        self.listens_since = Some(since);
        let mut gone = Vec::new();
        let mut kept = BTreeMap::new();
        for run in alive {
            let heard = self.heard.get(&run).cloned();
            // Whoever has registered a moment ago calls in a moment.
            let heard = heard.unwrap_or(Heard::not_yet(now));
            let heard_at = match host::trial::leaves_out("fence-only-the-silent") {
                false => heard.at.max(since),
                true => since,
            };
            let (at, patience) = match heard {
                Heard { open: 1.., .. } => (now, self.settings.silence_max),
                Heard {
                    is_refused: true, ..
                } => (now, Duration::ZERO),
                _ if may_be_cut_off && !self.calls_after(heard.at) => (now, Duration::MAX),
                Heard {
                    is_lost: true,
                    is_relayed: false,
                    ..
                } => (heard_at, self.settings.lost_for),
                _ => (heard_at, self.settings.silence_max),
            };
            if now.since(at) >= patience {
                gone.push(run);
            }
            kept.insert(run, heard);
        }
        // One that is not registered yet, as far as this node has applied, may have called already.
        let called = std::mem::take(&mut self.heard).into_iter();
        kept.extend(called.filter(|(_, heard)| heard.open > 0));
        self.heard = kept;
        gone
    }
}

#[cfg(test)]
mod tests {
    use meta::ids::Incarnation;

    use super::*;

    const SETTINGS: Settings = Settings {
        silence_max: Duration::from_secs(10),
        lost_for: Duration::from_millis(300),
    };
    const ONE: Incarnation = Incarnation(1);
    const TWO: Incarnation = Incarnation(2);

    struct Bench {
        presence: Presence<Incarnation, &'static str>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Bench {
                presence: Presence::new(SETTINGS),
                now: Instant::from_millis(1_000_000),
            };
            assert_eq!(bench.look(true), []);
            bench
        }

        fn look(&mut self, leads: bool) -> Vec<Incarnation> {
            self.presence.gone(self.now, leads, false, [ONE, TWO])
        }

        /// The addresses of a run refuse connections for so long, tried as often as the leader does.
        fn refused(&mut self, run: Incarnation, millis: u64) {
            for passed in (0..=millis).step_by(20) {
                let now = self.now + Duration::from_millis(passed);
                self.presence.tried(now, run, true);
            }
            self.now = self.now + Duration::from_millis(millis);
        }

        /// Looks ten times a second for so long; who was to be fenced, each with when that was first said.
        fn listen(&mut self, millis: u64) -> BTreeMap<Incarnation, u64> {
            let mut said = BTreeMap::new();
            for passed in (100..=millis).step_by(100) {
                self.now = self.now + Duration::from_millis(100);
                for gone in self.look(true) {
                    said.entry(gone).or_insert(passed);
                }
            }
            said
        }
    }

    #[test]
    fn who_keeps_a_call_open_is_there_and_who_is_silent_is_not() {
        let mut bench = Bench::new();
        bench.presence.calls(bench.now, ONE);
        assert_eq!(bench.listen(30_000), [(TWO, 10_000)].into());
        bench.presence.answered(bench.now, ONE);
        assert_eq!(bench.listen(9_900), [(TWO, 100)].into());
        bench.presence.calls(bench.now, ONE);
        assert_eq!(bench.listen(20_000).get(&ONE), None);
    }

    #[test]
    fn who_has_just_registered_has_time_to_call() {
        let mut bench = Bench::new();
        bench.listen(30_000);
        let three = Incarnation(3);
        assert_eq!(bench.presence.gone(bench.now, true, false, [three]), []);
        for _ in 0..99 {
            bench.now = bench.now + Duration::from_millis(100);
            assert_eq!(bench.presence.gone(bench.now, true, false, [three]), []);
        }
        bench.now = bench.now + Duration::from_millis(100);
        assert_eq!(
            bench.presence.gone(bench.now, true, false, [three]),
            [three]
        );
    }

    #[test]
    fn who_is_lost_has_a_moment_to_call_again() {
        let mut bench = Bench::new();
        for incarnation in [ONE, TWO] {
            bench.presence.calls(bench.now, incarnation);
            bench.presence.lost(bench.now, incarnation);
        }
        assert_eq!(bench.listen(200), BTreeMap::new());
        bench.presence.calls(bench.now, ONE);
        assert_eq!(bench.listen(1_000), [(TWO, 100)].into());
    }

    #[test]
    fn who_is_heard_by_way_of_another_node_is_not_lost_when_that_way_breaks() {
        let mut bench = Bench::new();
        for incarnation in [ONE, TWO] {
            bench.presence.calls(bench.now, incarnation);
        }
        bench.presence.was_relayed(ONE);
        for incarnation in [ONE, TWO] {
            bench.presence.lost(bench.now, incarnation);
        }
        assert_eq!(bench.listen(11_000), [(TWO, 300), (ONE, 10_000)].into());
    }

    #[test]
    fn a_node_that_may_be_cut_off_takes_none_for_gone_before_it_hears_another() {
        let mut bench = Bench::new();
        for run in [ONE, TWO] {
            bench.presence.calls(bench.now, run);
            bench.presence.lost(bench.now, run);
        }
        let lost_at = bench.now;
        let three = Incarnation(3);
        let look = |bench: &mut Bench, passed| {
            bench.now = lost_at + Duration::from_millis(passed);
            bench
                .presence
                .gone(bench.now, true, true, [ONE, TWO, three])
        };
        for passed in (100..30_000).step_by(100) {
            assert_eq!(look(&mut bench, passed), [], "after {passed} ms");
        }
        // One of them is reached: it is not this node that is cut off.
        bench.presence.calls(bench.now, ONE);
        assert_eq!(look(&mut bench, 30_100), [TWO, three]);
    }

    #[test]
    fn who_calls_after_its_name_was_asked_for_is_there() {
        let mut bench = Bench::new();
        bench.presence.calls(bench.now, ONE);
        let asked_at = bench.now;
        let is_here = |bench: &Bench, of| bench.presence.is_here(bench.now, of, asked_at);
        assert_eq!(is_here(&bench, ONE), IsHere::NotKnownYet);
        bench.listen(1_400);
        assert_eq!(is_here(&bench, TWO), IsHere::NotKnownYet);
        bench.listen(600);
        bench.presence.answered(bench.now, ONE);
        assert_eq!(is_here(&bench, TWO), IsHere::No, "it never called");
        bench.listen(1_900);
        assert_eq!(is_here(&bench, ONE), IsHere::NotKnownYet);
        bench.presence.calls(bench.now, ONE);
        bench.listen(100);
        assert_eq!(is_here(&bench, ONE), IsHere::Yes);
        assert_eq!(is_here(&bench, TWO), IsHere::No);
    }

    #[test]
    fn a_name_is_free_soon_whose_run_is_lost_and_at_once_if_it_was_silent_before() {
        let mut bench = Bench::new();
        let is_here = |bench: &Bench, of, asked_at| bench.presence.is_here(bench.now, of, asked_at);
        bench.listen(1_400);
        assert_eq!(is_here(&bench, TWO, bench.now), IsHere::NotKnownYet);
        bench.listen(100);
        assert_eq!(is_here(&bench, TWO, bench.now), IsHere::No);
        bench.presence.calls(bench.now, ONE);
        assert!(bench.presence.keeps_a_call(ONE));
        bench.presence.lost(bench.now, ONE);
        assert!(!bench.presence.keeps_a_call(ONE));
        let asked_at = bench.now;
        bench.listen(900);
        assert_eq!(is_here(&bench, ONE, asked_at), IsHere::NotKnownYet);
        bench.listen(100);
        assert_eq!(is_here(&bench, ONE, asked_at), IsHere::No);
        bench.presence.calls(bench.now, ONE);
        assert_eq!(is_here(&bench, ONE, asked_at), IsHere::Yes);
    }

    #[test]
    fn who_is_lost_and_listens_no_more_is_gone_at_once() {
        let mut bench = Bench::new();
        bench.presence.calls(bench.now, ONE);
        bench.refused(ONE, 100);
        assert_eq!(bench.look(true), [], "its call is open");
        bench.presence.lost(bench.now, ONE);
        assert_eq!(bench.presence.lost_ones(bench.now), [ONE]);
        assert_eq!(bench.look(true), []);
        bench.refused(ONE, 40);
        assert_eq!(bench.look(true), [], "it may be back in a moment");
        bench.refused(ONE, 20);
        assert_eq!(bench.look(true), [ONE]);
        // It comes back.
        bench.presence.calls(bench.now, ONE);
        assert_eq!(bench.presence.lost_ones(bench.now), []);
        assert_eq!(bench.look(true), []);
        bench.presence.lost(bench.now, ONE);
        assert_eq!(bench.look(true), []);
    }

    #[test]
    fn who_does_not_find_a_new_leader_is_looked_for_and_gone_if_nobody_listens() {
        let mut bench = Bench::new();
        bench.presence.calls(bench.now, ONE);
        bench.listen(100);
        assert_eq!(
            bench.presence.lost_ones(bench.now),
            [],
            "there is time to call"
        );
        bench.listen(200);
        assert_eq!(bench.presence.lost_ones(bench.now), [TWO]);
        bench.refused(ONE, 100);
        bench.refused(TWO, 100);
        assert_eq!(bench.look(true), [TWO], "the other has called");
        bench.presence.calls(bench.now, TWO);
        assert_eq!(bench.look(true), []);
        assert_eq!(bench.presence.lost_ones(bench.now), []);
        // Another leads meanwhile, and then this node again.
        bench.presence.answered(bench.now, TWO);
        bench.look(false);
        bench.listen(300);
        assert_eq!(bench.presence.lost_ones(bench.now), [TWO]);
        bench.presence.tried(bench.now, TWO, false);
        assert_eq!(bench.listen(5_000), BTreeMap::new(), "somebody listens");
    }

    #[test]
    fn one_refusal_is_not_the_end_of_who_is_reached_again() {
        let mut bench = Bench::new();
        bench.presence.calls(bench.now, ONE);
        bench.presence.lost(bench.now, ONE);
        bench.refused(ONE, 40);
        bench.presence.tried(bench.now, ONE, false);
        bench.refused(ONE, 40);
        assert_eq!(bench.look(true), []);
        assert_eq!(bench.listen(300), [(ONE, 300)].into(), "then it is silent");
    }

    #[test]
    fn the_end_of_an_earlier_call_does_not_lose_who_has_called_again() {
        let mut bench = Bench::new();
        bench.presence.calls(bench.now, ONE);
        bench.presence.calls(bench.now, ONE);
        bench.presence.lost(bench.now, ONE);
        bench.presence.calls(bench.now, TWO);
        assert_eq!(bench.listen(20_000), BTreeMap::new());
    }

    #[test]
    fn silence_counts_only_while_this_node_leads_and_is_awake() {
        let mut bench = Bench::new();
        assert_eq!(bench.listen(9_000), BTreeMap::new());
        bench.now = bench.now + Duration::from_secs(60);
        assert_eq!(bench.look(true), [], "it slept");
        assert_eq!(bench.listen(900), BTreeMap::new());
        assert_eq!(bench.look(false), []);
        bench.now = bench.now + Duration::from_millis(100);
        assert_eq!(bench.look(true), [], "it begins to listen");
        assert_eq!(bench.listen(9_900), BTreeMap::new());
        assert_eq!(bench.listen(100).len(), 2);
    }

    #[test]
    fn who_calls_before_it_is_known_to_be_registered_is_not_forgotten() {
        let mut bench = Bench::new();
        let three = Incarnation(3);
        bench.presence.calls(bench.now, three);
        bench.listen(5_000);
        bench.presence.lost(bench.now, three);
        bench.now = bench.now + SETTINGS.lost_for;
        let gone = bench.presence.gone(bench.now, true, false, [three]);
        assert_eq!(gone, [three]);
    }
}
