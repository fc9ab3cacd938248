//! What a fetch decides: directed schedules, then random ones in which readers miss nothing.

use std::sync::Arc;

use host::rng::Rng;
use meta::ids::{FileId, Incarnation};
use rpc::Position;
use rpc::notice::{Notice, Told};

use super::super::hub::{Hub, Watch};
use super::super::item::Change;
use super::super::items::Outcome;
use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// A slice in a file of its own, whose number is the slice's base offset.
fn place(base_offset: i64, last_offset: i64) -> SlicePlace {
    SlicePlace {
        file: FileId {
            incarnation: Incarnation(1),
            number: base_offset.unsigned_abs(),
        },
        nonce: 0,
        file_length: 100,
        position: 16,
        length: 10,
        base_offset,
        last_offset,
        max_timestamp: 0,
    }
}

fn found(high_watermark: i64, places: &[SlicePlace]) -> Located {
    Located::Found {
        log_start: 0,
        high_watermark,
        places: places.to_vec(),
    }
}

/// A fetch of partitions 0.. from offset 0 on that waits for a second at most and was told where
/// the records are.
fn begun(located: Vec<Located>, min_bytes: u64) -> (Poll, Vec<Effect>) {
    let mut items = Items::default();
    for partition in 0..located.len() as u64 {
        let want = Want {
            offset: 0,
            max_bytes: 1_000,
        };
        items.add(PartitionId(partition), want);
    }
    let limits = Limits {
        max_bytes: 10_000,
        min_bytes,
        deadline: at(1_000),
    };
    let mut poll = Poll::new(items, limits);
    let effects = poll.handle(at(0), Event::Begin(Changes::default()));
    assert!(matches!(&effects[..], [Effect::Locate(requests)] if requests.len() == located.len()));
    let effects = poll.handle(at(0), Event::Located(Ok(located)));
    (poll, effects)
}

fn changed(slot: Slot, change: Change) -> Event {
    let mut changes = Changes::default();
    changes.add(slot, PartitionId(u64::from(slot)), change);
    Event::Changed(changes)
}

fn loads(effects: &[Effect]) -> Vec<Load> {
    let load = |effect: &Effect| match effect {
        Effect::Load(load) => Some(*load),
        _ => None,
    };
    effects.iter().filter_map(load).collect()
}

fn is_answer(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Answer])
}

fn part(base_offset: i64) -> Part {
    plan::part_of(&place(base_offset, base_offset))
}

fn unavailable() -> LoadError {
    LoadError::Unavailable(store::bucket::Error::unknown(
        store::bucket::Op::Get,
        "",
        "503",
    ))
}

#[test]
fn a_reader_at_the_end_is_told_where_the_next_records_are() {
    let (mut poll, effects) = begun(vec![found(0, &[]), found(0, &[])], 1);
    assert!(matches!(&effects[..], [Effect::Wait(until)] if *until == at(1_000)));
    let advanced = Change::Advanced {
        high_watermark: 3,
        place: place(0, 2),
    };
    let effects = poll.handle(at(5), changed(1, advanced));
    let [Effect::Find(wanted)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(wanted[0].places, [(PartitionId(1), place(0, 2))]);
    assert!(is_answer(&poll.handle(at(5), Event::Found(vec![part(0)]))));
    let (items, taken) = poll.take();
    assert_eq!(taken.chosen.len(), 1);
    assert_eq!((taken.chosen[0].slot, taken.failed.len()), (1, 0));
    assert!(matches!(items.outcome(1), Outcome::Within(bounds) if bounds.high_watermark == 3));
}

#[test]
fn what_several_commits_brought_while_a_reader_rested_is_read_without_a_look() {
    let (mut poll, _) = begun(vec![found(0, &[]), found(0, &[])], 1);
    let mut changes = Changes::default();
    for place in [place(0, 2), place(3, 4)] {
        let change = Change::Advanced {
            high_watermark: place.last_offset + 1,
            place,
        };
        changes.add(1, PartitionId(1), change);
    }
    let effects = poll.handle(at(5), Event::Changed(changes));
    assert!(matches!(&effects[..], [Effect::Find(_)]), "{effects:?}");
    poll.handle(at(5), Event::Found(vec![part(0), part(3)]));
    let places = [place(0, 2), place(3, 4)];
    assert_eq!(poll.take().1.chosen[0].places, places);
}

#[test]
fn one_slow_load_holds_up_nothing_for_longer_than_the_wait() {
    let located = vec![found(1, &[place(0, 0)]), found(2, &[place(1, 1)])];
    let (mut poll, _) = begun(located, 1);
    let effects = poll.handle(at(0), Event::Found(vec![part(0)]));
    assert_eq!(loads(&effects).len(), 1);
    assert!(matches!(effects.last(), Some(Effect::LoadUntil(until)) if *until == at(1_000)));
    assert!(poll.handle(at(999), Event::Time).is_empty());
    assert!(is_answer(&poll.handle(at(1_000), Event::Time)));
    assert!(
        poll.handle(at(1_001), Event::Loaded(part(1), Ok(())))
            .is_empty()
    );
    let (_, taken) = poll.take();
    assert_eq!((taken.chosen.len(), taken.failed.len()), (2, 0));
}

#[test]
fn want_of_memory_makes_no_empty_answer_at_once() {
    let located = vec![found(1, &[place(0, 0)]), found(2, &[place(1, 1)])];
    let (mut poll, _) = begun(located, 1);
    let effects = poll.handle(at(0), Event::Found(Vec::new()));
    let both = loads(&effects);
    assert!(both.len() == 2 && both.iter().all(|load| !load.may_wait));
    let short = |part| Event::Loaded(part, Err(LoadError::NoRoom));
    assert!(loads(&poll.handle(at(1), short(part(0)))).is_empty());
    let effects = poll.handle(at(1), short(part(1)));
    let [waiting] = loads(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert!(waiting.may_wait, "who holds nothing waits for one");
    let effects = poll.handle(at(700), Event::Loaded(waiting.part, Ok(())));
    assert!(is_answer(&effects));
}

#[test]
fn who_holds_a_part_waits_for_no_memory() {
    let located = vec![found(1, &[place(0, 0)]), found(2, &[place(1, 1)])];
    let (mut poll, _) = begun(located, 1);
    poll.handle(at(0), Event::Found(vec![part(0)]));
    let short = Event::Loaded(part(1), Err(LoadError::NoRoom));
    assert!(is_answer(&poll.handle(at(1), short)));
}

#[test]
fn a_bucket_that_may_answer_yet_is_asked_again() {
    let (mut poll, _) = begun(vec![found(1, &[place(0, 0)])], 1);
    poll.handle(at(0), Event::Found(Vec::new()));
    for failures in 1..4 {
        let failed = Event::Loaded(part(0), Err(unavailable()));
        let effects = poll.handle(at(100), failed);
        assert_eq!(loads(&effects)[0].failures, failures);
    }
    assert!(is_answer(
        &poll.handle(at(200), Event::Loaded(part(0), Ok(())))
    ));
    let (_, taken) = poll.take();
    assert_eq!(taken.failed.len(), 0);

    let (mut poll, _) = begun(vec![found(1, &[place(0, 0)])], 1);
    poll.handle(at(0), Event::Found(Vec::new()));
    poll.handle(at(900), Event::Loaded(part(0), Err(unavailable())));
    assert!(is_answer(&poll.handle(at(1_000), Event::Time)));
    let (_, taken) = poll.take();
    assert!(matches!(
        taken.failed.get(&part(0)),
        Some(LoadError::Unavailable(_))
    ));
}

#[test]
fn a_missing_file_is_planned_again_at_a_current_index() {
    for is_elsewhere in [true, false] {
        let (mut poll, _) = begun(vec![found(9, &[place(0, 8)])], 1);
        poll.handle(at(0), Event::Found(Vec::new()));
        let missing = Event::Loaded(part(0), Err(LoadError::Missing));
        let effects = poll.handle(at(1), missing);
        assert!(matches!(&effects[..], [Effect::Confirm]));
        let effects = poll.handle(at(2), Event::Current(Ok(())));
        assert!(matches!(&effects[..], [Effect::Locate(_)]));
        let now = if is_elsewhere {
            place(7, 8)
        } else {
            place(0, 8)
        };
        let effects = poll.handle(at(3), Event::Located(Ok(vec![found(9, &[now])])));
        assert_eq!(is_answer(&effects), !is_elsewhere);
        if is_elsewhere {
            poll.handle(at(4), Event::Found(Vec::new()));
            assert!(is_answer(
                &poll.handle(at(5), Event::Loaded(part(7), Ok(())))
            ));
        }
        let (_, taken) = poll.take();
        assert_eq!(taken.failed.is_empty(), is_elsewhere);
    }
}

#[test]
fn what_is_found_when_reading_ends_the_wait_and_only_at_a_current_index() {
    let outside = || Located::OutOfRange {
        log_start: 5,
        high_watermark: 9,
    };
    for (located, is_outside) in [(outside(), true), (Located::UnknownPartition, false)] {
        let (mut poll, effects) = begun(vec![located.clone(), found(0, &[])], 1);
        assert!(matches!(&effects[..], [Effect::Confirm]));
        poll.handle(at(1), Event::Current(Ok(())));
        let effects = poll.handle(at(1), Event::Located(Ok(vec![located])));
        assert!(is_answer(&effects));
        let (items, _) = poll.take();
        assert_eq!(matches!(items.outcome(0), Outcome::Outside(_)), is_outside);
        assert_eq!(matches!(items.outcome(0), Outcome::Gone), !is_outside);
    }
}

#[test]
fn a_deleted_partition_is_noticed_while_the_fetch_waits() {
    let (mut poll, effects) = begun(vec![found(0, &[])], 1);
    assert!(matches!(&effects[..], [Effect::Wait(_)]));
    let effects = poll.handle(at(1), changed(0, Change::Look { high_watermark: 0 }));
    assert!(matches!(&effects[..], [Effect::Locate(_)]));
    let effects = poll.handle(at(1), Event::Located(Ok(vec![Located::UnknownPartition])));
    assert!(matches!(&effects[..], [Effect::Confirm]));
    poll.handle(at(2), Event::Current(Ok(())));
    let effects = poll.handle(at(2), Event::Located(Ok(vec![Located::UnknownPartition])));
    assert!(is_answer(&effects));
    assert_eq!(poll.take().0.outcome(0), Outcome::Gone);
}

#[test]
fn what_was_refused_waits_with_the_others_and_alone_for_nothing() {
    let limits = Limits {
        max_bytes: 1_000,
        min_bytes: 1,
        deadline: at(1_000),
    };
    let want = Want {
        offset: 0,
        max_bytes: 100,
    };
    for (has_others, ends_wait) in [(true, false), (true, true), (false, false)] {
        let mut items = Items::default();
        items.add_refused(want, ends_wait);
        if has_others {
            items.add(PartitionId(1), want);
        }
        let mut poll = Poll::new(items, limits);
        let mut effects = poll.handle(at(0), Event::Begin(Changes::default()));
        if has_others {
            effects = poll.handle(at(0), Event::Located(Ok(vec![found(0, &[])])));
        }
        assert_eq!(is_answer(&effects), !has_others || ends_wait);
    }
}

#[test]
fn what_the_control_plane_does_not_say_is_an_error() {
    let mut items = Items::default();
    let want = Want {
        offset: 0,
        max_bytes: 100,
    };
    items.add(PartitionId(1), want);
    let limits = Limits {
        max_bytes: 1_000,
        min_bytes: 1,
        deadline: at(1_000),
    };
    let mut poll = Poll::new(items, limits);
    poll.handle(at(0), Event::Begin(Changes::default()));
    let effects = poll.handle(at(0), Event::Located(Err(rpc::Error::Busy)));
    assert!(is_answer(&effects));
    assert!(matches!(poll.take().0.outcome(0), Outcome::Failed(_)));
}

/// Partitions that grow at the end and shrink at the beginning, and a session that reads them.
struct World {
    rng: Rng,
    hub: Arc<Hub>,
    /// How many entries have changed them.
    entries: u64,
    /// Slices and log start of each partition.
    partitions: Vec<(Vec<SlicePlace>, i64)>,
    /// Notices that were not delivered yet.
    untold: VecDeque<Told>,
    files: u64,
    /// Answers that were found in tails.
    from_tails: usize,
}

const PARTITIONS: u64 = 6;
/// Too little for the tails of all partitions at one time.
const TAILS_BYTES: u64 = 2_000;

impl World {
    fn new(seed: u64) -> Self {
        World {
            rng: Rng::seeded(seed),
            hub: Arc::new(Hub::new(TAILS_BYTES)),
            entries: 0,
            partitions: vec![(Vec::new(), 0); PARTITIONS as usize],
            untold: VecDeque::new(),
            files: 0,
            from_tails: 0,
        }
    }

    /// What is told of everything, once it is.
    fn applied(&mut self, notice: Notice) {
        let from = Position(self.entries);
        self.entries += 1;
        self.untold.push_back(Told {
            from,
            to: Position(self.entries),
            age_millis: 0,
            notices: vec![notice],
        });
    }

    /// A message without anything new.
    fn beat(&self) -> Told {
        let at = Position(self.entries);
        Told {
            from: at,
            to: at,
            age_millis: 0,
            notices: Vec::new(),
        }
    }

    fn end(&self, partition: usize) -> i64 {
        let last = self.partitions[partition].0.last();
        last.map_or(0, |place| place.last_offset + 1)
    }

    /// Lets something random happen.
    fn turn(&mut self, now: Instant) {
        let partition = self.rng.below(PARTITIONS) as usize;
        let id = PartitionId(partition as u64);
        if self.rng.once_in(3) {
            let base = self.end(partition);
            let mut place = place(base, base + self.rng.below(3).cast_signed());
            self.files += u64::from(self.rng.once_in(2));
            place.file.number = self.files;
            place.position = 16 + id.0 * 100;
            self.partitions[partition].0.push(place);
            self.applied(Notice::Advanced {
                partition: id,
                high_watermark: place.last_offset + 1,
                place,
            });
        }
        if self.rng.once_in(40) {
            let log_start = self.end(partition);
            self.partitions[partition].1 = log_start;
            self.applied(Notice::LogStart {
                partition: id,
                log_start,
            });
        }
        while !self.rng.once_in(3)
            && let Some(told) = self.untold.pop_front()
        {
            self.hub.tell(&told, now);
        }
        if self.untold.is_empty() {
            self.hub.tell(&self.beat(), now);
        }
        if self.rng.once_in(50) {
            // The notices are lost; every waiter is told to look.
            self.untold.clear();
            self.hub.tails().end_all();
            self.hub.tell_all(&self.beat(), now);
        }
    }

    /// Where records are, by the tails or by an answer that comes after a while.
    fn find(&mut self, requests: &[Locate], now: Instant) -> Vec<Located> {
        let looked = self.hub.tails().look(requests, now);
        let both = requests.iter().zip(&looked.found);
        let unknown = both.filter(|(_, found)| found.is_none());
        let unknown: Vec<Locate> = unknown.map(|(request, _)| *request).collect();
        self.from_tails += requests.len() - unknown.len();
        let located: Vec<Located> = unknown.iter().map(|one| self.locate(one)).collect();
        let at = Position(self.entries);
        while !self.rng.once_in(2) {
            self.turn(now);
        }
        self.hub.tails().begin(unknown.iter().zip(&located), at);
        let mut located = located.into_iter();
        let found = looked.found.into_iter();
        found
            .map(|found| found.unwrap_or_else(|| located.next().unwrap()))
            .collect()
    }

    fn locate(&self, request: &Locate) -> Located {
        let partition = request.partition.0 as usize;
        let (places, log_start) = &self.partitions[partition];
        let (log_start, high_watermark) = (*log_start, self.end(partition));
        if request.offset < log_start || request.offset > high_watermark {
            return Located::OutOfRange {
                log_start,
                high_watermark,
            };
        }
        let places = places.iter();
        let places = places.filter(|place| place.last_offset >= request.offset);
        Located::Found {
            log_start,
            high_watermark,
            places: places.take(3).copied().collect(),
        }
    }

    /// Performs a fetch; yields the parts that were loaded.
    fn fetch(&mut self, items: Items, now: &mut u64, watch: &Watch) -> (Items, Taken, Vec<Part>) {
        let limits = Limits {
            max_bytes: 10 + self.rng.below(60),
            min_bytes: self.rng.below(30),
            deadline: at(*now + 500),
        };
        let mut until = *now + 500 + 450;
        let mut poll = Poll::new(items, limits);
        let mut going: Vec<Part> = Vec::new();
        let mut here: Vec<Part> = Vec::new();
        let mut load_until = limits.deadline;
        let mut effects = poll.handle(at(*now), Event::Begin(watch.take_rested(at(*now))));
        loop {
            self.turn(at(*now));
            *now += self.rng.below(30);
            let mut events: Vec<Event> = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Locate(requests) => {
                        let located = self.find(&requests, at(*now));
                        events.push(Event::Located(Ok(located)));
                    }
                    Effect::Confirm => events.push(Event::Current(Ok(()))),
                    Effect::Wait(until) => {
                        self.hub.wake_rested(at(*now));
                        let mut changes = watch.take_rested(at(*now));
                        if changes.is_empty() {
                            *now = (*now + 20).min(until.as_millis());
                            if at(*now) == until {
                                changes = watch.take(until);
                            }
                        }
                        events.push(if changes.is_empty() {
                            Event::Time
                        } else {
                            Event::Changed(changes)
                        });
                    }
                    Effect::Find(wanted) => {
                        here.extend(wanted.iter().map(|wanted| wanted.part));
                        here.retain(|_| self.rng.once_in(2));
                        events.push(Event::Found(here.clone()));
                    }
                    Effect::Load(load) => {
                        going.push(load.part);
                        if load.may_wait {
                            until = *now + 10_000;
                        }
                        assert!(going.len() <= LOADS_MAX);
                    }
                    Effect::LoadUntil(until) => load_until = until,
                    Effect::Answer => {
                        assert!(*now <= until + 60, "the answer comes in its time");
                        let (items, taken) = poll.take();
                        return (items, taken, here);
                    }
                }
            }
            assert!(events.len() <= 1, "one question at a time");
            let event = match events.pop() {
                Some(event) => event,
                None if at(*now) >= load_until || going.is_empty() => {
                    *now = (*now).max(load_until.as_millis());
                    Event::Time
                }
                None => {
                    let part = going.swap_remove(self.rng.below(going.len() as u64) as usize);
                    match self.rng.below(6) {
                        0 => Event::Loaded(part, Err(LoadError::NoRoom)),
                        1 => Event::Loaded(part, Err(unavailable())),
                        2 => Event::Loaded(part, Err(LoadError::Missing)),
                        _ => {
                            here.push(part);
                            Event::Loaded(part, Ok(()))
                        }
                    }
                }
            };
            effects = poll.handle(at(*now), event);
        }
    }
}

#[test]
fn readers_read_every_record_once_and_in_order_whatever_happens() {
    let mut from_tails = 0;
    for seed in 0..150 {
        // Else each fetch names what it reads.
        let has_session = seed % 3 > 0;
        let mut world = World::new(seed);
        let (mut items, mut now) = (Items::default(), 0);
        let mut offsets = vec![0; PARTITIONS as usize];
        let want = |offset| Want {
            offset,
            max_bytes: 25,
        };
        for partition in 0..PARTITIONS {
            items.add(PartitionId(partition), want(0));
        }
        let mut watch = world.hub.watch(items.partitions(), seed % 2 == 0);
        // Others follow the same partitions, so that readers rest.
        let other = |_| world.hub.watch(items.partitions(), true);
        let _others: Vec<Watch> = (0..seed % 20).map(other).collect();
        for round in 0..60 {
            let (back, taken, here) = world.fetch(items, &mut now, &watch);
            items = back;
            let mut served = Vec::new();
            for chosen in &taken.chosen {
                let offset = &mut offsets[chosen.slot as usize];
                for place in &chosen.places {
                    if !here.contains(&plan::part_of(place)) {
                        break;
                    }
                    assert!(place.base_offset <= *offset, "seed {seed} {round}: a gap");
                    assert!(place.last_offset >= *offset, "seed {seed} {round}: again");
                    *offset = place.last_offset + 1;
                    served.push(chosen.slot);
                }
            }
            items.rest(&served);
            for (slot, offset) in (0..).zip(&mut offsets) {
                if let Outcome::Outside(bounds) = items.outcome(slot) {
                    *offset = bounds.log_start;
                }
                if served.contains(&slot) || *offset < world.partitions[slot as usize].1 {
                    *offset = (*offset).max(world.partitions[slot as usize].1);
                    items.want(slot, want(*offset));
                }
            }
            if !has_session {
                items = Items::default();
                for (partition, offset) in (0..).zip(&offsets) {
                    items.add(PartitionId(partition), want(*offset));
                }
                watch = world.hub.watch(items.partitions(), seed % 2 == 0);
            }
        }
        from_tails += world.from_tails;
        // Nothing more is written and every notice is delivered: a few rounds must read all of it.
        while let Some(told) = world.untold.pop_front() {
            world.hub.tell(&told, at(now));
        }
        let ends: Vec<i64> = (0..PARTITIONS as usize).map(|at| world.end(at)).collect();
        let behind = |offsets: &[i64]| offsets.iter().zip(&ends).any(|(offset, end)| offset < end);
        let limits = Limits {
            max_bytes: 1_000,
            min_bytes: 1,
            deadline: at(now + 1),
        };
        for _ in 0..100 {
            if !behind(&offsets) {
                break;
            }
            let mut poll = Poll::new(items, limits);
            let mut effects = poll.handle(at(now), Event::Begin(watch.take(at(now))));
            while !is_answer(&effects) {
                let event = match effects.remove(0) {
                    Effect::Locate(requests) => {
                        let looked = world.hub.tails().look(&requests, at(now));
                        let both = looked.found.into_iter().zip(&requests);
                        let located = both
                            .map(|(found, request)| found.unwrap_or_else(|| world.locate(request)));
                        Event::Located(Ok(located.collect()))
                    }
                    Effect::Confirm => Event::Current(Ok(())),
                    Effect::Find(wanted) => {
                        Event::Found(wanted.iter().map(|wanted| wanted.part).collect())
                    }
                    other => panic!("seed {seed}: {other:?} though {offsets:?} of {ends:?}"),
                };
                effects = poll.handle(at(now), event);
            }
            let (back, taken) = poll.take();
            items = back;
            items.rest(&[]);
            for chosen in &taken.chosen {
                let end = chosen.places.last().unwrap().last_offset + 1;
                offsets[chosen.slot as usize] = end;
                items.want(chosen.slot, want(end));
            }
            for (slot, offset) in (0..).zip(&mut offsets) {
                let log_start = world.partitions[slot as usize].1;
                if *offset < log_start {
                    *offset = log_start;
                    items.want(slot, want(log_start));
                }
            }
        }
        assert!(!behind(&offsets), "seed {seed}: {offsets:?} of {ends:?}");
    }
    assert!(from_tails > 5_000, "{from_tails}");
}
