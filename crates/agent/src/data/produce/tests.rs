//! The pipeline against a control plane and a bucket that lose, delay, reorder and refuse, driven by
//! a seed: what producers are told must be what was committed, in the order in which they sent it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::clock::Instant;
use host::rng::Rng;
use host::thrift;
use meta::commit::{BatchOutcome, CommitFile, FileReply};
use meta::ids::{FileId, Incarnation, PartitionId};

use super::*;

const LIMITS: Limits = Limits {
    flush_bytes: 400,
    batches_max: usize::MAX,
    flush_interval: Duration::from_millis(8),
    thrift: thrift::Limits {
        per_second: 0,
        per_mib: 1,
        wait_max: Duration::from_millis(80),
    },
    uploads_max: 4,
};

fn batch(partition: u64, tag: i32) -> Batch {
    Batch {
        partition: PartitionId(partition),
        bytes: Bytes::from(vec![0; 100]),
        checksum: None,
        records: 1,
        max_timestamp: 0,
        time_source: meta::commit::TimeSource::Records,
        producer_id: -1,
        producer_epoch: -1,
        // The tag tells batches apart in a commit.
        base_sequence: tag,
    }
}

fn write(ticket: usize, lane: u64, at: Instant, batches: Vec<Batch>) -> Write<usize> {
    Write {
        ticket,
        lane: Lane(lane),
        batches,
        pinned_bytes: 0,
        at,
        memory: (),
    }
}

fn stored() -> Stored {
    Stored {
        length: 10_000,
        checksum: 2,
        placement: vec![0],
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn sequence() -> Sequence<usize> {
    let mut sequence = Sequence::new(LIMITS, 1);
    let mut effects = Vec::new();
    sequence.handle(at(0), Event::Registered(Incarnation(1)), &mut effects);
    assert!(effects.is_empty());
    sequence
}

fn handle(sequence: &mut Sequence<usize>, now: u64, event: Event<usize>) -> Vec<Effect<usize>> {
    let mut effects = Vec::new();
    sequence.handle(at(now), event, &mut effects);
    effects
}

fn file(number: u64) -> FileId {
    FileId {
        incarnation: Incarnation(1),
        number,
    }
}

/// Cuts `count` files with one request each, of lane 1 and partition 1.
fn cut_files(sequence: &mut Sequence<usize>, count: usize) {
    for ticket in 0..count {
        let batches = (0..4).map(|_| batch(1, ticket as i32)).collect();
        let effects = handle(sequence, 0, Event::Write(write(ticket, 1, at(0), batches)));
        assert!(
            matches!(effects.as_slice(), [Effect::Upload(_)]),
            "{effects:?}"
        );
    }
}

fn uploaded(number: u64) -> Event<usize> {
    Event::Uploaded {
        file: file(number),
        stored: stored(),
    }
}

fn committed(batches: usize) -> FileReply {
    let outcome = BatchOutcome::Accepted {
        base_offset: 7,
        log_start: 0,
    };
    FileReply::Committed {
        outcomes: vec![outcome; batches].into(),
    }
}

#[test]
fn a_lone_request_does_not_wait_for_the_interval() {
    let mut sequence = sequence();
    assert!(
        handle(
            &mut sequence,
            0,
            Event::Write(write(0, 1, at(0), vec![batch(1, 0)]))
        )
        .is_empty()
    );
    assert_eq!(sequence.deadline(), Some(at(1)));
    assert_eq!(handle(&mut sequence, 1, Event::Timer).len(), 1);
    // During that upload, the next file waits for more requests.
    handle(
        &mut sequence,
        1,
        Event::Write(write(1, 1, at(1), vec![batch(1, 1)])),
    );
    assert_eq!(sequence.deadline(), Some(at(9)));
}

#[test]
fn a_file_is_cut_at_once_when_all_are_there_who_were_there_lately() {
    let mut sequence = sequence();
    let request = |ticket| Event::Write(write(ticket, 1, at(0), vec![batch(1, 0)]));
    // Two producers, over as many files as the batcher remembers.
    for number in 0..8 {
        assert!(handle(&mut sequence, 0, request(0)).is_empty());
        assert!(handle(&mut sequence, 0, request(1)).is_empty());
        assert_eq!(handle(&mut sequence, 1, Event::Timer).len(), 1);
        settle(&mut sequence, number, 2);
    }
    assert!(handle(&mut sequence, 0, request(0)).is_empty());
    assert_eq!(
        sequence.deadline(),
        Some(at(1)),
        "one of the two is missing"
    );
    assert_eq!(handle(&mut sequence, 0, request(1)).len(), 1);
    // During that upload, the next file waits although all producers' requests are here.
    for ticket in 2..4 {
        assert!(handle(&mut sequence, 0, request(ticket)).is_empty());
    }
    settle(&mut sequence, 8, 2);
    // Four were in the pipeline, in two files or one.
    assert!(handle(&mut sequence, 0, request(4)).is_empty());
}

/// Makes file `number`, which was cut, durable and committed.
fn settle(sequence: &mut Sequence<usize>, number: u64, batches: usize) {
    settle_at(sequence, 0, number, batches);
}

fn settle_at(sequence: &mut Sequence<usize>, now: u64, number: u64, batches: usize) {
    handle(sequence, now, uploaded(number));
    let result = Ok(committed(batches));
    let file = file(number);
    handle(sequence, now, Event::Called { file, result });
}

/// The batches of each file that is cut.
fn cut_sizes(effects: &[Effect<usize>]) -> Vec<usize> {
    let cuts = effects.iter().map(|effect| match effect {
        Effect::Upload(cut) => cut.batches.len(),
        other => panic!("{other:?}"),
    });
    cuts.collect()
}

#[test]
fn a_file_is_full_with_as_many_batches_as_a_commit_holds() {
    let limits = Limits {
        flush_bytes: u64::MAX,
        batches_max: 5,
        ..LIMITS
    };
    let mut sequence = Sequence::new(limits, 1);
    handle(&mut sequence, 0, Event::Registered(Incarnation(1)));
    let request = |ticket, count| {
        let batches = (0..count).map(|_| batch(1, 0)).collect();
        Event::Write(write(ticket, 1, at(0), batches))
    };
    assert!(handle(&mut sequence, 0, request(0, 3)).is_empty());
    // The second request does not fit beside the first, and begins a file that is not full.
    assert_eq!(cut_sizes(&handle(&mut sequence, 0, request(1, 3))), [3]);
    assert_eq!(cut_sizes(&handle(&mut sequence, 0, request(2, 2))), [5]);
    // A request with too many batches for any file delays no other.
    assert!(handle(&mut sequence, 0, request(3, 1)).is_empty());
    assert_eq!(cut_sizes(&handle(&mut sequence, 0, request(4, 9))), [1, 9]);
    assert!(handle(&mut sequence, 100, Event::Timer).is_empty());
}

#[test]
fn a_trickle_that_lasts_is_cut_as_often_as_is_paid_for_and_a_full_file_at_once() {
    let mut limits = LIMITS;
    limits.thrift.per_second = 10;
    let mut sequence = Sequence::new(limits, 1);
    handle(&mut sequence, 0, Event::Registered(Incarnation(1)));
    let request = |now, count| {
        let batches = (0..count).map(|_| batch(1, 0)).collect();
        Event::Write(write(0, 1, at(now), batches))
    };
    // Ten a second, saved up for four seconds, pay for 18 files at 2.2 each.
    for number in 0..18 {
        assert!(handle(&mut sequence, 0, request(0, 1)).is_empty());
        assert_eq!(cut_sizes(&handle(&mut sequence, 1, Event::Timer)), [1]);
        settle(&mut sequence, number, 1);
    }
    // The next waits for its 2.2 until 181, or for the longest wait of 80.
    assert!(handle(&mut sequence, 10, request(10, 1)).is_empty());
    assert_eq!(sequence.deadline(), Some(at(90)));
    assert_eq!(cut_sizes(&handle(&mut sequence, 90, Event::Timer)), [1]);
    settle(&mut sequence, 18, 1);
    // 220 ms later there is enough for another.
    assert!(handle(&mut sequence, 290, request(290, 1)).is_empty());
    assert_eq!(sequence.deadline(), Some(at(310)));
    assert_eq!(cut_sizes(&handle(&mut sequence, 310, Event::Timer)), [1]);
    settle(&mut sequence, 19, 1);
    assert!(handle(&mut sequence, 320, request(320, 1)).is_empty());
    assert_eq!(cut_sizes(&handle(&mut sequence, 321, request(321, 3))), [4]);
}

#[test]
fn producers_that_can_send_no_more_do_not_wait_for_a_budget_with_files_that_are_worth_it() {
    let mut limits = Limits {
        flush_bytes: u64::MAX,
        ..LIMITS
    };
    limits.thrift.per_second = 10;
    // Too little; enough, at one time; enough, but at such a pace that a third may follow; on a
    // bucket so quick that even a short wait would be felt.
    for (kib, second, took, due) in [
        (31, 100, 24, 180),
        (32, 100, 24, 103),
        (32, 110, 24, 180),
        (32, 100, 4, 100),
    ] {
        let mut sequence = Sequence::new(limits, 1);
        handle(&mut sequence, 0, Event::Registered(Incarnation(1)));
        let request = |now| {
            let bytes = Bytes::from(vec![0; kib << 10]);
            let batch = Batch {
                bytes,
                ..batch(1, 0)
            };
            Event::Write(write(0, 1, at(now), vec![batch]))
        };
        // Two producers, until the budget is spent.
        for number in 0..40 {
            handle(&mut sequence, 0, request(0));
            let is_cut = !handle(&mut sequence, 0, request(0)).is_empty();
            let cut_at = if is_cut { 0 } else { 80 };
            handle(&mut sequence, cut_at, Event::Timer);
            settle_at(&mut sequence, cut_at + took, number, 2);
        }
        assert!(handle(&mut sequence, 100, request(100)).is_empty());
        let effects = handle(&mut sequence, second, request(second));
        let case = format!("{kib} KiB, {second}, {took} ms");
        match due == second {
            true => assert_eq!(cut_sizes(&effects), [2], "{case}"),
            false => assert_eq!(sequence.deadline(), Some(at(due)), "{case}"),
        }
    }
}

#[test]
fn commits_go_out_in_the_order_of_the_cuts() {
    let mut sequence = sequence();
    cut_files(&mut sequence, 3);
    assert!(handle(&mut sequence, 1, uploaded(2)).is_empty());
    assert!(handle(&mut sequence, 1, uploaded(1)).is_empty());
    let effects = handle(&mut sequence, 1, uploaded(0));
    let sent: Vec<u64> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Commit(commit) => commit.file.number,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, [0, 1, 2]);
}

#[test]
fn a_failed_upload_fails_only_once_it_is_skipped_and_takes_its_connection_along() {
    let mut sequence = sequence();
    cut_files(&mut sequence, 2);
    assert!(handle(&mut sequence, 1, uploaded(1)).is_empty());
    let effects = handle(&mut sequence, 1, Event::UploadFailed { file: file(0) });
    // Nothing is left of file 1 to commit: both numbers are skipped. Requests excluded from a
    // commit are answered at once; those whose file failed, when its skip is settled.
    // once; who was to be stored, when that is settled.
    assert!(
        matches!(effects.as_slice(), [
            Effect::Answer { ticket: 1, answer: Err(Failure::Overtaking) },
            Effect::Skip(a),
            Effect::Skip(b),
        ] if (*a, *b) == (file(0), file(1))),
        "{effects:?}"
    );
    let effects = handle(
        &mut sequence,
        2,
        Event::Write(write(9, 1, at(2), vec![batch(1, 9)])),
    );
    assert!(
        matches!(
            effects.as_slice(),
            [Effect::Answer {
                ticket: 9,
                answer: Err(Failure::Overtaking)
            }]
        ),
        "{effects:?}"
    );
    let skipped = Event::Called {
        file: file(0),
        result: Ok(FileReply::Skipped),
    };
    let effects = handle(&mut sequence, 3, skipped);
    assert!(matches!(
        effects.as_slice(),
        [
            Effect::Answer {
                ticket: 0,
                answer: Err(Failure::NotStored)
            },
            Effect::Settled { .. }
        ]
    ));
    // The connection may write again.
    handle(
        &mut sequence,
        4,
        Event::Write(write(10, 1, at(4), vec![batch(1, 10)])),
    );
    assert!(sequence.deadline().is_some());
}

#[test]
fn an_unknown_outcome_is_settled_by_the_same_commit() {
    let mut sequence = sequence();
    cut_files(&mut sequence, 1);
    let Some(Effect::Commit(first)) = handle(&mut sequence, 1, uploaded(0)).pop() else {
        panic!("no commit")
    };
    let lost = rpc::Error::Unknown {
        reason: String::new(),
    };
    assert!(
        handle(
            &mut sequence,
            2,
            Event::Called {
                file: file(0),
                result: Err(lost)
            }
        )
        .is_empty()
    );
    let effects = handle(&mut sequence, 100, Event::Timer);
    assert!(matches!(effects.as_slice(), [Effect::Commit(again)] if *again == first));
    let called = Event::Called {
        file: file(0),
        result: Ok(committed(4)),
    };
    let effects = handle(&mut sequence, 101, called);
    assert!(
        matches!(&effects[0], Effect::Answer { ticket: 0, answer: Ok(outcomes) }
        if outcomes.len() == 4)
    );
    assert!(sequence.is_idle());
}

/// The numbers of the files whose commits are sent.
fn commits(effects: &[Effect<usize>]) -> Vec<u64> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Commit(commit) => Some(commit.file.number),
        _ => None,
    });
    sent.collect()
}

/// Four files whose commits were sent, and none of them taken so far.
fn nobody_leads() -> Sequence<usize> {
    let mut sequence = sequence();
    cut_files(&mut sequence, 4);
    (0..4).for_each(|number| drop(handle(&mut sequence, 1, uploaded(number))));
    // Each has been repeated for a while, so that their pauses are long and differ.
    for _ in 0..10 {
        for number in 0..4 {
            let result = Err(rpc::Error::NotLeader { leader: None });
            let file = file(number);
            handle(&mut sequence, 1, Event::Called { file, result });
        }
        let at = sequence.deadline().expect("they wait").as_millis() + 1;
        let again = handle(&mut sequence, at, Event::Timer);
        assert_eq!(commits(&again), (0..4).collect::<Vec<u64>>());
    }
    sequence
}

#[test]
fn calls_that_wait_for_a_leader_go_out_together_and_in_order() {
    let sequence = nobody_leads();
    assert_eq!(sequence.deadline(), None, "all are under way");
}

#[test]
fn what_met_a_gap_goes_out_at_once_when_the_file_before_it_is_settled() {
    let mut sequence = nobody_leads();
    // The first is with a leader; those after it came before it did.
    for number in 1..4 {
        let result = Ok(FileReply::Gap { expected: 0 });
        let file = file(number);
        handle(&mut sequence, 20_000, Event::Called { file, result });
    }
    let called = Event::Called {
        file: file(0),
        result: Ok(committed(4)),
    };
    let effects = handle(&mut sequence, 20_001, called);
    assert_eq!(commits(&effects), (1..4).collect::<Vec<u64>>());
}

#[test]
fn what_met_a_gap_that_is_closed_when_it_hears_of_it_goes_out_in_a_moment() {
    let mut sequence = nobody_leads();
    let mut called = |number, result| {
        let file = file(number);
        handle(&mut sequence, 20_000, Event::Called { file, result })
    };
    called(0, Ok(committed(4)));
    called(1, Ok(FileReply::Gap { expected: 0 }));
    assert!(sequence.deadline().is_some_and(|due| due <= at(20_005)));
}

#[test]
fn an_agent_that_was_started_elsewhere_registers_anew_without_a_commit_that_fails() {
    let mut sequence = sequence();
    cut_files(&mut sequence, 1);
    let ours = file(0).incarnation;
    assert!(handle(&mut sequence, 1, Event::Replaced(ours)).is_empty());
    let effects = handle(&mut sequence, 1, Event::Replaced(Incarnation(ours.0 + 1)));
    assert!(matches!(effects.last(), Some(Effect::Register)));
    assert!(!sequence.is_registered());
    let again = Event::Replaced(Incarnation(ours.0 + 1));
    assert!(handle(&mut sequence, 1, again).is_empty(), "once is enough");
}

#[test]
fn a_fenced_agent_tells_what_it_knows_and_registers_anew() {
    let mut sequence = sequence();
    cut_files(&mut sequence, 2);
    handle(&mut sequence, 1, uploaded(0));
    handle(
        &mut sequence,
        1,
        Event::Write(write(7, 2, at(1), vec![batch(1, 7)])),
    );
    let fenced = Event::Called {
        file: file(0),
        result: Ok(FileReply::Fenced),
    };
    let effects = handle(&mut sequence, 2, fenced);
    let answers: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Answer {
                ticket,
                answer: Err(failure),
            } => Some((*ticket, *failure)),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [(0, Failure::Fenced), (1, Failure::NotStored)]);
    assert!(matches!(effects.last(), Some(Effect::Register)));
    assert!(
        handle(&mut sequence, 50, Event::Timer).is_empty(),
        "nobody to name files for"
    );
    let effects = handle(&mut sequence, 51, Event::Registered(Incarnation(2)));
    let [Effect::Upload(cut)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(
        cut.file,
        FileId {
            incarnation: Incarnation(2),
            number: 0
        }
    );
    // Events of the old incarnation's files do nothing to the new one.
    assert!(handle(&mut sequence, 52, uploaded(1)).is_empty());
}

/// The control plane's decisions, by the rules of `meta`: a number is decided once, in order.
#[derive(Default)]
struct Model {
    next: BTreeMap<Incarnation, u64>,
    fenced: BTreeSet<Incarnation>,
    decided: BTreeMap<FileId, Option<Vec<BatchOutcome>>>,
    /// Tags of accepted batches by partition, in order of their offsets.
    logs: BTreeMap<u64, Vec<i32>>,
}

impl Model {
    fn decide(&mut self, file: FileId, commit: Option<&CommitFile>) -> FileReply {
        if let Some(kept) = self.decided.get(&file) {
            return match kept {
                Some(outcomes) => FileReply::Committed {
                    outcomes: outcomes.clone().into(),
                },
                None => FileReply::Skipped,
            };
        }
        if self.fenced.contains(&file.incarnation) {
            return FileReply::Fenced;
        }
        let next = self.next.entry(file.incarnation).or_default();
        if file.number != *next {
            return FileReply::Gap { expected: *next };
        }
        *next += 1;
        let outcomes = commit.map(|commit| self.append(commit));
        self.decided.insert(file, outcomes.clone());
        match outcomes {
            Some(outcomes) => FileReply::Committed {
                outcomes: outcomes.into(),
            },
            None => FileReply::Skipped,
        }
    }

    fn append(&mut self, commit: &CommitFile) -> Vec<BatchOutcome> {
        let mut tags = commit.batches.base_sequence.iter();
        let mut outcomes = Vec::new();
        for (partition, count) in commit.slices.partition.iter().zip(&commit.slices.batches) {
            let log = self.logs.entry(*partition).or_default();
            for tag in tags.by_ref().take(*count as usize) {
                let base_offset = log.len() as i64;
                outcomes.push(BatchOutcome::Accepted {
                    base_offset,
                    log_start: 0,
                });
                log.push(*tag);
            }
        }
        outcomes
    }
}

/// Something under way in the simulated world.
enum Flight {
    Upload(FileId),
    Commit(Arc<CommitFile>),
    Skip(FileId),
    Register,
}

struct World {
    rng: Rng,
    now: u64,
    sequence: Sequence<usize>,
    model: Model,
    flights: Vec<Flight>,
    incarnation: u64,
    answers: BTreeMap<usize, (Answer, usize)>,
    /// Tickets in the order in which they were sent: the lane, and how many answers came before.
    sent: Vec<(u64, usize)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut limits = LIMITS;
        // In every second world files cost more than there is.
        limits.thrift.per_second = 40 * (seed % 2);
        World {
            rng: Rng::seeded(seed),
            now: 0,
            sequence: Sequence::new(limits, seed),
            model: Model::default(),
            flights: vec![Flight::Register],
            incarnation: 0,
            answers: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event<usize>) {
        let mut effects = Vec::new();
        self.sequence.handle(at(self.now), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Upload(cut) => self.flights.push(Flight::Upload(cut.file)),
                Effect::Commit(commit) => self.flights.push(Flight::Commit(commit)),
                Effect::Skip(file) => self.flights.push(Flight::Skip(file)),
                Effect::Register => self.flights.push(Flight::Register),
                Effect::Settled { .. } => {}
                Effect::Answer { ticket, answer } => {
                    let turn = self.answers.len();
                    let twice = self.answers.insert(ticket, (answer, turn));
                    assert!(twice.is_none(), "ticket {ticket} was answered twice");
                }
            }
        }
    }

    fn send(&mut self) {
        let (ticket, lane) = (self.sent.len(), self.rng.below(3));
        self.sent.push((lane, self.answers.len()));
        let count = 1 + self.rng.below(3);
        let batches = (0..count)
            .map(|_| batch(1 + self.rng.below(3), ticket as i32))
            .collect();
        self.handle(Event::Write(write(ticket, lane, at(self.now), batches)));
    }

    /// Ends one thing that is under way; with `faults` it may fail.
    fn land(&mut self, faults: bool) {
        if self.flights.is_empty() {
            return;
        }
        let which = self.rng.below(self.flights.len() as u64) as usize;
        let flight = self.flights.swap_remove(which);
        let luck = if faults { self.rng.below(20) } else { 19 };
        match flight {
            Flight::Upload(file) if luck == 0 => self.handle(Event::UploadFailed { file }),
            Flight::Upload(file) => self.handle(Event::Uploaded {
                file,
                stored: stored(),
            }),
            Flight::Commit(commit) => {
                let result = self.call(luck, commit.file, Some(&commit));
                self.handle(Event::Called {
                    file: commit.file,
                    result,
                });
            }
            Flight::Skip(file) => {
                let result = self.call(luck, file, None);
                self.handle(Event::Called { file, result });
            }
            Flight::Register => {
                self.model
                    .fenced
                    .extend((1..=self.incarnation).map(Incarnation));
                self.incarnation += 1;
                self.handle(Event::Registered(Incarnation(self.incarnation)));
            }
        }
    }

    fn call(
        &mut self,
        luck: u64,
        file: FileId,
        commit: Option<&CommitFile>,
    ) -> Result<FileReply, rpc::Error> {
        let lost = || rpc::Error::Unknown {
            reason: String::new(),
        };
        match luck {
            0 => Err(lost()),
            1 => Err(rpc::Error::Busy),
            2 => {
                self.model.decide(file, commit);
                Err(lost())
            }
            3 if self.rng.once_in(8) => {
                self.model.fenced.insert(file.incarnation);
                Ok(self.model.decide(file, commit))
            }
            4 if commit.is_some() && self.rng.once_in(4) => match self.model.decided.get(&file) {
                None => Ok(FileReply::PlacementRefused),
                Some(_) => Ok(self.model.decide(file, commit)),
            },
            _ => Ok(self.model.decide(file, commit)),
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.rng.below(4) {
                0 => self.send(),
                1 | 2 => self.land(true),
                _ => {
                    self.now += self.rng.below(6);
                    self.handle(Event::Timer);
                }
            }
        }
        // The faults are over: everything must end soon.
        self.handle(Event::Drain);
        for _ in 0..20_000 {
            if self.sequence.is_idle() {
                return;
            }
            self.now += 3;
            self.handle(Event::Timer);
            self.land(false);
        }
        panic!("the pipeline is stuck");
    }

    fn check(&self) {
        assert_eq!(
            self.answers.len(),
            self.sent.len(),
            "not everyone was answered"
        );
        let mut written: BTreeMap<i32, usize> = BTreeMap::new();
        for tag in self.model.logs.values().flatten() {
            *written.entry(*tag).or_default() += 1;
        }
        for (ticket, (answer, _)) in &self.answers {
            let count = written.get(&(*ticket as i32)).copied().unwrap_or(0);
            match answer {
                Ok(outcomes) => assert_eq!(count, outcomes.len(), "of ticket {ticket}"),
                Err(failure) if failure.is_definite() => {
                    assert_eq!(count, 0, "ticket {ticket} failed for certain: {failure:?}");
                }
                Err(_) => {}
            }
        }
        for log in self.model.logs.values() {
            for lane in 0..3 {
                let of_lane: Vec<i32> = log
                    .iter()
                    .copied()
                    .filter(|tag| self.sent[*tag as usize].0 == lane)
                    .collect();
                assert!(
                    of_lane.is_sorted(),
                    "lane {lane} was reordered: {of_lane:?}"
                );
            }
        }
        self.check_overtaking();
    }

    /// Checks that no request was written that was sent before an earlier one's failure was known.
    fn check_overtaking(&self) {
        for (ticket, (answer, turn)) in &self.answers {
            // The control plane refuses a commit only when later files are on their way already.
            if !matches!(answer, Err(Failure::NotStored | Failure::Overtaking)) {
                continue;
            }
            let lane = self.sent[*ticket].0;
            for (later, (_, before)) in self.sent.iter().enumerate().skip(*ticket + 1) {
                if self.sent[later].0 == lane && *before <= *turn {
                    let answer = &self.answers[&later].0;
                    assert!(answer.is_err(), "ticket {later} overtook {ticket}");
                }
            }
        }
    }
}

#[test]
fn whatever_happens_producers_are_told_what_was_committed() {
    let mut told = BTreeMap::<String, usize>::new();
    for seed in 0..150 {
        let mut world = World::new(seed);
        world.run(400);
        world.check();
        for (answer, _) in world.answers.values() {
            let kind = match answer {
                Ok(_) => "written".to_owned(),
                Err(failure) => format!("{failure:?}"),
            };
            *told.entry(kind).or_default() += 1;
        }
    }
    // A run in which a fault never struck would prove nothing.
    for kind in ["written", "NotStored", "Overtaking", "Fenced", "Refused"] {
        assert!(
            told.get(kind).is_some_and(|count| *count > 10),
            "{kind} is missing in {told:?}"
        );
    }
}
