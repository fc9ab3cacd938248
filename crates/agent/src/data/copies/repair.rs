//! Which copies are made when, in the buckets that this agent sees to: the oldest files first, within limits of pace and of memory, and
//! none of which a copy may still be on its way. What fails is left for the next pass; what has succeeded stays. Pure. It must not know how a
//! copy is made.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use host::clock::Instant;
use meta::ids::FileId;
use meta::places::StoredFile;

/// Files that are asked for at a time.
pub(crate) const LIST_FILES: u32 = 1_000;
/// More are asked for while fewer than this wait.
const WAITING_MIN: usize = 500;
/// Copies under way at one time: what 1,000 small files a second take at half a second each.
const FILES_MAX: usize = 512;
/// Bytes of copies under way at one time; a larger file goes alone.
const BYTES_MAX: u64 = 64 << 20;
/// The pause before what is short is asked for again from its beginning.
pub(crate) const PASS_EVERY: Duration = Duration::from_secs(10);
/// After so many failures in a row a bucket is left alone for a while.
const FAILURES_MAX: u32 = 8;
/// For so long at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What may be made up for of a pace that was not used.
const SLACK: Duration = Duration::from_millis(100);

/// How fast copies may be made, in all buckets together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub bytes_per_second: u64,
    pub files_per_second: u64,
    /// How long after its commit a file may get its copies from the agent that wrote it.
    pub grace: Duration,
}

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bucket holds it.
    Held,
    /// It may be made later.
    Failed,
    /// No bucket that has it gave it as it is known, or the bucket holds something else in its place. It is tried again by a later
    /// pass; the others are not held up.
    Unmendable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The buckets that this agent sees to and can use, from now on.
    SeesTo(Vec<u32>),
    /// Files that a bucket lacks, after those listed before, and the wall time of the last entry that was known to who listed them.
    Listed {
        bucket: u32,
        wall_millis: u64,
        files: Vec<StoredFile>,
    },
    /// They are not known just now.
    ListFailed { bucket: u32 },
    /// A copy has ended.
    Ended {
        bucket: u32,
        length: u64,
        outcome: Outcome,
    },
    /// Time has passed.
    Timer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// List files that a bucket lacks: at most [`LIST_FILES`], after one.
    List {
        bucket: u32,
        after: Option<(u64, FileId)>,
    },
    /// Make a copy.
    Copy { bucket: u32, file: StoredFile },
}

pub struct Repair {
    limits: Limits,
    buckets: BTreeMap<u32, Pass>,
    under_way: UnderWay,
    /// When the next copy may be begun, as far as the pace goes.
    free_at: Instant,
}

/// Copies that are not ended, of buckets that are not seen to any more, too.
#[derive(Debug, Default)]
struct UnderWay {
    files: BTreeMap<u32, usize>,
    count: usize,
    bytes: u64,
}

/// The way through what one bucket lacks, from the oldest file to the youngest.
#[derive(Debug, Default)]
struct Pass {
    waiting: VecDeque<StoredFile>,
    /// The last file that was listed.
    after: Option<(u64, FileId)>,
    is_listing: bool,
    /// No older file is left to be listed.
    is_listed: bool,
    /// Nothing is done before.
    resume_at: Instant,
    /// Failures in a row.
    failures: u32,
    age: Age,
}

/// Which files are so old that nobody else makes copies of them any more. The clocks of others are not asked.
#[derive(Debug, Default)]
struct Age {
    /// The wall time of the last entry that was seen.
    wall_millis: u64,
    /// Wall times of entries, and when they were seen: what was committed before has been there since.
    seen: VecDeque<(u64, Instant)>,
    /// What was committed until then is old enough.
    settled_millis: u64,
}

impl Age {
    fn saw(&mut self, now: Instant, wall_millis: u64, grace: Duration) {
        if wall_millis > self.wall_millis {
            self.wall_millis = wall_millis;
            let last = self.seen.back().map(|(_, at)| *at);
            // So few are kept that they need no other bound.
            if last.is_none_or(|last| now.since(last) >= grace / 16) {
                self.seen.push_back((wall_millis, now));
            }
        }
        self.count(now, grace);
    }

    fn count(&mut self, now: Instant, grace: Duration) {
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let by_entries = self.wall_millis.saturating_sub(millis);
        self.settled_millis = self.settled_millis.max(by_entries);
        while let Some((wall_millis, at)) = self.seen.front().copied()
            && now.since(at) >= grace
        {
            self.settled_millis = self.settled_millis.max(wall_millis);
            self.seen.pop_front();
        }
    }
}

impl Repair {
    pub fn new(limits: Limits) -> Self {
        Repair {
            limits,
            buckets: BTreeMap::new(),
            under_way: UnderWay::default(),
            free_at: Instant::default(),
        }
    }

    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        match event {
            Event::SeesTo(buckets) => {
                self.buckets.retain(|bucket, _| buckets.contains(bucket));
                for bucket in buckets {
                    self.buckets.entry(bucket).or_default();
                }
            }
            Event::Listed {
                bucket,
                wall_millis,
                files,
            } => self.listed(now, bucket, wall_millis, files),
            Event::ListFailed { bucket } => {
                if let Some(pass) = self.buckets.get_mut(&bucket) {
                    pass.is_listing = false;
                    pass.resume_at = now + PAUSE;
                }
            }
            Event::Ended {
                bucket,
                length,
                outcome,
            } => self.ended(now, bucket, length, outcome),
            Event::Timer => {}
        }
        self.go_on(now)
    }

    /// When to look again without being told anything.
    pub fn deadline(&self) -> Option<Instant> {
        let next = |pass: &Pass| match pass.waiting.front() {
            Some(file) if self.under_way.has_room(file.length) => {
                Some(pass.resume_at.max(self.free_at))
            }
            Some(_) => None,
            None => (!pass.is_listing && !pass.is_listed).then_some(pass.resume_at),
        };
        self.buckets.values().filter_map(next).min()
    }

    fn listed(&mut self, now: Instant, bucket: u32, wall_millis: u64, files: Vec<StoredFile>) {
        let grace = self.limits.grace;
        let Some(pass) = self.buckets.get_mut(&bucket).filter(|pass| pass.is_listing) else {
            return;
        };
        pass.is_listing = false;
        pass.age.saw(now, wall_millis, grace);
        pass.is_listed = files.len() < LIST_FILES as usize;
        if let Some(last) = files.last() {
            pass.after = Some((last.committed_wall_millis, last.file.file));
        }
        let settled = pass.age.settled_millis;
        let old = files
            .into_iter()
            .take_while(|file| file.committed_wall_millis <= settled);
        let before = pass.waiting.len();
        pass.waiting.extend(old);
        // What follows the first young file is younger still.
        let youngest = pass.after.map_or(0, |(wall_millis, _)| wall_millis);
        pass.is_listed |= youngest > settled || pass.waiting.len() == before;
    }

    fn ended(&mut self, now: Instant, bucket: u32, length: u64, outcome: Outcome) {
        self.under_way.remove(bucket, length);
        let Some(pass) = self.buckets.get_mut(&bucket) else {
            return;
        };
        if outcome != Outcome::Failed {
            pass.failures = 0;
            return;
        }
        pass.failures = pass.failures.saturating_add(1);
        if let Some(more) = pass.failures.checked_sub(FAILURES_MAX) {
            let pause = PAUSE.saturating_mul(1 << more.min(5)).min(PAUSE_MAX);
            pass.resume_at = pass.resume_at.max(now + pause);
        }
    }

    fn go_on(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let limits = self.limits;
        for (&bucket, pass) in &mut self.buckets {
            while now >= pass.resume_at
                && now >= self.free_at
                && let Some(file) = pass.waiting.front()
                && self.under_way.has_room(file.length)
                && let Some(file) = pass.waiting.pop_front()
            {
                let from = self.free_at.max(before(now, SLACK));
                self.free_at = from + limits.time_for(file.length);
                self.under_way.add(bucket, file.length);
                effects.push(Effect::Copy { bucket, file });
            }
            let is_over = pass.is_listed && pass.waiting.is_empty();
            if is_over && self.under_way.of(bucket) == 0 {
                pass.after = None;
                pass.is_listed = false;
                pass.resume_at = pass.resume_at.max(now + PASS_EVERY);
            }
            let wants_more = !pass.is_listed && pass.waiting.len() < WAITING_MIN;
            if wants_more && !pass.is_listing && now >= pass.resume_at {
                pass.is_listing = true;
                let after = pass.after;
                effects.push(Effect::List { bucket, after });
            }
        }
        effects
    }
}

impl Limits {
    /// How much of the pace a file takes.
    fn time_for(&self, length: u64) -> Duration {
        let micros = |work: u64, per_second: u64| {
            let work = work.saturating_mul(1_000_000);
            Duration::from_micros(work.div_ceil(per_second.max(1)))
        };
        let by_bytes = micros(length, self.bytes_per_second);
        by_bytes.max(micros(1, self.files_per_second))
    }
}

impl UnderWay {
    fn has_room(&self, length: u64) -> bool {
        let fits = self.bytes.saturating_add(length) <= BYTES_MAX;
        self.count == 0 || (self.count < FILES_MAX && fits)
    }

    fn of(&self, bucket: u32) -> usize {
        self.files.get(&bucket).copied().unwrap_or(0)
    }

    fn add(&mut self, bucket: u32, length: u64) {
        *self.files.entry(bucket).or_default() += 1;
        self.count += 1;
        self.bytes = self.bytes.saturating_add(length);
    }

    fn remove(&mut self, bucket: u32, length: u64) {
        if let Some(files) = self.files.get_mut(&bucket) {
            *files = files.saturating_sub(1);
        }
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(length);
    }
}

fn before(now: Instant, by: Duration) -> Instant {
    let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
    Instant::from_micros(now.as_micros().saturating_sub(by))
}

#[cfg(test)]
mod tests;
