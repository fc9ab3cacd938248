//! Which faults a run has: per seed a random subset ("swarm testing", Groce et al., ISSTA 2012), each at a rate of its own.
//!
//! A run with every fault at once hides what needs one of them to be absent. Must not know what the faults are done to.

use std::collections::BTreeMap;

use host::rng::Rng;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    Loss,
    /// Messages are delayed, and so overtake each other.
    Delay,
    Duplicate,
    /// One direction between two places is cut for a while.
    OneWayCut,
    /// A place is cut off in both directions for a while.
    Isolation,
    /// A process stops for a while and goes on as if nothing had been.
    Pause,
    /// A process is killed and starts again with nothing but what buckets and engines hold.
    Kill,
    /// A process is killed between two effects of one event.
    KillBetweenEffects,
    /// The bucket is slow.
    SlowBucket,
    /// The bucket refuses or fails without effect.
    FailingBucket,
    /// The bucket did it and the answer is lost.
    LostAnswer,
    /// The bucket does it long after the client gave up.
    LatePut,
    /// The bucket answers a conflict to what it has created itself, or to what is not there yet.
    LyingConflict,
    /// A read returns altered bytes.
    CorruptRead,
    /// A wall clock jumps.
    ClockJump,
    /// The wall clock of a control node goes a year ahead.
    YearAhead,
    /// The grace before collection is next to nothing.
    ShortGrace,
    /// A boot clock is up to five percent too fast or too slow.
    ClockDrift,
    /// A process is cut off from the bucket alone.
    BucketCut,
    /// A body stops half way, for a while or for good.
    SlowBody,
    /// The bucket refuses everything for a while.
    Outage,
}

impl Fault {
    /// What the world of cores has.
    pub const ALL: [Fault; 15] = [
        Fault::Loss,
        Fault::Delay,
        Fault::Duplicate,
        Fault::OneWayCut,
        Fault::Isolation,
        Fault::Pause,
        Fault::Kill,
        Fault::KillBetweenEffects,
        Fault::SlowBucket,
        Fault::FailingBucket,
        Fault::LostAnswer,
        Fault::LatePut,
        Fault::LyingConflict,
        Fault::CorruptRead,
        Fault::ClockJump,
    ];
    /// What the town has: connections lose nothing but all, so nothing comes twice.
    pub const TOWN: [Fault; 20] = [
        Fault::Loss,
        Fault::Delay,
        Fault::OneWayCut,
        Fault::Isolation,
        Fault::Pause,
        Fault::Kill,
        Fault::KillBetweenEffects,
        Fault::SlowBucket,
        Fault::FailingBucket,
        Fault::LostAnswer,
        Fault::LatePut,
        Fault::LyingConflict,
        Fault::CorruptRead,
        Fault::ClockJump,
        Fault::YearAhead,
        Fault::ShortGrace,
        Fault::ClockDrift,
        Fault::BucketCut,
        Fault::SlowBody,
        Fault::Outage,
    ];
}

impl Fault {
    /// The highest rate at which a run still gets somewhere.
    fn most_per_million(self) -> u64 {
        match self {
            Fault::KillBetweenEffects => 1_000,
            Fault::Kill
            | Fault::Pause
            | Fault::OneWayCut
            | Fault::Isolation
            | Fault::BucketCut
            | Fault::Outage => 20_000,
            Fault::ClockJump | Fault::LatePut | Fault::CorruptRead => 80_000,
            _ => 200_000,
        }
    }
}

/// The faults of one run, and how many were injected.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Of a million chances, how many become a fault.
    per_million: BTreeMap<Fault, u64>,
    injected: BTreeMap<Fault, u64>,
    quiet: bool,
    healed: bool,
}

impl Faults {
    pub fn none() -> Self {
        Faults::default()
    }

    /// A random subset, each between one chance in a thousand and one in five. Never empty.
    pub fn draw(rng: &mut Rng) -> Self {
        Faults::draw_of(&Fault::ALL, rng)
    }

    /// The same, of these.
    pub fn draw_of(all: &[Fault], rng: &mut Rng) -> Self {
        const RATES_PER_MILLION: [u64; 5] = [1_000, 5_000, 20_000, 80_000, 200_000];
        let mut faults = Faults::default();
        let share = 1 + rng.below(3);
        for &fault in all {
            if rng.below(4) < share {
                let rate = RATES_PER_MILLION[rng.below(RATES_PER_MILLION.len() as u64) as usize];
                faults
                    .per_million
                    .insert(fault, rate.min(fault.most_per_million()));
            }
        }
        if faults.per_million.is_empty() {
            faults.per_million.insert(Fault::Kill, 20_000);
        }
        faults
    }

    /// Exactly these, each at `per_million`.
    pub fn only(faults: &[Fault], per_million: u64) -> Self {
        Faults {
            per_million: faults.iter().map(|&fault| (fault, per_million)).collect(),
            ..Faults::default()
        }
    }

    /// Of a million chances, how many become this fault.
    pub fn rate(&self, fault: Fault) -> u64 {
        self.per_million.get(&fault).copied().unwrap_or(0)
    }

    /// Whether the run has this fault at all.
    pub fn has(&self, fault: Fault) -> bool {
        self.per_million.contains_key(&fault)
    }

    /// Whether the fault strikes now. After [`Faults::heal`] none does.
    pub fn strike(&mut self, fault: Fault, rng: &mut Rng) -> bool {
        let Some(&rate) = self.per_million.get(&fault) else {
            return false;
        };
        let strikes = !self.healed && !self.quiet && rng.below(1_000_000) < rate;
        if strikes {
            *self.injected.entry(fault).or_default() += 1;
        }
        strikes
    }

    /// Nothing is faulty until [`Faults::begin`].
    pub fn hold(&mut self) {
        self.quiet = true;
    }

    /// Faults strike from now on.
    pub fn begin(&mut self) {
        self.quiet = false;
    }

    /// Nothing is faulty from now on.
    pub fn heal(&mut self) {
        self.healed = true;
    }

    /// Whether [`Faults::heal`] was called.
    pub fn healed(&self) -> bool {
        self.healed
    }

    pub fn injected(&self) -> &BTreeMap<Fault, u64> {
        &self.injected
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Faults};
    use host::rng::Rng;

    #[test]
    fn seeds_differ_in_their_faults_and_every_fault_comes_up() {
        let mut seen = std::collections::BTreeSet::new();
        let mut subsets = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let faults = Faults::draw(&mut Rng::seeded(seed));
            let subset: Vec<Fault> = Fault::ALL.into_iter().filter(|&f| faults.has(f)).collect();
            assert!(!subset.is_empty());
            seen.extend(subset.iter().copied());
            subsets.insert(subset);
        }
        assert_eq!(seen.len(), Fault::ALL.len());
        assert!(subsets.len() > 90);
    }

    #[test]
    fn nothing_strikes_after_healing() {
        let mut rng = Rng::seeded(1);
        let mut faults = Faults::only(&[Fault::Loss], 1_000_000);
        assert!(faults.strike(Fault::Loss, &mut rng));
        assert!(!faults.strike(Fault::Kill, &mut rng));
        faults.heal();
        assert!(!faults.strike(Fault::Loss, &mut rng));
        assert_eq!(faults.injected()[&Fault::Loss], 1);
    }
}
