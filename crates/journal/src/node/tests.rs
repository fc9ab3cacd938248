//! A node step by step: what it asks for, and when it answers.

use std::time::Duration;

use bytes::Bytes;
use host::clock::Instant;

use super::*;
use crate::engine::WINDOW;
use crate::entry::{ClusterNumber, Entry, Header};
use crate::memory::{Books, Slots};
use crate::rule::{Rule, Rules};

mod doubt;
mod following;
mod quarantine;
mod resigning;
mod thrift;
mod wall_clock;

/// A node over slots that answer at once, unless told otherwise.
struct Bench {
    node: Node,
    slots: Slots,
    books: Option<Books>,
    now: Now,
    effects: Vec<Effect>,
    /// Effects other than requests, in order.
    seen: Vec<Effect>,
    /// What others may be told, in order.
    told: Vec<(u64, Option<Bytes>)>,
    takes: u64,
    scans: u64,
}

fn complete(slots: Vec<(u64, Content)>) -> Vec<Slot> {
    let complete = |(index, content)| Slot {
        index,
        content,
        body: None,
    };
    slots.into_iter().map(complete).collect()
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let mut next = 0;
        let entropy = Box::new(move || {
            next += 1;
            next
        });
        Bench {
            node: Node::new(settings, entropy),
            slots: Slots::new(),
            books: None,
            now: Now {
                boot: Instant::from_millis(1_000),
                wall_millis: 1_700_000_000_000,
            },
            effects: Vec::new(),
            seen: Vec::new(),
            told: Vec::new(),
            takes: 0,
            scans: 0,
        }
    }

    fn leader() -> Self {
        let mut bench = Bench::new(Settings::alone("n"));
        bench.run(Event::Started);
        assert_eq!(bench.node.role(), Role::Leader);
        bench.seen.clear();
        bench
    }

    fn give(&mut self, event: Event) {
        self.node.handle(self.now, event, &mut self.effects);
    }

    fn pass(&mut self, millis: u64) {
        self.now.boot = self.now.boot + Duration::from_millis(millis);
        self.now.wall_millis += millis;
    }

    /// Gives an event and answers every request at once.
    fn run(&mut self, event: Event) {
        self.give(event);
        while let Some(event) = self.answer() {
            self.give(event);
        }
    }

    /// Performs effects until one of them is answered.
    fn answer(&mut self) -> Option<Event> {
        while !self.effects.is_empty() {
            let effect = self.effects.remove(0);
            let event = match effect {
                Effect::LoadSnapshot { ask, .. } => {
                    let floor = self.slots.floor();
                    let damaged = Vec::new();
                    Event::SnapshotLoaded(
                        ask,
                        Ok(Loaded::Nothing {
                            floor,
                            damaged,
                            is_newer: false,
                        }),
                    )
                }
                Effect::Scan { ask, from, limit } => {
                    self.scans += 1;
                    let slots = complete(self.slots.run(from, limit));
                    let end = End::Free;
                    Event::Scanned(ask, Run { slots, end })
                }
                Effect::ReadFloor { ask, .. } => Event::FloorRead(ask, Ok(self.slots.floor())),
                Effect::Take { ask, from, through } => {
                    self.takes += 1;
                    let taken = self.slots.take(from, through);
                    let settled = taken.map(|(settled, books)| {
                        self.books = Some(books);
                        complete(settled)
                    });
                    Event::Taken(ask, settled)
                }
                Effect::Confirmed => {
                    self.books.as_mut().expect("a tenure").confirmed();
                    continue;
                }
                Effect::Append { id, bytes, .. } => {
                    let outcome = self.send(id, bytes);
                    Event::AppendDone(id, outcome)
                }
                Effect::Tell { index, entry } => {
                    self.told.push((index, entry));
                    continue;
                }
                other => {
                    self.seen.push(other);
                    continue;
                }
            };
            return Some(event);
        }
        None
    }

    /// What the engine makes of an append.
    fn send(&mut self, id: EntryId, bytes: Bytes) -> Append {
        let books = self.books.as_mut().expect("a tenure");
        match books.admit(id.index, &bytes) {
            Ok(()) => books.answered(id.index, self.slots.put(id.index, bytes)),
            Err(why) if books.is_over() => {
                assert_eq!(why, "the tenure is over", "at {id:?}");
                Append::Superseded
            }
            Err(why) => panic!("{id:?}: {why}"),
        }
    }

    /// The append reaches the engine, and is answered.
    fn land(&mut self, (id, bytes): (EntryId, Bytes)) -> Event {
        Event::AppendDone(id, self.send(id, bytes))
    }

    /// The append that the node wants now.
    /// The append is of unknown outcome, and is sent again once its time has come.
    fn repeat(&mut self, id: EntryId) -> (EntryId, Bytes) {
        self.give(Event::AppendDone(id, Append::Unknown("lost".to_owned())));
        self.now.boot = self.node.deadline().expect("a retry");
        self.give(Event::Timer);
        self.append()
    }

    fn append(&mut self) -> (EntryId, Bytes) {
        let wanted = self
            .effects
            .iter()
            .position(|e| matches!(e, Effect::Append { .. }));
        match self.effects.remove(wanted.expect("an append")) {
            Effect::Append { id, bytes, .. } => (id, bytes),
            _ => unreachable!("it was found as an append"),
        }
    }
}

fn propose(tickets: std::ops::Range<u64>) -> Event {
    let proposal = |ticket| Proposal {
        ticket: Ticket(ticket),
        item: Item {
            cluster: ClusterNumber(1),
            command: Bytes::from(ticket.to_string()),
        },
        stored_bytes: 0,
    };
    Event::Propose(tickets.map(proposal).collect())
}

#[test]
fn a_lone_node_leads_at_once() {
    let bench = Bench::leader();
    assert_eq!(bench.node.chain().claim().index, 1);
    assert_eq!(bench.node.claimant(), Some("n"));
}

#[test]
fn what_comes_together_shares_an_entry() {
    let mut bench = Bench::leader();
    bench.give(propose(0..1));
    let (id, bytes) = bench.append();
    bench.give(propose(1..4));
    bench.give(Event::Barrier(Ticket(9)));
    assert!(bench.effects.is_empty(), "{:?}", bench.effects);
    let done = bench.land((id, bytes));
    bench.run(done);
    let applied: Vec<usize> = bench
        .seen
        .iter()
        .filter_map(|effect| match effect {
            Effect::Apply { tickets, .. } => Some(tickets.len()),
            _ => None,
        })
        .collect();
    assert_eq!(applied, [1, 3]);
    assert!(matches!(
        bench.seen.last(),
        Some(Effect::BarrierPassed { .. })
    ));
}

/// The tickets of everything applied, in order.
fn applied(bench: &Bench) -> Vec<u64> {
    let tickets = bench.seen.iter().filter_map(|effect| match effect {
        Effect::Apply { tickets, .. } => Some(tickets),
        _ => None,
    });
    tickets.flatten().map(|ticket| ticket.0).collect()
}

/// Two entries in flight, which hold the tickets 0 and 1.
fn two_in_flight(bench: &mut Bench) -> [(EntryId, Bytes); 2] {
    bench.give(propose(0..1));
    let first = bench.append();
    bench.give(propose(1..2));
    assert!(bench.effects.is_empty(), "it waits for company");
    bench.pass(10);
    assert_eq!(bench.node.deadline(), Some(bench.now.boot));
    bench.give(Event::Timer);
    [first, bench.append()]
}

#[test]
fn entries_in_flight_count_in_order() {
    let mut bench = Bench::leader();
    let [(first, one), (second, two)] = two_in_flight(&mut bench);
    let header = Entry::decode(&two).expect("an entry").header;
    assert_eq!(header.predecessor, first);
    assert_eq!(second.index, first.index + 1);
    let done = bench.land((second, two));
    bench.run(done);
    assert_eq!(applied(&bench), [0; 0]);
    let done = bench.land((first, one));
    bench.run(done);
    assert_eq!(applied(&bench), [0, 1]);
    assert_eq!(bench.node.chain().last(), second);
}

#[test]
fn no_more_entries_fly_than_may() {
    let mut bench = Bench::leader();
    let most = Settings::alone("n").appends_in_flight_max;
    for ticket in 0..20 {
        bench.give(propose(ticket..ticket + 1));
        bench.pass(10);
        bench.give(Event::Timer);
    }
    assert_eq!(bench.effects.len(), most);
}

/// An entry of somebody else right after `chain`, under this claim.
fn foreign(chain: &Chain, claim: EntryId, body: crate::entry::Body) -> Bytes {
    let header = Header {
        shard: 0,
        id: EntryId {
            index: chain.next(),
            nonce: 77,
        },
        claim,
        predecessor: chain.last(),
        stamp: chain.stamp(),
    };
    Entry { header, body }.encode()
}

/// A claim of somebody else, which counts.
fn rival_claim(chain: &Chain) -> Bytes {
    let node = "rival".to_owned();
    foreign(
        chain,
        chain.claim(),
        crate::entry::Body::Claim { node, reads: 1 },
    )
}

/// Commands of somebody else under a claim that does not count.
fn void_entry(chain: &Chain) -> Bytes {
    let claim = EntryId { index: 1, nonce: 5 };
    foreign(chain, claim, crate::entry::Body::Commands(Vec::new()))
}

#[test]
fn what_follows_a_lost_slot_is_lost_with_it_wherever_it_lands() {
    let mut bench = Bench::leader();
    let rival = rival_claim(bench.node.chain());
    let [one, two] = two_in_flight(&mut bench);
    let (first, second) = (one.0, two.0);
    bench.slots.put(first.index, rival);
    let done = bench.land(two);
    bench.run(done);
    let done = bench.land(one);
    bench.run(done);
    assert_eq!(bench.node.role(), Role::Follower);
    assert_eq!(bench.node.claimant(), Some("rival"));
    assert_eq!(bench.node.chain().next(), second.index + 1, "it is void");
    let [Effect::Lost { tickets, why }] = &bench.seen[..] else {
        panic!("{:?}", bench.seen);
    };
    assert_eq!(tickets, &[Ticket(0), Ticket(1)]);
    assert!(matches!(why, ProposeError::Definite(_)), "{why}");
}

#[test]
fn a_void_entry_in_the_way_costs_a_take_a_claim_and_a_floor_and_not_the_lead() {
    let mut bench = Bench::leader();
    let void = void_entry(bench.node.chain());
    let [one, two] = two_in_flight(&mut bench);
    let second = two.0;
    bench.slots.put(one.0.index, void);
    // The entry that was sent after it lands, and is void now too.
    let done = bench.land(two);
    bench.run(done);
    bench.give(Event::Barrier(Ticket(7)));
    let done = bench.land(one);
    bench.give(done);
    let [Effect::Take { from, through, .. }] = bench.effects[..] else {
        panic!("{:?}", bench.effects);
    };
    assert_eq!((from, through), (2, 2), "nothing is on its way any more");
    assert_eq!(bench.node.role(), Role::Leader);
    let claim = next_claim(&mut bench);
    assert_eq!(claim.0.index, second.index + 1);
    let done = bench.land(claim);
    bench.run(done);
    assert_eq!(bench.node.role(), Role::Leader);
    assert_eq!(applied(&bench), [0, 1]);
    assert_eq!(bench.node.chain().last().index, second.index + 2);
    let passed = |e: &Effect| matches!(e, Effect::BarrierPassed { .. });
    assert!(bench.seen.iter().any(passed), "who asked meanwhile waits");
}

#[test]
fn what_landed_before_a_void_entry_is_answered_when_it_is_found() {
    let mut bench = Bench::leader();
    let [one, two] = two_in_flight(&mut bench);
    let (first, second) = (one.0, two.0);
    // The first lands and its answer is lost; something else lies in the slot of the second.
    bench.land(one);
    let unknown = Append::Unknown("lost".to_owned());
    bench.give(Event::AppendDone(first, unknown));
    let mut chain = bench.node.chain().clone();
    chain.skip();
    bench.slots.put(second.index, void_entry(&chain));
    let done = bench.land(two);
    bench.run(done);
    assert_eq!(applied(&bench), [0, 1]);
    assert_eq!(bench.node.role(), Role::Leader);
}

#[test]
fn a_void_entry_in_a_slot_that_was_trimmed_tells_a_sleeper_that_it_slept() {
    let mut bench = Bench::leader();
    let void = void_entry(bench.node.chain());
    let [one, two] = two_in_flight(&mut bench);
    bench.slots.put(one.0.index, void);
    let done = bench.land(one);
    bench.give(done);
    let done = bench.land(two);
    bench.slots.trim(9, &[]);
    bench.give(done);
    let event = bench.answer().expect("it takes");
    bench.give(event);
    assert_eq!(bench.node.role(), Role::Loading);
    assert!(
        bench.effects.iter().any(|effect| matches!(
            effect,
            Effect::Lost { tickets, why: ProposeError::Unknown(_) } if tickets.len() == 2
        )),
        "they may have been applied: {:?}",
        bench.effects
    );
}

#[test]
fn an_unknown_append_is_repeated_with_the_same_bytes_only() {
    let mut bench = Bench::leader();
    bench.give(propose(0..1));
    let (id, first) = bench.append();
    bench.give(Event::AppendDone(id, Append::Unknown("lost".to_owned())));
    assert!(bench.effects.is_empty(), "it waits before it tries again");
    let at = bench.node.deadline().expect("a retry");
    bench.now.boot = at;
    bench.give(Event::Timer);
    let (again, second) = bench.append();
    assert_eq!((again, second), (id, first));
}

#[test]
fn a_slot_taken_by_another_claim_loses_what_was_in_flight_for_good() {
    let mut bench = Bench::leader();
    let chain = bench.node.chain().clone();
    bench.give(propose(0..1));
    let sent = bench.append();
    bench.give(propose(1..2));
    bench.slots.put(2, rival_claim(&chain));
    let done = bench.land(sent);
    bench.run(done);
    assert_eq!(bench.node.role(), Role::Follower);
    assert_eq!(bench.node.leading_until(), None);
    let lost: Vec<&Effect> = bench.seen.iter().collect();
    assert_eq!(lost.len(), 2, "{lost:?}");
    for effect in lost {
        let Effect::Lost { why, .. } = effect else {
            panic!("{effect:?}");
        };
        assert!(matches!(why, ProposeError::Definite(_)), "{why}");
    }
    assert_eq!(bench.node.claimant(), Some("rival"));
}

#[test]
fn a_leader_answers_from_memory_for_a_second_from_the_start_of_its_append() {
    let mut bench = Bench::leader();
    bench.pass(5_000);
    let started = bench.now.boot;
    bench.give(propose(0..1));
    let (id, bytes) = bench.append();
    bench.pass(400);
    let done = bench.land((id, bytes));
    bench.run(done);
    let until = started + Duration::from_secs(1);
    assert_eq!(bench.node.leading_until(), Some(until));
}

/// What a leader answers from memory until, whose append succeeded at the second attempt only; and when the first began.
fn lead_after_a_second_attempt(rules: Rules) -> (Option<Instant>, Instant) {
    let mut bench = Bench::leader();
    bench.node.lasting.rules = rules;
    let started = bench.now.boot;
    bench.give(propose(0..1));
    let first = bench.append();
    bench.pass(300);
    let again = bench.repeat(first.0);
    let done = bench.land(again);
    bench.run(done);
    (bench.node.leading_until(), started)
}

/// No schedule of the simulation misses this rule since appends of a tenure end with it.
#[test]
fn a_lead_counts_from_the_first_attempt_and_without_the_rule_from_a_later_one() {
    let (until, started) = lead_after_a_second_attempt(Rules::all());
    assert_eq!(until, Some(started + Duration::from_secs(1)));
    let without = Rules::without(Rule::LeadFromFirstAttempt);
    let (until, started) = lead_after_a_second_attempt(without);
    assert!(until > Some(started + Duration::from_millis(1_250)));
}

#[test]
fn heartbeats_go_on_while_in_use_and_then_stop() {
    let mut bench = Bench::leader();
    bench.run(propose(0..1));
    let end = bench.now.boot + Duration::from_secs(60);
    let mut looks = 0;
    while let Some(at) = bench.node.deadline().filter(|at| *at < end) {
        bench.now.boot = at;
        bench.give(Event::Timer);
        let look = |effect: &&Effect| matches!(effect, Effect::Scan { .. });
        looks += bench.effects.iter().filter(look).count();
        while let Some(event) = bench.answer() {
            bench.give(event);
        }
    }
    // Five seconds of use at two a second; then only a look at the next slot now and then.
    assert_eq!(bench.slots.head(), Some(12));
    assert_eq!(looks, 27);
}

/// Lets time pass until `end` as the nodes' deadlines want it, all on one journal.
fn run_together(benches: &mut [Bench], end: Instant) {
    loop {
        let next = benches
            .iter()
            .enumerate()
            .filter_map(|(at, bench)| Some((bench.node.deadline()?, at)))
            .min();
        let Some((when, at)) = next.filter(|(when, _)| *when < end) else {
            return;
        };
        let slots = benches
            .iter()
            .map(|bench| &bench.slots)
            .max_by_key(|slots| slots.head())
            .expect("a node")
            .clone();
        let bench = &mut benches[at];
        bench.slots = slots;
        bench.now.boot = bench.now.boot.max(when);
        bench.run(Event::Timer);
    }
}

/// Two nodes, each of which was started as the only one.
fn two_alone(second_entropy: u128) -> (Vec<Bench>, Instant) {
    let first = Bench::leader();
    let mut next = second_entropy;
    let entropy = Box::new(move || {
        next += 7_919;
        next
    });
    let mut second = Bench::new(Settings::alone("m"));
    second.node = Node::new(Settings::alone("m"), entropy);
    second.slots = first.slots.clone();
    second.pass(100);
    second.run(Event::Started);
    assert_eq!(second.node.role(), Role::Leader);
    let start = second.now.boot;
    (vec![first, second], start)
}

#[test]
fn an_idle_leader_that_is_deposed_says_so_at_once_and_returns_after_a_silence() {
    let (mut benches, start) = two_alone(1 << 40);
    run_together(&mut benches, start + Duration::from_secs(3));
    let first = &benches[0].node;
    assert_eq!(first.role(), Role::Follower);
    assert_eq!(first.deposed_by().map(|(_, name)| name), Some("m"));
    assert_eq!(first.leading_until(), None);
    // The other one ends.
    let gone = benches.pop().expect("two");
    benches[0].slots = gone.slots;
    run_together(&mut benches, start + Duration::from_secs(10));
    assert_eq!(benches[0].node.role(), Role::Follower, "it waits");
    run_together(&mut benches, start + Duration::from_secs(20));
    assert_eq!(benches[0].node.role(), Role::Leader);
    assert_eq!(benches[0].node.deposed_by(), None);
}

/// A lone node whose predecessor led; its claim that is on its way.
fn restarted() -> (Bench, (EntryId, Bytes)) {
    let before = Bench::leader();
    let mut nonce = 1 << 40;
    let entropy = Box::new(move || {
        nonce += 1;
        nonce
    });
    let mut bench = Bench::new(Settings::alone("n"));
    bench.node = Node::new(Settings::alone("n"), entropy);
    bench.slots = before.slots;
    bench.give(Event::Started);
    let claim = next_claim(&mut bench);
    (bench, claim)
}

fn next_claim(bench: &mut Bench) -> (EntryId, Bytes) {
    let is_append = |effect: &Effect| matches!(effect, Effect::Append { .. });
    while !bench.effects.iter().any(is_append) {
        let event = bench.answer().expect("it goes on without waiting");
        bench.give(event);
    }
    bench.append()
}

/// Something else lands in the slot of a claim.
fn beat(bench: &mut Bench, claim: (EntryId, Bytes), entry: Bytes) {
    bench.slots.put(claim.0.index, entry);
    let done = bench.land(claim);
    bench.give(done);
}

fn late_entry(chain: &Chain) -> Bytes {
    foreign(
        chain,
        chain.claim(),
        crate::entry::Body::Commands(Vec::new()),
    )
}

/// The chain as it is right before the slot of a claim.
fn before(bench: &Bench, claim: EntryId) -> Chain {
    let mut chain = bench.node.chain().clone();
    while chain.next() < claim.index {
        match bench.slots.read(chain.next()) {
            Some(Content::Entry(bytes)) => drop(chain.feed(&bytes)),
            _ => chain.skip(),
        }
    }
    chain
}

#[test]
fn what_the_dead_had_on_its_way_is_shut_out_before_the_claim() {
    let (bench, claim) = restarted();
    // Slot 1 held the claim of the one that died.
    assert_eq!(claim.0.index, 2 + WINDOW);
    let closed = (2..2 + WINDOW).map(|index| bench.slots.read(index));
    assert!(closed.into_iter().all(|slot| slot == Some(Content::Filler)));
}

#[test]
fn a_node_claims_again_at_once_when_what_beats_its_claim_is_no_claim() {
    for name in ["alone", "several"] {
        let (mut bench, claim) = restarted();
        if name == "several" {
            bench.node.lasting.settings.takeover = Takeover::AfterSilence;
        }
        let late = late_entry(&before(&bench, claim.0));
        beat(&mut bench, claim, late);
        assert_eq!(bench.node.deposed_by(), None);
        let again = next_claim(&mut bench);
        let done = bench.land(again);
        bench.run(done);
        assert_eq!(bench.node.role(), Role::Leader, "{name}");
    }
}

#[test]
fn a_lone_node_waits_for_one_that_lives() {
    let (mut bench, mut claim) = restarted();
    for _ in 0..3 {
        let late = late_entry(&before(&bench, claim.0));
        beat(&mut bench, claim, late);
        claim = next_claim(&mut bench);
    }
    let one_more = late_entry(&before(&bench, claim.0));
    beat(&mut bench, claim, one_more);
    bench.run(Event::Timer);
    assert_eq!(bench.node.role(), Role::Follower);
    assert!(bench.node.deposed_by().is_some());

    let (mut bench, claim) = restarted();
    let rival = rival_claim(&before(&bench, claim.0));
    beat(&mut bench, claim, rival);
    bench.run(Event::Timer);
    assert_eq!(bench.node.role(), Role::Follower);
    assert_eq!(bench.node.deposed_by().map(|(_, name)| name), Some("rival"));
}

#[test]
fn two_lone_nodes_that_live_on_do_not_take_the_lead_in_turns() {
    for seed in 0..20 {
        let (mut benches, start) = two_alone(seed << 40);
        // Both are wanted all the time, by clients who try again.
        for seconds in 0..600 {
            for bench in &mut benches {
                let ticket = Ticket(seconds);
                bench.give(Event::Barrier(ticket));
            }
            run_together(&mut benches, start + Duration::from_secs(seconds));
        }
        let claims = benches[0].slots.clone();
        let claims = (1..=claims.head().expect("entries"))
            .filter_map(|slot| match claims.read(slot)? {
                Content::Entry(bytes) => Entry::decode(&bytes).ok(),
                Content::Filler => None,
            })
            .filter(|entry| matches!(entry.body, crate::entry::Body::Claim { .. }));
        let claims = claims.count();
        assert!(claims <= 3, "seed {seed}: {claims} claims in ten minutes");
        let mut roles = [benches[0].node.role(), benches[1].node.role()];
        roles.sort_by_key(|role| *role == Role::Follower);
        assert_eq!(roles, [Role::Leader, Role::Follower], "seed {seed}");
        let deposed = benches.iter().filter(|b| b.node.deposed_by().is_some());
        assert_eq!(deposed.count(), 1, "seed {seed}");
    }
}

#[test]
fn two_lone_nodes_that_nobody_uses_settle_too() {
    let (mut benches, start) = two_alone(1 << 40);
    run_together(&mut benches, start + Duration::from_secs(60));
    let claim = benches[0].node.chain().claim();
    run_together(&mut benches, start + Duration::from_secs(3_600));
    let claims = [0, 1].map(|at: usize| benches[at].node.chain().claim());
    assert_eq!(claims, [claim, claim], "the lead has changed again");
}

#[test]
fn what_waits_too_long_is_given_up_and_what_flies_is_in_doubt() {
    let mut bench = Bench::leader();
    bench.give(propose(0..1));
    bench.append();
    bench.give(propose(1..2));
    bench.pass(20_000);
    bench.give(Event::Timer);
    let lost: Vec<(Vec<Ticket>, bool)> = bench
        .effects
        .drain(..)
        .map(|effect| match effect {
            Effect::Lost { tickets, why } => (
                tickets,
                matches!(why, ProposeError::Definite(Refusal::Expired)),
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lost, [(vec![Ticket(1)], true), (vec![Ticket(0)], false)]);
}

#[test]
fn a_command_that_no_entry_can_hold_is_refused() {
    let mut bench = Bench::leader();
    let item = Item {
        cluster: ClusterNumber(1),
        command: Bytes::from(vec![0; 5 << 20]),
    };
    let ticket = Ticket(1);
    bench.run(Event::Propose(vec![Proposal {
        ticket,
        item,
        stored_bytes: 0,
    }]));
    assert!(matches!(
        &bench.seen[..],
        [Effect::Lost {
            why: ProposeError::Definite(Refusal::TooLarge { .. }),
            ..
        }]
    ));
}

#[test]
fn a_claim_below_the_floor_does_not_count() {
    let mut bench = Bench::new(Settings::alone("n"));
    bench.give(Event::Started);
    // Everything is answered as long as the journal is empty, up to the claim.
    let (id, bytes) = loop {
        if bench
            .effects
            .iter()
            .any(|e| matches!(e, Effect::Append { .. }))
        {
            break bench.append();
        }
        let event = bench.answer().expect("a request");
        bench.give(event);
    };
    let done = bench.land((id, bytes));
    bench.slots.trim(5, &[]);
    bench.give(done);
    assert_eq!(bench.node.role(), Role::BecomingLeader);
    let event = bench.answer().expect("the floor is read");
    bench.give(event);
    assert_eq!(bench.node.role(), Role::Loading);
}

#[test]
fn ticks_count_the_time_that_leaders_led() {
    let stamp = |bench: &Bench| match bench.seen.last() {
        Some(Effect::Apply { stamp, .. }) => *stamp,
        other => panic!("{other:?}"),
    };
    let mut first = Bench::leader();
    first.pass(7_000);
    first.run(propose(0..1));
    assert_eq!(stamp(&first).ticks_millis, 7_000);
    let mut second = Bench::new(Settings::alone("m"));
    second.slots = first.slots.clone();
    // Its boot clock has another origin, and its wall clock is slow.
    second.now.boot = Instant::from_millis(77);
    second.now.wall_millis = 5;
    second.run(Event::Started);
    second.pass(40);
    second.run(propose(0..1));
    assert_eq!(stamp(&second).ticks_millis, 7_040);
    assert_eq!(stamp(&second).wall_millis, stamp(&first).wall_millis);
}
