//! Tells long polls which of their partitions have changed, and paces those whom every commit
//! concerns. The tails of partitions are told first: whoever looks there after he was told finds no less. What it tells are hints: each poll decides what they are worth. It must not know more
//! of what is waited for than partition numbers, and no clock.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock::Instant;
use meta::ids::PartitionId;
use rpc::notice::{Notice, Told};
use tokio::sync::Notify;

use super::item::{Change, Slot};
use super::tails::Tails;

/// A single fetch of more partitions than this is not entered in the table by partition, from which
/// it would be removed again in a moment. Instead every notice is looked for in the fetch's own
/// sorted list.
const ENTERED_MAX: usize = 64;

/// How long a waiter that has just been told rests before it is told again, for each other active
/// waiter whom the same commit concerns. A fetch costs some 100 microseconds: so readers who follow
/// what is written together take about a tenth of a core from its producers, however fast commits
/// come, and each answer holds what several commits brought. A lone reader never rests.
const REST_PER_OTHER: Duration = Duration::from_millis(1);
/// The longest rest: what many readers may wait beyond the time that a commit takes anyway.
const REST_MAX: Duration = Duration::from_millis(10);
/// A waiter who has taken nothing for so long is no reason for others to rest: its client is busy,
/// or gone.
const ACTIVE: Duration = Duration::from_millis(20);
/// Changes that are kept for a waiter beyond the first of each partition: what commits bring while
/// it rests. Further ones become one with the first, and the reader must ask where its records are.
const LATER_MAX: usize = 128;

/// All waiters.
#[derive(Debug)]
pub struct Hub {
    tails: Mutex<Tails>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    entered: BTreeMap<PartitionId, Vec<(Arc<Waiter>, Slot)>>,
    listed: Vec<Listed>,
    /// Waiters who rest although something changed for them; all are woken at one time.
    held: Vec<Arc<Waiter>>,
    held_until: Instant,
    /// Numbers the calls that tell.
    turn: u64,
}

/// A waiter for many partitions, which it has in a sorted list of its own.
#[derive(Debug)]
struct Listed {
    waiter: Arc<Waiter>,
    partitions: Vec<(PartitionId, Slot)>,
}

/// The changes of the partitions that one waiter watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Notices were lost: every partition may have changed.
    pub all: bool,
    /// The first of each partition.
    first: BTreeMap<Slot, (PartitionId, Change)>,
    /// The others, in the order in which they came.
    later: Vec<(Slot, PartitionId, Change)>,
}

#[derive(Debug, Default)]
struct Waiter {
    woken: Notify,
    told: Mutex<Untaken>,
}

/// What a waiter was told and has not taken yet.
#[derive(Debug, Default)]
struct Untaken {
    changes: Changes,
    /// It is not to see them yet.
    is_held: bool,
    /// When it last took changes.
    taken_at: Option<Instant>,
    /// When it was last told something, by number.
    turn: u64,
}

/// The waiters whom one call concerns.
struct Concerned {
    now: Instant,
    turn: u64,
    /// How many of them are active.
    active: u32,
    /// Those who had taken all that they were told before.
    fresh: Vec<Arc<Waiter>>,
}

/// A waiter's registration in the hub, removed when dropped.
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    waiter: Arc<Waiter>,
    /// The partitions under which it is entered; none if it has a list of its own.
    entered: Vec<PartitionId>,
}

impl Hub {
    /// Nobody waits yet; tails take up to `tails_bytes`.
    pub(crate) fn new(tails_bytes: u64) -> Self {
        Hub {
            tails: Mutex::new(Tails::of_bytes(tails_bytes)),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn tails(&self) -> MutexGuard<'_, Tails> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches partitions from now on. With `lasts` the watch is for more than one fetch.
    pub fn watch(self: &Arc<Self>, mut partitions: Vec<(PartitionId, Slot)>, lasts: bool) -> Watch {
        let waiter = Arc::new(Waiter::default());
        let mut waiting = self.waiting();
        let mut entered = Vec::new();
        if lasts || partitions.len() <= ENTERED_MAX {
            for (partition, slot) in partitions {
                let waiters = waiting.entered.entry(partition).or_default();
                waiters.push((Arc::clone(&waiter), slot));
                entered.push(partition);
            }
        } else {
            partitions.sort_unstable();
            let waiter = Arc::clone(&waiter);
            waiting.listed.push(Listed { waiter, partitions });
        }
        drop(waiting);
        Watch {
            hub: Arc::clone(self),
            waiter,
            entered,
        }
    }

    /// Tells the waiters whom the notices of a message that joins the one before concern. Whoever is woken finds all that they tell, so that
    /// one commit of many partitions makes one answer. If some are left to rest, yields when
    /// [`Hub::wake_rested`] is to be called.
    pub fn tell(&self, told: &Told, now: Instant) -> Option<Instant> {
        self.tails().tell(told, now);
        let mut waiting = self.waiting();
        let mut concerned = waiting.next_turn(now);
        for notice in &told.notices {
            match *notice {
                Notice::Advanced {
                    partition,
                    high_watermark,
                    place,
                } => {
                    let change = Change::Advanced {
                        high_watermark,
                        place,
                    };
                    waiting.tell(partition, change, &mut concerned);
                }
                Notice::LogStart {
                    partition,
                    log_start,
                } => waiting.tell(partition, Change::LogStart(log_start), &mut concerned),
                Notice::View { .. } | Notice::Anything => {}
            }
        }
        waiting.wake(concerned);
        waiting.wake_rested(now)
    }

    /// Wakes those who have rested long enough; yields when to call again, if there are others.
    pub fn wake_rested(&self, now: Instant) -> Option<Instant> {
        self.waiting().wake_rested(now)
    }

    /// Makes the waiters of these partitions look for themselves: the partitions may be gone.
    pub fn tell_to_look(&self, partitions: &[PartitionId]) {
        self.tails().end(partitions.iter().copied());
        let mut waiting = self.waiting();
        let mut concerned = waiting.next_turn(Instant::default());
        for partition in partitions {
            let change = Change::Look { high_watermark: 0 };
            waiting.tell(*partition, change, &mut concerned);
        }
        for waiter in concerned.fresh {
            waiter.wake();
        }
    }

    /// Makes every waiter look at all its partitions: something before this message was not told, or may have been anything.
    /// Tails are to have been ended as soon as it came.
    pub fn tell_all(&self, told: &Told, now: Instant) {
        self.tails().tell(told, now);
        let waiting = self.waiting();
        let entered = waiting.entered.values().flatten().map(|(waiter, _)| waiter);
        let listed = waiting.listed.iter().map(|listed| &listed.waiter);
        for waiter in entered.chain(listed) {
            waiter.told().changes.all = true;
            waiter.wake();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn next_turn(&mut self, now: Instant) -> Concerned {
        self.turn += 1;
        Concerned {
            now,
            turn: self.turn,
            active: 0,
            fresh: Vec::new(),
        }
    }

    /// Tells the waiters of a partition, who do not see it before they are woken.
    fn tell(&self, partition: PartitionId, change: Change, concerned: &mut Concerned) {
        for (waiter, slot) in self.entered.get(&partition).into_iter().flatten() {
            waiter.tell(*slot, partition, change, concerned);
        }
        for Listed { waiter, partitions } in &self.listed {
            let first = partitions.partition_point(|(other, _)| *other < partition);
            let its = partitions[first..].iter();
            for (_, slot) in its.take_while(|(other, _)| *other == partition) {
                waiter.tell(*slot, partition, change, concerned);
            }
        }
    }

    /// Wakes the waiters who have something new, but for those who shall rest first.
    fn wake(&mut self, concerned: Concerned) {
        let others = concerned.active.saturating_sub(1);
        let rest = REST_PER_OTHER.saturating_mul(others).min(REST_MAX);
        for waiter in concerned.fresh {
            let taken_at = waiter.told().taken_at;
            match taken_at.map(|at| at + rest) {
                Some(until) if until > concerned.now => {
                    if self.held.is_empty() || until < self.held_until {
                        self.held_until = until;
                    }
                    self.held.push(waiter);
                }
                _ => waiter.wake(),
            }
        }
    }

    fn wake_rested(&mut self, now: Instant) -> Option<Instant> {
        if self.held.is_empty() || now < self.held_until {
            return (!self.held.is_empty()).then_some(self.held_until);
        }
        for waiter in self.held.drain(..) {
            waiter.wake();
        }
        None
    }
}

impl Waiter {
    /// Notes a change, which the waiter does not see until it is woken, unless it was woken already
    /// for what came before.
    fn tell(
        self: &Arc<Self>,
        slot: Slot,
        partition: PartitionId,
        change: Change,
        concerned: &mut Concerned,
    ) {
        let mut told = self.told();
        let is_again = std::mem::replace(&mut told.turn, concerned.turn) == concerned.turn;
        let is_active = |at| concerned.now.since(at) < ACTIVE;
        if !is_again && told.taken_at.is_some_and(is_active) {
            concerned.active = concerned.active.saturating_add(1);
        }
        if told.changes.is_empty() {
            told.is_held = true;
            concerned.fresh.push(Arc::clone(self));
        }
        told.changes.add(slot, partition, change);
    }

    fn wake(&self) {
        self.told().is_held = false;
        self.woken.notify_one();
    }

    fn told(&self) -> MutexGuard<'_, Untaken> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        !self.all && self.first.is_empty()
    }

    pub fn add(&mut self, slot: Slot, partition: PartitionId, change: Change) {
        match self.first.entry(slot) {
            Entry::Vacant(vacant) => drop(vacant.insert((partition, change))),
            Entry::Occupied(_) if self.later.len() < LATER_MAX => {
                self.later.push((slot, partition, change));
            }
            Entry::Occupied(mut first) => {
                let (_, first) = first.get_mut();
                *first = first.and(change);
            }
        }
    }

    /// The changes, those of each partition in the order in which they came, but for those that
    /// became one with its first.
    pub fn each(self) -> impl Iterator<Item = (Slot, PartitionId, Change)> {
        let first = self.first.into_iter();
        let first = first.map(|(slot, (partition, change))| (slot, partition, change));
        first.chain(self.later)
    }
}

impl Watch {
    /// What changed since the last call, for a reader who does not wait.
    pub fn take(&self, now: Instant) -> Changes {
        take(&mut self.waiter.told(), now)
    }

    /// What changed since the last call, unless its reader shall rest first.
    pub fn take_rested(&self, now: Instant) -> Changes {
        let mut told = self.waiter.told();
        if told.is_held {
            return Changes::default();
        }
        take(&mut told, now)
    }

    /// Waits until the reader is woken for something that changed.
    pub async fn changed(&self, now: impl Fn() -> Instant) -> Changes {
        loop {
            let changes = self.take_rested(now());
            if !changes.is_empty() {
                return changes;
            }
            self.waiter.woken.notified().await;
        }
    }
}

fn take(told: &mut Untaken, now: Instant) -> Changes {
    if !told.changes.is_empty() {
        told.taken_at = Some(now);
    }
    std::mem::take(&mut told.changes)
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self.hub.waiting();
        for partition in &self.entered {
            let Some(waiters) = waiting.entered.get_mut(partition) else {
                continue;
            };
            waiters.retain(|(waiter, _)| !Arc::ptr_eq(waiter, &self.waiter));
            if waiters.is_empty() {
                waiting.entered.remove(partition);
            }
        }
        if self.entered.is_empty() {
            waiting
                .listed
                .retain(|listed| !Arc::ptr_eq(&listed.waiter, &self.waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Wake, Waker};

    use futures::FutureExt;
    use meta::ids::FileId;
    use meta::places::SlicePlace;
    use rpc::Position;

    use super::*;

    fn advanced(partition: u64, last_offset: i64) -> Notice {
        let place = SlicePlace {
            file: FileId::default(),
            nonce: 0,
            file_length: 0,
            position: 0,
            length: 0,
            base_offset: last_offset,
            last_offset,
            max_timestamp: 0,
        };
        Notice::Advanced {
            partition: PartitionId(partition),
            high_watermark: last_offset + 1,
            place,
        }
    }

    fn told_of(notices: &[Notice]) -> Told {
        Told {
            from: Position::default(),
            to: Position::default(),
            age_millis: 0,
            notices: notices.to_vec(),
        }
    }

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    /// A waiter for `partitions` partitions, of which the one in slot n has the number n + 1.
    fn watch(hub: &Arc<Hub>, partitions: u32, lasts: bool) -> Watch {
        let slots = (0..partitions).rev();
        let partitions = slots.map(|slot| (PartitionId(u64::from(slot) + 1), slot));
        hub.watch(partitions.collect(), lasts)
    }

    #[tokio::test]
    async fn who_waits_is_told_of_his_partitions_alone() {
        for (partitions, lasts) in [(2, false), (2, true), (1_000, false), (1_000, true)] {
            let hub = Arc::new(Hub::new(0));
            let watch = watch(&hub, partitions, lasts);
            hub.tell(&told_of(&[advanced(5_000, 0)]), at(0));
            assert!(watch.changed(|| at(0)).now_or_never().is_none());
            hub.tell(&told_of(&[advanced(5_000, 0), advanced(2, 0)]), at(0));
            let changes = watch.changed(|| at(0)).await;
            let told: Vec<_> = changes.each().collect();
            assert!(matches!(
                told[..],
                [(1, PartitionId(2), Change::Advanced { .. })]
            ));
            assert!(watch.changed(|| at(0)).now_or_never().is_none());
            hub.tell_all(&told_of(&[]), at(0));
            assert!(watch.changed(|| at(0)).await.all);
            drop(watch);
            assert!(hub.waiting().entered.is_empty() && hub.waiting().listed.is_empty());
        }
    }

    /// A task that looks as soon as it is woken, while others are still being told.
    struct Eager {
        watch: Arc<Watch>,
        seen: Mutex<Vec<usize>>,
    }

    impl Wake for Eager {
        fn wake(self: Arc<Self>) {
            let changed = self.watch.take_rested(at(0)).each().count();
            self.seen.lock().unwrap().push(changed);
        }
    }

    #[test]
    fn who_is_woken_by_a_commit_finds_all_its_partitions() {
        let hub = Arc::new(Hub::new(0));
        let watch = Arc::new(watch(&hub, 3, true));
        let eager = Arc::new(Eager {
            watch: Arc::clone(&watch),
            seen: Mutex::default(),
        });
        let waker = Waker::from(Arc::clone(&eager));
        let mut changed = Box::pin(watch.changed(|| at(0)));
        let polled = changed.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        hub.tell(
            &told_of(&[advanced(1, 0), advanced(2, 0), advanced(3, 0)]),
            at(0),
        );
        assert_eq!(*eager.seen.lock().unwrap(), [3]);
    }

    #[test]
    fn what_comes_before_the_wait_is_not_lost_nor_kept_without_bound() {
        let hub = Arc::new(Hub::new(0));
        let watch = watch(&hub, 2, true);
        for offset in 0..1_000 {
            hub.tell(&told_of(&[advanced(1, offset)]), at(0));
        }
        hub.tell_to_look(&[PartitionId(2)]);
        let told: Vec<_> = watch.take_rested(at(0)).each().collect();
        let look = |high_watermark| Change::Look { high_watermark };
        assert_eq!(told[0], (0, PartitionId(1), look(1_000)));
        assert_eq!(told[1], (1, PartitionId(2), look(0)));
        assert_eq!(told.len(), 2 + LATER_MAX);
    }

    #[test]
    fn a_lone_reader_is_woken_by_every_commit() {
        let hub = Arc::new(Hub::new(0));
        let watch = watch(&hub, 2, true);
        for offset in 0..100_i64 {
            let now = at(offset.cast_unsigned());
            assert_eq!(
                hub.tell(&told_of(&[advanced(1, offset), advanced(2, offset)]), now),
                None
            );
            assert_eq!(watch.take_rested(now).each().count(), 2);
        }
    }

    #[test]
    fn readers_of_the_same_commits_rest_between_them_and_miss_nothing() {
        let hub = Arc::new(Hub::new(0));
        let watches: Vec<Watch> = (0..5).map(|_| watch(&hub, 2, true)).collect();
        let told = |now| {
            watches
                .iter()
                .map(move |watch| watch.take_rested(now).each().count())
        };
        assert_eq!(hub.tell(&told_of(&[advanced(1, 0)]), at(10_000)), None);
        assert!(
            told(at(10_000)).eq([1; 5]),
            "after a quiet time there is no rest"
        );

        let until = at(10_000) + REST_PER_OTHER * 4;
        assert_eq!(
            hub.tell(&told_of(&[advanced(1, 1)]), at(10_100)),
            Some(until)
        );
        assert_eq!(
            hub.tell(&told_of(&[advanced(2, 0)]), at(10_200)),
            Some(until)
        );
        assert_eq!(hub.wake_rested(at(10_300)), Some(until));
        assert!(told(at(10_300)).eq([0; 5]));
        assert_eq!(
            watches[0].take(at(10_300)).each().count(),
            2,
            "who does not wait sees all"
        );
        assert_eq!(hub.wake_rested(until), None);
        assert!(told(until).eq([0, 2, 2, 2, 2]));

        let longest = until + REST_MAX;
        assert_eq!(hub.tell(&told_of(&[advanced(1, 2)]), longest), None);
        assert!(told(longest).eq([1; 5]));
    }

    #[test]
    fn nobody_rests_for_readers_who_are_gone() {
        let hub = Arc::new(Hub::new(0));
        let watches: Vec<Watch> = (0..5).map(|_| watch(&hub, 2, true)).collect();
        hub.tell(&told_of(&[advanced(1, 0)]), at(0));
        assert!(
            watches
                .iter()
                .all(|watch| !watch.take_rested(at(0)).is_empty())
        );
        let later = at(0) + ACTIVE;
        for offset in 1..100 {
            assert_eq!(hub.tell(&told_of(&[advanced(1, offset)]), later), None);
            assert_eq!(watches[0].take_rested(later).each().count(), 1);
        }
    }

    #[test]
    fn a_commit_that_comes_when_the_rest_is_over_wakes_those_who_rested() {
        let hub = Arc::new(Hub::new(0));
        let watches: Vec<Watch> = (0..3).map(|_| watch(&hub, 2, true)).collect();
        hub.tell(&told_of(&[advanced(1, 0)]), at(0));
        assert!(
            watches
                .iter()
                .all(|watch| !watch.take_rested(at(0)).is_empty())
        );
        let until = hub
            .tell(&told_of(&[advanced(1, 1)]), at(1))
            .expect("a rest");
        assert_eq!(hub.tell(&told_of(&[advanced(2, 0)]), until), None);
        let told = watches
            .iter()
            .map(|watch| watch.take_rested(until).each().count());
        assert!(told.eq([2; 3]));
    }
}
