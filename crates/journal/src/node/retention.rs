//! Decides when to cut a snapshot and what to trim after it: only below the older of two verified
//! snapshots, and never claims or void entries. It must not know how either is done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::clock::Instant;

use super::settings::SnapshotPolicy;
use super::unstored::{Due, Unstored};
use super::{Effect, Verdict};
use crate::chain::Chain;
use crate::rule::{Rule, Rules};
use crate::snapshot::Cut;

/// Slots trimmed by one request.
const TRIM_AT_ONCE: u64 = 256;
/// After a large snapshot, the next is cut once the journal has grown by a quarter of its size: so
/// the bytes written for snapshots stay in proportion to those appended, and the entries replayed
/// at a start to the snapshot loaded.
const SHARE_OF_SNAPSHOT: u64 = 4;
/// The pause after a failed snapshot or trim.
const PAUSE: Duration = Duration::from_secs(10);
/// Verifying restores the whole state. After it comes a rest of so many times its length, so that
/// it takes one part in a hundred of a core.
const REST_AFTER_VERIFYING: u32 = 99;

/// The kinds of accepted slots.
pub(super) enum Accepted {
    Commands,
    CommandsElsewhere([u8; 32]),
    ClaimOrVoid,
}

/// The retention of one node.
pub(super) struct Retention {
    rules: Rules,
    /// Every slot below is trimmed or spared for good.
    trimmed_below: u64,
    /// Claims and void entries at or above `trimmed_below`.
    spared: BTreeSet<u64>,
    bodies: BTreeMap<u64, [u8; 32]>,
    older: Option<u64>,
    newest: Option<u64>,
    /// When the newest was certainly there.
    newest_at: Instant,
    /// Bytes of the last snapshot.
    size: u64,
    entries_since: u64,
    bytes_since: u64,
    cut_at: Instant,
    writing: bool,
    /// The last attempt to write one failed.
    failed: bool,
    unstored: Unstored,
    /// How many could not be written.
    failures: u64,
    /// The last snapshot that was written and not verified yet.
    unverified: Option<u64>,
    verifying: bool,
    /// The last one that was looked at is useless: each is looked at now before the next is cut, so that useless ones, which are
    /// removed when they are found out, do not pile up.
    is_suspect: bool,
    verify_after: Instant,
    trimming_to: Option<u64>,
    /// The floor that this node last read as a follower.
    floor: u64,
    paused_until: Instant,
}

impl Retention {
    pub(super) fn new(rules: Rules) -> Self {
        Retention {
            rules,
            trimmed_below: 1,
            spared: BTreeSet::new(),
            bodies: BTreeMap::new(),
            older: None,
            newest: None,
            newest_at: Instant::default(),
            size: 0,
            entries_since: 0,
            bytes_since: 0,
            cut_at: Instant::default(),
            writing: false,
            failed: false,
            unstored: Unstored::default(),
            failures: 0,
            unverified: None,
            verifying: false,
            is_suspect: false,
            verify_after: Instant::default(),
            trimming_to: None,
            floor: 0,
            paused_until: Instant::default(),
        }
    }

    /// Index of the newest verified snapshot.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// The older of the two newest verified snapshots, if what is before it may be removed: another node that quarantines an entry
    /// after a claim of its own looks for snapshots first, so an append of this node that landed is before that claim, and one
    /// that began after both snapshots were there means that the other sees them.
    pub(super) fn older_for_good(&self, appended_at: Option<Instant>) -> Option<u64> {
        let are_seen = appended_at.is_some_and(|at| at >= self.newest_at);
        self.older
            .filter(|_| are_seen || !self.rules.hold(Rule::RemoveAfterAppend))
    }

    /// Begins again with a journal of which nothing is known; what is under way is not.
    pub(super) fn restart(&mut self) {
        *self = Retention {
            writing: self.writing,
            verifying: self.verifying,
            floor: self.floor,
            paused_until: self.paused_until,
            failures: self.failures,
            ..Retention::new(self.rules)
        };
    }

    /// Goes on from a snapshot that was loaded, hence whole.
    pub(super) fn resume(&mut self, now: Instant, cut: Cut, bytes: u64) {
        self.older = None;
        self.size = bytes;
        self.newest = Some(cut.last.index);
        self.newest_at = now;
        self.trimmed_below = cut.trimmed_below;
        self.spared = cut.spared.into_iter().collect();
        self.bodies = cut.bodies.into_iter().collect();
        self.entries_since = 0;
        self.bytes_since = 0;
        self.cut_at = now;
    }

    /// Notes a floor that a follower has read. The leader that raised it has trimmed the slots
    /// below the floor before.
    pub(super) fn follow(&mut self, floor: u64) {
        if floor > self.floor {
            let before = std::mem::replace(&mut self.floor, floor);
            self.forget_below(before);
        }
    }

    fn forget_below(&mut self, end: u64) {
        if end > self.trimmed_below {
            self.trimmed_below = end;
            self.spared = self.spared.split_off(&end);
            self.bodies = self.bodies.split_off(&end);
        }
    }

    /// Notes that this node leads from now on. Its first snapshot is a whole one, so it is put off
    /// until callers no longer wait for the failover.
    pub(super) fn lead(&mut self, now: Instant, policy: &SnapshotPolicy) {
        self.paused_until = self.paused_until.max(now + policy.first_after);
        self.unstored = Unstored::since(now);
    }

    pub(super) fn accepted(&mut self, index: u64, bytes: usize, accepted: &Accepted) {
        self.entries_since += 1;
        self.bytes_since += bytes as u64;
        self.unstored.appended(bytes as u64);
        match accepted {
            Accepted::Commands => {}
            Accepted::CommandsElsewhere(sha256) => {
                self.bodies.insert(index, *sha256);
            }
            Accepted::ClaimOrVoid => {
                if self.rules.hold(Rule::TrimSparesClaims) {
                    self.spared.insert(index);
                }
            }
        }
    }

    /// The position of a snapshot to cut now, if it is time.
    pub(super) fn cut(
        &mut self,
        now: Instant,
        policy: &SnapshotPolicy,
        chain: &Chain,
        claimant: &str,
    ) -> Option<Cut> {
        let due = self.failed
            || self.has_grown(policy)
            || (self.entries_since > 0 && now.since(self.cut_at) >= policy.interval);
        let is_looked_at = !self.verifying && self.unverified.is_none();
        if !due || self.writing || now < self.paused_until || (self.is_suspect && !is_looked_at) {
            return None;
        }
        if self.failed && self.entries_since > 0 {
            self.unstored.missed();
        }
        self.writing = true;
        self.entries_since = 0;
        self.bytes_since = 0;
        self.cut_at = now;
        Some(Cut {
            shard: chain.shard(),
            last: chain.last(),
            claim: chain.claim(),
            claimant: claimant.to_owned(),
            stamp: chain.stamp(),
            trimmed_below: self.trimmed_below,
            spared: self.spared.iter().copied().collect(),
            bodies: self.bodies.iter().map(|(k, v)| (*k, *v)).collect(),
            quarantined: Vec::new(),
        })
    }

    /// True if the journal has grown enough since the last snapshot: as the policy says, or by a
    /// share of a large snapshot, where entries count in proportion to bytes.
    fn has_grown(&self, policy: &SnapshotPolicy) -> bool {
        let due = self.due(policy);
        self.entries_since >= due.entries || self.bytes_since >= due.bytes
    }

    fn due(&self, policy: &SnapshotPolicy) -> Due {
        let share = self.size / SHARE_OF_SNAPSHOT;
        let entries = policy.entries.saturating_mul(share) / policy.bytes.max(1);
        Due {
            entries: policy.entries.max(entries),
            bytes: policy.bytes.max(share),
            after: policy.interval,
        }
    }

    /// Whether this node, which leads, has stored no snapshot though one was due twice.
    pub(super) fn is_overdue(&self, now: Instant, policy: &SnapshotPolicy) -> bool {
        let is_told = self.rules.hold(Rule::UnstoredIsTold);
        is_told && self.unstored.is_overdue(now, self.due(policy))
    }

    /// How many snapshots could not be written since this process started.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Notes the size of the snapshot that was written at `index`, or that writing failed.
    pub(super) fn written(&mut self, now: Instant, index: u64, written: Option<u64>) {
        self.writing = false;
        self.failed = written.is_none();
        let Some(bytes) = written else {
            self.paused_until = now + PAUSE;
            self.failures += 1;
            return;
        };
        self.unstored
            .stored(self.cut_at, self.entries_since, self.bytes_since);
        self.size = bytes;
        self.unverified = Some(index);
    }

    /// The snapshot to verify next, if it is time: the last one written, since it may soon be the
    /// one that counts.
    pub(super) fn next_verification(&mut self, now: Instant) -> Option<Effect> {
        if self.verifying || now < self.verify_after {
            return None;
        }
        let index = self.unverified.take()?;
        self.verifying = true;
        Some(Effect::VerifySnapshot { index })
    }

    /// Notes the verdict on the snapshot at `index`.
    pub(super) fn verified(&mut self, now: Instant, index: u64, verdict: Verdict) {
        self.verifying = false;
        if !matches!(verdict, Verdict::Unknown) {
            self.is_suspect = matches!(verdict, Verdict::Useless);
        }
        match verdict {
            Verdict::Whole(took) => {
                self.verify_after = now + took * REST_AFTER_VERIFYING;
                if self.newest.is_none_or(|newest| newest < index) {
                    self.older = self.newest.replace(index);
                    self.newest_at = now;
                }
            }
            // The next one shares nothing with it.
            Verdict::Useless => self.verify_after = now + PAUSE,
            Verdict::Unknown => {
                self.verify_after = now + PAUSE;
                self.unverified.get_or_insert(index);
            }
        }
    }

    /// What to trim next, if anything.
    pub(super) fn next_trim(
        &mut self,
        now: Instant,
        appended_at: Option<Instant>,
    ) -> Option<Effect> {
        let floor = self.older_for_good(appended_at)?;
        if self.trimming_to.is_some() || self.trimmed_below >= floor || now < self.paused_until {
            return None;
        }
        let end = floor.min(self.trimmed_below + TRIM_AT_ONCE);
        self.trimming_to = Some(end);
        let range = self.trimmed_below..end;
        Some(Effect::Trim {
            floor,
            through: end,
            indices: range
                .clone()
                .filter(|index| !self.spared.contains(index))
                .collect(),
            bodies: self
                .bodies
                .range(range)
                .map(|(index, sha256)| (*index, *sha256))
                .collect(),
        })
    }

    /// Notes the answer to a trim of the slots below `end`.
    pub(super) fn trimmed(&mut self, now: Instant, end: u64, done: bool) {
        if self.trimming_to != Some(end) {
            return;
        }
        self.trimming_to = None;
        if done {
            self.forget_below(end);
        } else {
            self.paused_until = now + PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{EntryId, Stamp};

    const POLICY: SnapshotPolicy = SnapshotPolicy {
        entries: 100,
        bytes: 1_000,
        interval: Duration::from_secs(600),
        first_after: Duration::ZERO,
    };

    fn now() -> Instant {
        Instant::from_millis(1_000)
    }

    fn position() -> Cut {
        let last = EntryId { index: 7, nonce: 7 };
        Cut {
            shard: 0,
            last,
            claim: last,
            claimant: "n".to_owned(),
            stamp: Stamp::default(),
            trimmed_below: 1,
            spared: Vec::new(),
            bodies: Vec::new(),
            quarantined: Vec::new(),
        }
    }

    /// How many entries of so many bytes it takes until a snapshot is due.
    fn entries_until_due(retention: &mut Retention, bytes: usize) -> u64 {
        let chain = Chain::genesis(0);
        for index in 8.. {
            retention.accepted(index, bytes, &Accepted::Commands);
            if retention.cut(now(), &POLICY, &chain, "n").is_some() {
                return index - 7;
            }
        }
        unreachable!("it is due at some time")
    }

    #[test]
    fn a_small_snapshot_is_followed_as_the_policy_says() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 4_000);
        assert_eq!(entries_until_due(&mut retention, 1), 100);
        retention.written(now(), 107, Some(4_003));
        assert_eq!(entries_until_due(&mut retention, 250), 4);
    }

    #[test]
    fn a_large_snapshot_is_followed_after_a_quarter_of_its_size() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 40_000);
        assert_eq!(entries_until_due(&mut retention, 100), 100);
        retention.written(now(), 107, Some(80_000));
        assert_eq!(entries_until_due(&mut retention, 100), 200);
        // For a small snapshot, entries count as much as bytes.
        retention.written(now(), 207, Some(80_000));
        assert_eq!(entries_until_due(&mut retention, 1), 2_000);
    }

    #[test]
    fn only_a_snapshot_that_was_restored_lets_the_journal_be_trimmed() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 4_000);
        for index in 8..=300 {
            retention.accepted(index, 1, &Accepted::Commands);
        }
        retention.written(now(), 100, Some(1));
        assert!(
            retention.next_trim(now(), Some(now())).is_none(),
            "nobody restored it"
        );
        let verification = retention.next_verification(now());
        assert!(matches!(
            verification,
            Some(Effect::VerifySnapshot { index: 100 })
        ));
        retention.verified(now(), 100, Verdict::Useless);
        assert!(
            retention.next_trim(now(), Some(now())).is_none(),
            "nobody can load it"
        );
        retention.written(now(), 200, Some(1));
        let later = now() + PAUSE;
        assert!(retention.next_verification(later).is_some());
        retention.verified(later, 200, Verdict::Whole(Duration::from_secs(3)));
        let trim = retention.next_trim(later, Some(later));
        assert!(
            matches!(trim, Some(Effect::Trim { floor: 7, .. })),
            "the one that was loaded is the older one: {trim:?}"
        );
        retention.written(later, 300, Some(1));
        let rested = later + Duration::from_secs(3) * REST_AFTER_VERIFYING;
        assert!(retention.next_verification(later).is_none());
        assert!(retention.next_verification(rested).is_some());
    }

    #[test]
    fn nothing_is_removed_before_an_append_that_began_after_the_snapshot_was_there() {
        let loaded = |rules: Rules| {
            let mut retention = Retention::new(rules);
            retention.resume(now(), position(), 4_000);
            (8..=400).for_each(|index| retention.accepted(index, 1, &Accepted::Commands));
            retention.verified(now() + PAUSE, 300, Verdict::Whole(Duration::ZERO));
            retention
        };
        let later = now() + PAUSE;
        let mut retention = loaded(Rules::all());
        for before in [None, Some(now())] {
            assert_eq!(retention.older_for_good(before), None);
            assert!(retention.next_trim(later, before).is_none());
        }
        assert_eq!(retention.older_for_good(Some(later)), Some(7));
        assert!(retention.next_trim(later, Some(later)).is_some());
        let mut careless = loaded(Rules::without(Rule::RemoveAfterAppend));
        assert!(
            careless.next_trim(later, None).is_some(),
            "the rule is what keeps it"
        );
    }

    #[test]
    fn after_a_useless_one_each_is_looked_at_before_the_next_is_cut() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 4_000);
        let chain = Chain::genesis(0);
        let due = |retention: &mut Retention| {
            (0..100).for_each(|index| retention.accepted(index, 1, &Accepted::Commands));
            retention.cut(now(), &POLICY, &chain, "n").is_some()
        };
        retention.verified(now(), 100, Verdict::Useless);
        assert!(due(&mut retention));
        retention.written(now(), 200, Some(1));
        assert!(!due(&mut retention));
        assert!(retention.next_verification(now() + PAUSE).is_some());
        assert!(!due(&mut retention));
        retention.verified(now(), 200, Verdict::Whole(Duration::ZERO));
        assert!(due(&mut retention));
        retention.written(now(), 300, Some(1));
        assert!(due(&mut retention), "the last one was whole");
    }

    #[test]
    fn what_is_written_replaces_no_verified_snapshot_before_it_is_one_itself() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 4_000);
        retention.verified(now(), 100, Verdict::Whole(Duration::ZERO));
        assert_eq!(retention.older_for_good(Some(now())), Some(7));
        retention.written(now(), 200, Some(1));
        assert_eq!(retention.older_for_good(Some(now())), Some(7));
        retention.verified(now(), 200, Verdict::Whole(Duration::ZERO));
        assert_eq!(retention.older_for_good(Some(now())), Some(100));
    }

    #[test]
    fn what_a_follower_remembers_follows_the_floor() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 4_000);
        for index in 8..=50_000 {
            let body = Accepted::CommandsElsewhere([1; 32]);
            retention.accepted(index, 1, &body);
            if index % 1_000 == 0 {
                retention.follow(index - 500);
            }
        }
        assert_eq!(retention.trimmed_below, 48_500);
        assert!(retention.bodies.len() <= 1_501);
    }

    #[test]
    fn a_new_leader_does_not_begin_with_a_snapshot() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 4_000);
        for index in 8..=500 {
            retention.accepted(index, 1, &Accepted::Commands);
        }
        let policy = SnapshotPolicy {
            first_after: Duration::from_secs(30),
            ..POLICY
        };
        retention.lead(now(), &policy);
        let chain = Chain::genesis(0);
        let mut cut = |now| retention.cut(now, &policy, &chain, "n").is_some();
        assert!(!cut(now()));
        assert!(cut(now() + Duration::from_secs(30)));
    }

    /// Whether a leader is said to store no snapshots at each of four times that one is due, all of which fail, and once one is stored;
    /// `grows` if the journal does meanwhile.
    fn is_overdue_in_turn(rules: Rules, grows: bool) -> Vec<bool> {
        let mut retention = Retention::new(rules);
        retention.resume(now(), position(), 4_000);
        retention.lead(now(), &POLICY);
        let chain = Chain::genesis(0);
        let append = |retention: &mut Retention| {
            (0..100).for_each(|index| retention.accepted(index, 1, &Accepted::Commands));
        };
        append(&mut retention);
        let mut at = now();
        let mut told = Vec::new();
        for _ in 0..4 {
            assert!(retention.cut(at, &POLICY, &chain, "n").is_some());
            told.push(retention.is_overdue(at, &POLICY));
            retention.written(at, 107, None);
            if grows {
                append(&mut retention);
            }
            at = at + PAUSE;
        }
        assert!(retention.cut(at, &POLICY, &chain, "n").is_some());
        retention.written(at, 107, Some(4_000));
        told.push(retention.is_overdue(at, &POLICY));
        assert_eq!(retention.failures(), 4);
        told
    }

    #[test]
    fn a_leader_that_stores_no_snapshot_while_the_journal_grows_is_said_to() {
        let told = is_overdue_in_turn(Rules::all(), true);
        assert_eq!(told, [false, false, true, true, false]);
        // A bucket that is away as a whole takes no entries either.
        assert_eq!(is_overdue_in_turn(Rules::all(), false), [false; 5]);
        let silent = is_overdue_in_turn(Rules::without(Rule::UnstoredIsTold), true);
        assert_eq!(silent, [false; 5], "the rule is what tells");
    }

    #[test]
    fn one_that_was_due_twice_by_time_alone_is_overdue() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 4_000);
        retention.lead(now(), &POLICY);
        let chain = Chain::genesis(0);
        for times in 1..=3 {
            retention.accepted(7 + u64::from(times), 1, &Accepted::Commands);
            let at = now() + POLICY.interval * times;
            assert!(retention.cut(at, &POLICY, &chain, "n").is_some());
            assert_eq!(retention.is_overdue(at, &POLICY), times > 2, "{times}");
            retention.written(at, 107, None);
        }
    }

    #[test]
    fn an_answer_to_an_old_trim_closes_no_new_one() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 4_000);
        (8..=400).for_each(|index| retention.accepted(index, 1, &Accepted::Commands));
        retention.verified(now(), 300, Verdict::Whole(Duration::ZERO));
        retention.verified(now(), 400, Verdict::Whole(Duration::ZERO));
        let trim = retention.next_trim(now(), Some(now()));
        assert!(matches!(trim, Some(Effect::Trim { through: 257, .. })));
        retention.trimmed(now(), 99, true);
        assert_eq!(retention.trimmed_below, 1);
        retention.trimmed(now(), 257, true);
        assert_eq!(retention.trimmed_below, 257);
    }

    #[test]
    fn one_that_failed_is_written_again_after_a_pause() {
        let mut retention = Retention::new(Rules::all());
        retention.resume(now(), position(), 4_000);
        assert_eq!(entries_until_due(&mut retention, 250), 4);
        retention.written(now(), 11, None);
        let chain = Chain::genesis(0);
        let mut cut = |now| retention.cut(now, &POLICY, &chain, "n").is_some();
        assert!(!cut(now() + PAUSE / 2));
        assert!(cut(now() + PAUSE));
    }
}
