//! Schedules that random search does not find, step by step: each does no harm while all rules hold, and does with the one
//! removed that it is named after. It must not know how steps are taken.

use std::sync::Arc;

use super::world::process::Role;
use super::world::{Entry, How, World};
use crate::engine::Content;
use crate::three::call::{Call, Request};
use crate::three::context::{Event, Settings};
use crate::three::judge::{Verdict, judge};
use crate::three::record::{Kind, Record};
use crate::three::rule::{Mutation, Rules};
use crate::three::view::View;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

type Told = Result<(), String>;

/// The schedule harms with these mutations, and not without.
fn tells(schedule: fn(&mut World) -> Told, mutations: [Option<Mutation>; 2]) {
    let told = schedule(&mut world(Rules::broken_by(mutations)));
    assert!(told.is_err(), "{mutations:?} does no harm");
    let told = schedule(&mut world(Rules::all()));
    assert_eq!(told, Ok(()), "with all rules");
}

fn world(rules: Rules) -> World {
    let settings = Settings {
        window: 2,
        seal_first: 2,
        links_at_once: 1,
    };
    World::new(3, settings, rules)
}

fn slot_of(request: &Request) -> Option<u64> {
    match &request.call {
        Call::Put { slot, .. } | Call::Get { slot, .. } => Some(*slot),
        _ => None,
    }
}

/// Answers the requests of a process to these buckets about these slots, and all that follow from the answers. Requests
/// that are about no slot are answered by these buckets, too.
fn go(
    world: &mut World,
    process: usize,
    buckets: &[usize],
    slots: std::ops::RangeInclusive<u64>,
) -> Told {
    let fits = |request: &Request| {
        let is_wanted = slot_of(request).is_none_or(|slot| slots.contains(&slot));
        buckets.contains(&request.bucket) && is_wanted
    };
    while let Some(at) = world.processes[process].requests.iter().position(fits) {
        world.answer(process, at, How::Now)?;
    }
    Ok(())
}

const ALL: std::ops::RangeInclusive<u64> = 0..=u64::MAX;

/// Process 0 leads under the first ballot, its claim is in slot 1 of all buckets, and the others have read it.
fn led(world: &mut World) -> Told {
    world.take(0)?;
    go(world, 0, &[A, B, C], ALL)?;
    for process in [1, 2] {
        read(world, process, 1, [A, B, C])?;
    }
    Ok(())
}

/// Reads one slot; an answer of each bucket is there to be had.
fn read(world: &mut World, process: usize, slot: u64, order: [usize; 3]) -> Told {
    assert_eq!(world.processes[process].next, slot);
    world.scan(process, 1, order);
    go(world, process, &[A, B, C], ALL)?;
    assert_eq!(
        world.processes[process].next,
        slot + 1,
        "slot {slot} is read"
    );
    Ok(())
}

fn commands(world: &mut World, process: usize, count: usize) -> Told {
    (0..count).try_for_each(|_| world.command(process))
}

fn tenure(world: &World, process: usize) -> u64 {
    match &world.processes[process].role {
        Role::Leading { claim, .. } => claim.tenure,
        role => panic!("process {process} does not lead: {role:?}"),
    }
}

/// Appends whatever the process's role.
fn append(world: &mut World, process: usize, tenure: u64, index: u64) -> Told {
    let bytes = Entry::Command(9, index as u32).bytes();
    world.processes[process].feed(Event::Append {
        ask: u64::MAX >> 1,
        tenure,
        index,
        bytes,
    });
    world.processes[process].told.clear();
    world.settle(process)
}

#[test]
fn a_ballot_above_that_of_the_last_slot_is_not_enough() {
    fn schedule(world: &mut World) -> Told {
        hole_below(world)?;
        world.take(2)?;
        two_claims(world)
    }
    tells(
        schedule,
        [Some(Mutation::BallotOfLastSlot), Some(Mutation::EQuorum)],
    );
}

#[test]
fn a_mark_with_the_ballot_of_its_last_slot_is_not_enough() {
    fn schedule(world: &mut World) -> Told {
        hole_below(world)?;
        world.snapshot(2);
        let newest = *world.snapshots.last().expect("a snapshot");
        world.crash(2, newest);
        world.take(2)?;
        two_claims(world)
    }
    tells(
        schedule,
        [Some(Mutation::RestartLastSlot), Some(Mutation::EQuorum)],
    );
}

/// A hole that a higher ballot filled lies below a slot that was chosen under a lower one, and process 2 has read both.
fn hole_below(world: &mut World) -> Told {
    led(world)?;
    commands(world, 0, 2)?;
    go(world, 0, &[A, B], 3..=3)?;
    // Two takes, so that there is a ballot between the first one and this.
    world.take(1)?;
    world.take(1)?;
    promise(world, 1, &[A, C])?;
    go(world, 1, &[A, C], 2..=2)?;
    read(world, 2, 2, [A, C, B])?;
    read(world, 2, 3, [A, B, C])
}

/// Answers what a process asks of these buckets until its second phase begins.
fn promise(world: &mut World, process: usize, buckets: &[usize]) -> Told {
    let is_first_phase = |request: &Request| {
        let is_accept = match &request.call {
            Call::Put { record, .. } => record.is_accept(),
            _ => false,
        };
        buckets.contains(&request.bucket) && !is_accept
    };
    loop {
        let requests = &world.processes[process].requests;
        let begun = requests.iter().any(|request| match &request.call {
            Call::Put { record, .. } => record.is_accept(),
            _ => false,
        });
        let at = requests.iter().position(is_first_phase);
        match at {
            Some(at) if !begun => world.answer(process, at, How::Now)?,
            _ => return Ok(()),
        }
    }
}

/// Process 2 claims slot 4 if it may, then process 1 goes on.
fn two_claims(world: &mut World) -> Told {
    go(world, 2, &[A, B], ALL)?;
    go(world, 1, &[A, B, C], ALL)?;
    go(world, 2, &[A, B, C], ALL)
}

#[test]
fn sealing_up_to_the_first_empty_slot_is_not_enough() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        commands(world, 0, 1)?;
        go(world, 0, &[C], 2..=2)?;
        world.take(1)?;
        go(world, 1, &[A, B, C], 2..=2)?;
        go(world, 1, &[A, B, C], ALL)?;
        assert!(matches!(world.processes[1].role, Role::Leading { .. }));
        world.snapshot(1);
        world.trim(1, 3)?;
        go(world, 1, &[A, B, C], ALL)?;
        // The sleeper's put lands where its slot was trimmed.
        go(world, 0, &[A], 2..=2)?;
        commands(world, 0, 2)?;
        go(world, 0, &[A, B], 4..=4)?;
        commands(world, 1, 1)?;
        go(world, 1, &[A, B, C], ALL)
    }
    tells(schedule, [Some(Mutation::EQuorum), None]);
}

#[test]
fn a_learned_record_of_a_higher_ballot_ends_a_first_phase() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        commands(world, 0, 2)?;
        go(world, 0, &[C], 2..=3)?;
        world.take(1)?;
        go(world, 1, &[A], 2..=3)?;
        go(world, 1, &[C], 2..=3)?;
        go(world, 1, &[A], 4..=5)?;
        world.take(2)?;
        go(world, 2, &[A, B], ALL)?;
        commands(world, 2, 1)?;
        go(world, 2, &[A, B], 3..=3)?;
        commands(world, 2, 2)?;
        go(world, 2, &[A, B], 5..=5)?;
        let content = world.truth[&5].clone();
        let ballot = world.buckets[B].chain(5)[0].ballot;
        let kind = Kind::Learned { content };
        world.buckets[C].put(5, 0, &Arc::new(Record { ballot, kind }));
        go(world, 1, &[C], 4..=5)?;
        go(world, 1, &[A, C], 6..=7)?;
        go(world, 1, &[A, C], 4..=4)?;
        go(world, 2, &[A, B, C], 4..=4)
    }
    tells(schedule, [Some(Mutation::LearnedBelowIsNoReason), None]);
}

#[test]
fn a_mark_without_a_ballot_lets_a_restarted_process_lead_too_low() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        // A second ballot, whose window is past what it sealed.
        world.take(1)?;
        go(world, 1, &[A, B, C], ALL)?;
        for _ in 0..3 {
            commands(world, 1, 1)?;
            go(world, 1, &[A, B, C], ALL)?;
        }
        world.snapshot(1);
        let newest = *world.snapshots.last().expect("a snapshot");
        world.crash(2, newest);
        world.take(2)?;
        go(world, 2, &[A, B, C], ALL)?;
        commands(world, 1, 1)?;
        go(world, 1, &[A, B, C], ALL)
    }
    tells(schedule, [Some(Mutation::RestartNoBallot), None]);
}

#[test]
fn a_learned_record_counts_for_the_next_ballot() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        // Two takes, so that there is a ballot between the first one and this.
        world.take(1)?;
        world.take(1)?;
        go(world, 1, &[A, B], ALL)?;
        for _ in 0..3 {
            commands(world, 1, 1)?;
            go(world, 1, &[A, B], ALL)?;
        }
        // That ballot's slots come to the third bucket as learned, by somebody else.
        for slot in 2..=5 {
            read(world, 2, slot, [A, B, C])?;
        }
        let genesis = *world.snapshots.first().expect("a snapshot");
        for slot in 2..=5 {
            let content = world.truth[&slot].clone();
            let ballot = world.buckets[A]
                .chain(slot)
                .last()
                .expect("an accept")
                .ballot;
            let kind = Kind::Learned { content };
            let end = world.buckets[C].chain(slot).len() as u32;
            world.buckets[C].put(slot, end, &Arc::new(Record { ballot, kind }));
        }
        world.crash(2, genesis);
        for slot in 1..=5 {
            read(world, 2, slot, [C, A, B])?;
        }
        world.take(2)?;
        go(world, 2, &[A, B, C], ALL)?;
        commands(world, 1, 1)?;
        go(world, 1, &[A, B, C], ALL)
    }
    tells(schedule, [Some(Mutation::LearnedNoBallot), None]);
}

/// Process 0 has trimmed slots 2 and 3; its raised floor and the deletions reached these buckets. Its commands lie in all but
/// the bucket left out.
fn trimmed(world: &mut World, left_out: usize, reached: &[usize]) -> Told {
    led(world)?;
    let reaches: Vec<usize> = [A, B, C]
        .into_iter()
        .filter(|one| *one != left_out)
        .collect();
    for _ in 0..4 {
        commands(world, 0, 1)?;
        go(world, 0, &reaches, ALL)?;
    }
    world.snapshot(0);
    world.trim(0, 4)?;
    go(world, 0, reached, 0..=0)
}

/// Answers what a process asks of these buckets about slots, and nothing else.
fn records(world: &mut World, process: usize, buckets: &[usize]) -> Told {
    let fits = |request: &Request| buckets.contains(&request.bucket) && slot_of(request).is_some();
    while let Some(at) = world.processes[process].requests.iter().position(fits) {
        world.answer(process, at, How::Now)?;
    }
    Ok(())
}

/// Answers all looks at markers that a process has asked for.
fn looks(world: &mut World, process: usize) -> Told {
    let is_look = |request: &Request| matches!(request.call, Call::Look { .. });
    while let Some(at) = world.processes[process].requests.iter().position(is_look) {
        world.answer(process, at, How::Now)?;
    }
    Ok(())
}

#[test]
fn the_floor_of_one_bucket_is_not_enough() {
    fn schedule(world: &mut World) -> Told {
        trimmed(world, C, &[A, B])?;
        world.take(2)?;
        let first_phase =
            |request: &Request| !matches!(request.call, Call::Floor { .. }) && request.bucket != C;
        while let Some(at) = world.processes[2].requests.iter().position(first_phase) {
            world.answer(2, at, How::Now)?;
        }
        // The third bucket's floor was not raised; it answers first.
        go(world, 2, &[C], 0..=0)?;
        go(world, 2, &[A, B, C], ALL)?;
        commands(world, 2, 1)?;
        go(world, 2, &[A, B, C], ALL)
    }
    tells(schedule, [Some(Mutation::FloorReadOne), None]);
}

#[test]
fn a_floor_in_one_bucket_is_not_enough() {
    fn schedule(world: &mut World) -> Told {
        trimmed(world, A, &[C])?;
        // Process 2, which knows slot 1, meets the two buckets that hold nothing more.
        world.take(2)?;
        records(world, 2, &[A, C])?;
        looks(world, 2)?;
        records(world, 2, &[A, C])?;
        go(world, 2, &[A, B], 0..=0)?;
        commands(world, 2, 1)?;
        records(world, 2, &[A, C])
    }
    tells(schedule, [Some(Mutation::FloorInOne), None]);
}

#[test]
fn slots_are_not_deleted_before_the_floor_is_raised() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        for _ in 0..4 {
            commands(world, 0, 1)?;
            go(world, 0, &[A, B, C], ALL)?;
        }
        world.snapshot(0);
        world.trim(0, 4)?;
        let is_sweep = |request: &Request| matches!(request.call, Call::Sweep { .. });
        while let Some(at) = world.processes[0].requests.iter().position(is_sweep) {
            world.answer(0, at, How::Now)?;
        }
        // Process 2, which knows slot 1, takes the slots that are gone for free ones.
        world.take(2)?;
        go(world, 2, &[A, B, C], ALL)?;
        commands(world, 2, 1)?;
        go(world, 2, &[A, B, C], ALL)
    }
    tells(schedule, [Some(Mutation::DeleteBeforeFloor), None]);
}

#[test]
fn a_tenure_does_not_send_beyond_its_window() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        let first = tenure(world, 0);
        world.take(1)?;
        go(world, 1, &[A, B, C], ALL)?;
        append(world, 0, first, 4)?;
        go(world, 0, &[A, B], 4..=4)?;
        for _ in 0..2 {
            commands(world, 1, 1)?;
            go(world, 1, &[A, B, C], ALL)?;
        }
        Ok(())
    }
    tells(schedule, [Some(Mutation::NoWindow), None]);
}

#[test]
fn a_window_does_not_move_with_what_was_read() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        let first = tenure(world, 0);
        world.take(1)?;
        go(world, 1, &[A, B, C], ALL)?;
        for _ in 0..2 {
            commands(world, 1, 1)?;
            go(world, 1, &[A, B, C], ALL)?;
        }
        for slot in 2..=4 {
            read(world, 0, slot, [A, B, C])?;
        }
        append(world, 0, first, 5)?;
        go(world, 0, &[A, B], 5..=5)?;
        commands(world, 1, 1)?;
        go(world, 1, &[A, B, C], ALL)
    }
    tells(schedule, [Some(Mutation::WindowByChain), None]);
}

#[test]
fn what_a_single_accept_holds_is_not_written_as_learned() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        commands(world, 0, 1)?;
        go(world, 0, &[C], 2..=2)?;
        // Process 1 sees one accept and nothing else.
        world.scan(1, 1, [C, A, B]);
        go(world, 1, &[C], ALL)?;
        go(world, 1, &[A], ALL)?;
        go(world, 1, &[B], ALL)?;
        world.fill(1, B, 2)?;
        go(world, 1, &[B], ALL)?;
        world.processes[1].requests.clear();
        world.take(2)?;
        go(world, 2, &[A], ALL)?;
        check_readers(world, 2)
    }
    tells(schedule, [Some(Mutation::FillUnproven), None]);
}

/// What readers take a slot for must be what it holds.
fn check_readers(world: &World, slot: u64) -> Told {
    let views = world.buckets.each_ref().map(|bucket| View {
        chain: bucket.chain(slot),
        is_whole: true,
        ..View::default()
    });
    match judge(slot, &views, &Default::default(), Rules::all()) {
        Verdict::Chosen(_, content, _) if world.truth.get(&slot) != Some(&content) => {
            Err(format!("readers take slot {slot} for {content:?}"))
        }
        _ => Ok(()),
    }
}

/// The tail of a dead tenure stays provable when a bucket is lost (a matter of service, not of safety).
#[test]
fn the_slots_below_a_new_tenure_are_written_as_learned() {
    let proves = |rules: Rules| {
        let mut world = world(rules);
        let world = &mut world;
        let told = (|| {
            led(world)?;
            commands(world, 0, 1)?;
            go(world, 0, &[C], 2..=2)?;
            // A second ballot chooses the same value in the two others, and dies.
            world.take(1)?;
            promise(world, 1, &[A, B, C])?;
            go(world, 1, &[A, B], 2..=2)?;
            read(world, 2, 2, [A, B, C])?;
            world.take(2)?;
            go(world, 2, &[A, B, C], ALL)
        })();
        assert_eq!(told, Ok(()));
        let mut views = world.buckets.each_ref().map(|bucket| View {
            chain: bucket.chain(2),
            is_whole: true,
            ..View::default()
        });
        views[A] = View::default();
        let verdict = judge(2, &views, &Default::default(), Rules::all());
        matches!(verdict, Verdict::Chosen(_, Content::Entry(_), _))
    };
    assert!(proves(Rules::all()));
    let without = [Some(Mutation::NoLearnedTail), None];
    assert!(!proves(Rules::broken_by(without)));
}

/// A promise that comes after the values are fixed must not stand in for that of a bucket which turns out to have lost
/// its records: what it saw is not among the evidence.
#[test]
fn a_late_promise_is_no_substitute_for_one_that_does_not_count() {
    let mut world = world(Rules::all());
    let world = &mut world;
    let told = (|| {
        led(world)?;
        commands(world, 0, 1)?;
        go(world, 0, &[B, C], 2..=2)?;
        world.buckets[B].wipe();
        world.take(1)?;
        go(world, 1, &[C], 3..=3)?;
        go(world, 1, &[A, B], 2..=3)?;
        go(world, 1, &[C], 2..=2)?;
        go(world, 1, &[A, C], ALL)
    })();
    assert_eq!(told, Ok(()));
    // With what the late promise saw, the take goes on without the bucket.
    assert!(matches!(world.processes[1].role, Role::Leading { .. }));
    assert_eq!(world.processes[1].next, 4);
}

#[test]
fn promises_that_were_read_before_are_passed_over_only_by_a_higher_ballot() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        commands(world, 0, 1)?;
        go(world, 0, &[A, B, C], ALL)?;
        read(world, 1, 2, [A, B, C])?;
        world.take(1)?;
        promise(world, 1, &[A, B, C])?;
        // The leader reads the slot that it writes next, which it has not sealed.
        world.processes[0].feed(Event::Scan {
            ask: 77,
            from: 3,
            slots: 1,
            order: [A, B, C],
            is_wide: false,
        });
        go(world, 0, &[A, B, C], ALL)?;
        commands(world, 0, 1)?;
        go(world, 0, &[A, B, C], ALL)?;
        go(world, 1, &[A, B, C], ALL)
    }
    tells(schedule, [Some(Mutation::PassOverHigher), None]);
}

#[test]
fn a_bucket_is_not_taken_for_one_that_lost_what_was_trimmed() {
    fn schedule(world: &mut World) -> Told {
        led(world)?;
        for _ in 0..4 {
            commands(world, 0, 1)?;
            go(world, 0, &[A, B, C], ALL)?;
        }
        read(world, 1, 2, [A, B, C])?;
        let proven = world.processes[1].core.proven_at(2);
        let mut proven = proven.expect("it was read");
        proven.acknowledged = [true; 3];
        world.snapshot(0);
        world.trim(0, 4)?;
        go(world, 0, &[A, B, C], ALL)?;
        // The floor was read before it was raised.
        world.processes[1].feed(Event::Fill {
            bucket: C,
            proven,
            floor: 1,
        });
        go(world, 1, &[A, B, C], ALL)
    }
    tells(schedule, [Some(Mutation::LostNoFloor), None]);
}

/// A leader of whose records one bucket refuses some while another is away learns of that (a matter of service).
#[test]
fn a_tenure_that_one_bucket_refuses_while_another_is_away_ends_when_that_is_late() {
    let mut world = world(Rules::all());
    let world = &mut world;
    let told = (|| {
        led(world)?;
        // A taker reaches one bucket and dies.
        world.take(1)?;
        go(world, 1, &[A], ALL)?;
        commands(world, 0, 1)?;
        go(world, 0, &[A, B], 2..=2)
    })();
    assert_eq!(told, Ok(()));
    let tenure = tenure(world, 0);
    assert!(
        world.processes[0].core.is_at_work(tenure),
        "one refusal is not the end"
    );
    let ask = (1 << 32) + 2;
    world.processes[0].feed(Event::Late(ask));
    assert!(!world.processes[0].core.is_at_work(tenure));
}

/// Mutations that a schedule here misses.
pub(super) const MISSED_HERE: [Mutation; 15] = [
    Mutation::BallotOfLastSlot,
    Mutation::DeleteBeforeFloor,
    Mutation::EQuorum,
    Mutation::FillUnproven,
    Mutation::FloorInOne,
    Mutation::FloorReadOne,
    Mutation::LearnedBelowIsNoReason,
    Mutation::LearnedNoBallot,
    Mutation::LostNoFloor,
    Mutation::NoLearnedTail,
    Mutation::NoWindow,
    Mutation::PassOverHigher,
    Mutation::RestartLastSlot,
    Mutation::RestartNoBallot,
    Mutation::WindowByChain,
];
