//! Repair in schedules that are drawn from seeds: answers come in any order, late, or not at all until their time is over.

use std::collections::BTreeSet;

use host::rng::Rng;
use meta::ids::Incarnation;
use meta::places::FileRef;

use super::*;

const LIMITS: Limits = Limits {
    bytes_per_second: 100 << 20,
    files_per_second: 1_000,
    grace: Duration::from_secs(40),
};
/// Which the files lack.
const BUCKET: u32 = 2;
/// What a copy may take before its shell gives it up.
const COPY_LIMIT_MILLIS: u64 = 60_000;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn short(number: u64, committed_wall_millis: u64, length: u64) -> StoredFile {
    let file = FileId {
        incarnation: Incarnation(1),
        number,
    };
    StoredFile {
        committed_wall_millis,
        file: FileRef { file, nonce: 7 },
        length,
        checksum: 9,
        held: vec![0, 1],
        is_held_enough: true,
    }
}

/// Files that a bucket lacks, and a control node that tells of them.
struct World {
    repair: Repair,
    now: u64,
    lacking: Vec<StoredFile>,
    /// Wall time of the last entry.
    wall_millis: u64,
    /// What ends when.
    due: Vec<(u64, Event)>,
    copied: Vec<u64>,
    under_way: (usize, u64),
    most: (usize, u64),
}

impl World {
    fn of(lacking: Vec<StoredFile>, wall_millis: u64) -> Self {
        let mut repair = Repair::new(LIMITS);
        let effects = repair.handle(at(0), Event::SeesTo(vec![BUCKET]));
        let mut world = World {
            repair,
            now: 0,
            lacking,
            wall_millis,
            due: Vec::new(),
            copied: Vec::new(),
            under_way: (0, 0),
            most: (0, 0),
        };
        world.perform(effects, &mut |_| (10, Outcome::Held));
        world
    }

    /// Does what repair says; `fate` says when a copy ends, and how.
    fn perform(
        &mut self,
        effects: Vec<Effect>,
        fate: &mut impl FnMut(&StoredFile) -> (u64, Outcome),
    ) {
        for effect in effects {
            match effect {
                Effect::List { bucket, after } => {
                    let is_after = |file: &&StoredFile| {
                        Some((file.committed_wall_millis, file.file.file)) > after
                    };
                    let files = self.lacking.iter().filter(is_after);
                    let listed = Event::Listed {
                        bucket,
                        wall_millis: self.wall_millis,
                        files: files.take(LIST_FILES as usize).cloned().collect(),
                    };
                    self.due.push((self.now + 5, listed));
                }
                Effect::Copy { bucket, file } => {
                    let (takes, outcome) = fate(&file);
                    let (count, bytes) = self.under_way;
                    self.under_way = (count + 1, bytes + file.length);
                    self.most.0 = self.most.0.max(count + 1);
                    self.most.1 = self.most.1.max(bytes + file.length);
                    self.copied.push(self.now);
                    if outcome == Outcome::Held {
                        self.lacking.retain(|other| other.file != file.file);
                    }
                    let ended = Event::Ended {
                        bucket,
                        length: file.length,
                        outcome,
                    };
                    self.due.push((self.now + takes, ended));
                }
            }
        }
    }

    /// Lets time pass until the next thing happens, but not beyond `end`; false then.
    fn step(&mut self, end: u64, fate: &mut impl FnMut(&StoredFile) -> (u64, Outcome)) -> bool {
        let next = self.due.iter().map(|(due, _)| *due).min();
        let timer = self
            .repair
            .deadline()
            .map(|at| at.as_micros().div_ceil(1_000));
        let Some(next) = next
            .into_iter()
            .chain(timer)
            .min()
            .filter(|next| *next <= end)
        else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(next);
        let place = self.due.iter().position(|(due, _)| *due <= self.now);
        let event = place.map_or(Event::Timer, |place| self.due.swap_remove(place).1);
        if let Event::Ended { length, .. } = event {
            let (count, bytes) = self.under_way;
            self.under_way = (count - 1, bytes - length);
        }
        let effects = self.repair.handle(at(self.now), event);
        self.perform(effects, fate);
        true
    }
}

#[test]
fn copies_keep_the_pace_that_is_allowed_and_come_up_to_it() {
    for (length, files, per_second) in [(1 << 20, 2_000, 100), (1_000, 20_000, 1_000)] {
        let lacking = (0..files).map(|number| short(number, number, length));
        let mut world = World::of(lacking.collect(), 10_000_000);
        while world.step(1_000_000, &mut |_| (300, Outcome::Held)) && !world.lacking.is_empty() {}
        assert!(world.lacking.is_empty());
        let took = world.now.max(1);
        let best = files * 1_000 / per_second;
        assert!(took * 10 >= best * 9, "{files} in {took} ms: too fast");
        assert!(took * 10 <= best * 12, "{files} in {took} ms: too slow");
        assert!(world.most.0 <= FILES_MAX && world.most.1 <= BYTES_MAX);
    }
}

#[test]
fn a_file_larger_than_what_may_be_under_way_goes_alone() {
    let lacking = (0..3).map(|number| short(number, number, BYTES_MAX + 1));
    let mut world = World::of(lacking.collect(), 10_000_000);
    while world.step(60_000, &mut |_| (1_000, Outcome::Held)) && !world.lacking.is_empty() {}
    assert!(world.lacking.is_empty());
    assert_eq!(world.most.0, 1);
}

#[test]
fn a_young_file_is_left_to_who_wrote_it() {
    // By the times of entries the second is young; nothing is committed any more, so only waiting tells that it is not.
    let lacking = vec![short(1, 1_000, 10), short(2, 99_000, 10)];
    let mut world = World::of(lacking, 100_000);
    while world.step(39_000, &mut |_| (10, Outcome::Held)) {}
    let numbers: Vec<u64> = world
        .lacking
        .iter()
        .map(|file| file.file.file.number)
        .collect();
    assert_eq!(numbers, [2], "its grace is not over");
    while world.step(62_000, &mut |_| (10, Outcome::Held)) {}
    assert!(world.lacking.is_empty(), "it was there for a whole grace");
}

#[test]
fn a_bucket_that_fails_is_left_alone_longer_and_longer_and_what_was_done_stays() {
    let lacking = (0..5_000).map(|number| short(number, number, 10));
    let mut world = World::of(lacking.collect(), 10_000_000);
    let mut left = 3_000_u32;
    let mut fails_after = |_: &StoredFile| {
        left = left.saturating_sub(1);
        let outcome = if left == 0 {
            Outcome::Failed
        } else {
            Outcome::Held
        };
        (20, outcome)
    };
    while world.step(120_000, &mut fails_after) {}
    let (done, tried) = (5_000 - world.lacking.len(), world.copied.len());
    assert_eq!(done, 2_999);
    assert!(tried - done < 3_000, "{tried} attempts for {done} copies");
    // It is well again.
    while world.step(400_000, &mut |_| (20, Outcome::Held)) && !world.lacking.is_empty() {}
    assert!(world.lacking.is_empty());
}

#[test]
fn what_cannot_be_mended_holds_nothing_up() {
    let lacking = (0..2_000).map(|number| short(number, number, 10));
    let mut world = World::of(lacking.collect(), 10_000_000);
    let mut odd_ones = |file: &StoredFile| {
        let outcome = match file.file.file.number.is_multiple_of(2) {
            true => Outcome::Unmendable,
            false => Outcome::Held,
        };
        (20, outcome)
    };
    while world.step(9_000, &mut odd_ones) {}
    assert_eq!(world.lacking.len(), 1_000);
}

#[test]
fn every_file_is_copied_in_the_end_however_answers_come() {
    for seed in 0..60 {
        let mut rng = Rng::seeded(seed);
        let count = 1 + rng.below(2_500);
        let mut length = |_| 1 + rng.below(4 << 20);
        let lacking: Vec<StoredFile> = (0..count)
            .map(|number| short(number, number, length(number)))
            .collect();
        let mut world = World::of(lacking, 10_000_000);
        let mut fate = |_: &StoredFile| match rng.below(100) {
            // Three of a hundred are seconds late, one never ends by itself.
            0 => (COPY_LIMIT_MILLIS, Outcome::Failed),
            1..=3 => (1_000 + rng.below(9_000), Outcome::Held),
            4..=9 => (1 + rng.below(500), Outcome::Failed),
            10 => (1 + rng.below(500), Outcome::Unmendable),
            _ => (1 + rng.below(500), Outcome::Held),
        };
        while world.step(3_600_000, &mut fate) && !world.lacking.is_empty() {}
        assert!(
            world.lacking.is_empty(),
            "seed {seed}: {}",
            world.lacking.len()
        );
        assert!(world.most.0 <= FILES_MAX && world.most.1 <= BYTES_MAX);
        let in_a_second: BTreeSet<usize> = world
            .copied
            .iter()
            .enumerate()
            .map(|(first, from)| {
                let within = world.copied[first..]
                    .iter()
                    .take_while(|at| **at < from + 1_000);
                within.count()
            })
            .collect();
        let most = in_a_second.last().copied().unwrap_or(0);
        assert!(most <= 1_102, "seed {seed}: {most} files in a second");
    }
}
