//! Random clients, failures and changes of leaders: once they behave, the group is stable again
//! within bounded time, whatever was before.

use std::time::Duration;

use bytes::Bytes;
use host::clock::Instant;
use meta::group::{Leaving, Phase, Refusal, Sync};
use rpc::group::{GroupError, GroupReply, GroupRequest, Heartbeat};

use super::rig::{Rig, new, settings};
use crate::coordinator::{Event, Settings, Ticket};

const STEP: Duration = Duration::from_millis(200);
const CLIENTS: u32 = 6;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// What a client is doing.
enum Doing {
    /// Nothing before this time; then it joins.
    Rests(Instant),
    Joins(Ticket, Instant),
    Syncs(Ticket, Instant),
    Beats(Ticket, Instant),
    /// It is a member; its next heartbeat is due at this time.
    Works(Instant),
}

/// A client as well-behaved as real ones, until it dies.
struct Client {
    number: u32,
    instance: Option<String>,
    id_required: bool,
    member: String,
    generation: i32,
    doing: Doing,
    joins: u32,
}

impl Client {
    fn step(&mut self, rig: &mut Rig) {
        let now = rig.now;
        match self.doing {
            Doing::Rests(until) if until <= now => self.join(rig),
            Doing::Works(due) if due <= now => {
                let ticket = rig.ask(GroupRequest::Heartbeat(Heartbeat {
                    group: "g".to_owned(),
                    generation: self.generation,
                    member: self.member.clone(),
                    instance: self.instance.clone(),
                }));
                self.doing = Doing::Beats(ticket, now);
            }
            Doing::Joins(ticket, since)
            | Doing::Syncs(ticket, since)
            | Doing::Beats(ticket, since) => match rig.answers.remove(&ticket) {
                Some(reply) => self.take(reply, rig),
                // It gives up on a request at some time, as clients do.
                None if now.since(since) > Duration::from_secs(15) => self.rejoin(now),
                None => {}
            },
            Doing::Rests(_) | Doing::Works(_) => {}
        }
    }

    fn join(&mut self, rig: &mut Rig) {
        self.joins += 1;
        let mut join = new(&format!("{}-{}", self.number, self.joins));
        join.id_required = self.id_required;
        join.join.member = self.member.clone();
        join.join.instance = self.instance.clone();
        join.join.session_timeout_millis = 6_000;
        join.join.rebalance_timeout_millis = 10_000;
        let ticket = rig.join(join);
        self.doing = Doing::Joins(ticket, rig.now);
    }

    fn rejoin(&mut self, now: Instant) {
        self.doing = Doing::Rests(now + STEP);
    }

    fn take(&mut self, reply: GroupReply, rig: &mut Rig) {
        let now = rig.now;
        let error = match reply {
            GroupReply::Join(Ok(told)) => {
                self.member = told.member;
                let joined = told.joined;
                self.generation = joined.generation;
                let assignments = joined
                    .members
                    .into_iter()
                    .filter(|_| !joined.skip_assignment)
                    .map(|member| (member.member, Bytes::from_static(b"work")));
                let sync = Sync {
                    generation: self.generation,
                    member: self.member.clone(),
                    instance: self.instance.clone(),
                    protocol_type: Some(joined.protocol_type),
                    protocol: Some(joined.protocol),
                    assignments: assignments.collect(),
                };
                let group = "g".to_owned();
                let ticket = rig.ask(GroupRequest::Sync { group, sync });
                self.doing = Doing::Syncs(ticket, now);
                return;
            }
            GroupReply::Join(Err(refused)) => {
                if refused.error == GroupError::MemberIdRequired {
                    self.member = refused.member;
                }
                refused.error
            }
            GroupReply::Sync(Err(error)) | GroupReply::Heartbeat(Err(error)) => error,
            GroupReply::Sync(Ok(_)) | GroupReply::Heartbeat(Ok(())) => {
                self.doing = Doing::Works(now + Duration::from_secs(1));
                return;
            }
            other => panic!("not an answer to a member: {other:?}"),
        };
        match error {
            GroupError::Refused(Refusal::UnknownMemberId | Refusal::FencedInstanceId) => {
                self.member.clear();
            }
            GroupError::NotCoordinator
            | GroupError::CoordinatorNotAvailable
            | GroupError::MemberIdRequired
            | GroupError::Refused(Refusal::RebalanceInProgress | Refusal::IllegalGeneration) => {}
            other => panic!("no client of this test deserves {other:?}"),
        }
        self.rejoin(now);
    }

    /// The process is gone, and another starts later.
    fn die(&mut self, rest: Duration, now: Instant) {
        self.member.clear();
        self.doing = Doing::Rests(now + rest);
    }

    fn leave(&mut self, rig: &mut Rig) {
        let member = Leaving {
            member: self.member.clone(),
            instance: self.instance.clone(),
        };
        rig.ask(GroupRequest::Leave {
            group: "g".to_owned(),
            members: vec![member],
        });
        self.die(STEP, rig.now);
    }
}

fn small_settings() -> Settings {
    Settings {
        initial_rebalance_delay: Duration::from_secs(1),
        ..settings()
    }
}

/// Decides some of what waits, for good or ill.
fn decide_some(rig: &mut Rig, dice: &mut Dice) {
    for _ in 0..dice.roll(4) {
        let Some((proposal, command)) = rig.journal.pop_front() else {
            break;
        };
        match dice.roll(12) {
            0 => rig.handle(Event::Failed {
                proposal,
                ambiguous: false,
            }),
            1 => rig.handle(Event::Failed {
                proposal,
                ambiguous: true,
            }),
            2 => {
                rig.apply(None, &command);
                rig.handle(Event::Failed {
                    proposal,
                    ambiguous: true,
                });
            }
            _ => rig.apply(Some(proposal), &command),
        }
    }
    if dice.one_in(2)
        && let Some(ticket) = rig.barriers.pop_front()
    {
        let passed = !dice.one_in(4);
        rig.handle(Event::Barrier { ticket, passed });
    }
}

fn disturb(rig: &mut Rig, clients: &mut [Client], dice: &mut Dice) {
    rig.current = !dice.one_in(10);
    if dice.one_in(150) {
        // What the old leader had in flight may be the last that it wrote.
        if dice.one_in(2)
            && let Some((_, command)) = rig.journal.pop_front()
        {
            rig.apply(None, &command);
        }
        rig.fail_over(small_settings());
    }
    if dice.one_in(200) {
        rig.now = rig.now + Duration::from_secs(dice.roll(20));
    }
    if dice.one_in(100) {
        rig.handle(Event::Timer);
    }
    for client in clients {
        match dice.roll(400) {
            0 => client.die(STEP * 2, rig.now),
            1 => client.die(Duration::from_secs(20), rig.now),
            2 => client.leave(rig),
            3 => client.rejoin(rig.now),
            _ => {}
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let mut rig = Rig::with(small_settings());
    let start = rig.now;
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|number| Client {
            number,
            instance: dice.one_in(3).then(|| format!("instance-{number}")),
            id_required: !dice.one_in(3),
            member: String::new(),
            generation: -1,
            doing: Doing::Rests(start),
            joins: 0,
        })
        .collect();
    rig.held = true;
    for _ in 0..800 {
        disturb(&mut rig, &mut clients, &mut dice);
        decide_some(&mut rig, &mut dice);
        for client in &mut clients {
            client.step(&mut rig);
        }
        rig.pass(STEP);
    }

    rig.held = false;
    rig.current = true;
    rig.decide_all();
    let calm = |rig: &mut Rig, clients: &mut [Client], time: u64| {
        for _ in 0..time * 5 {
            for client in &mut *clients {
                client.step(rig);
            }
            rig.pass(STEP);
        }
    };
    calm(&mut rig, &mut clients, 90);
    assert_eq!(rig.phase(), Phase::Stable, "seed {seed}");
    let generation = rig.group().generation();
    assert_eq!(
        rig.group().members().len(),
        clients.len(),
        "seed {seed}: only who lives"
    );
    for client in &clients {
        assert!(
            rig.group().member(&client.member).is_some(),
            "seed {seed}: who lives is there"
        );
        assert_eq!(client.generation, generation, "seed {seed}");
    }
    assert_eq!(rig.coordinator.waiting(), 0, "seed {seed}");
    calm(&mut rig, &mut clients, 60);
    assert_eq!(
        rig.group().generation(),
        generation,
        "seed {seed}: and stays so"
    );
    calm(&mut rig, &mut [], 30);
    assert_eq!(rig.phase(), Phase::Empty, "seed {seed}");
}

#[test]
fn whatever_happened_a_group_recovers() {
    for seed in 0..60 {
        run(seed);
    }
}
