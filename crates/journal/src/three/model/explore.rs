//! Every schedule of small worlds: whatever can happen next does, in every order, until no state is new or the bound is
//! reached. Floors and looks are answered at once, since nothing is trimmed here. It must not know how steps are taken.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::world::process::Role;
use super::world::{How, World};
use crate::three::BUCKETS;
use crate::three::call::{Call, Request};
use crate::three::context::{Event, Settings};
use crate::three::judge::{Verdict, judge};
use crate::three::rule::{Mutation, Rules};
use crate::three::view::View;

/// How large a world is.
struct Bounds {
    processes: usize,
    window: u64,
    slots: u64,
    takes: u32,
    /// Puts whose answer gets lost and that land later, or never.
    lost: u32,
    /// See [`Settings`].
    links_at_once: u32,
    states: usize,
}

/// What a search came to.
struct Found {
    states: usize,
    is_all: bool,
    flaw: Option<String>,
}

fn explore(bounds: &Bounds, mutation: Option<Mutation>) -> Found {
    let settings = Settings {
        window: bounds.window,
        seal_first: bounds.window,
        links_at_once: bounds.links_at_once,
    };
    let first = World::new(
        bounds.processes,
        settings,
        Rules::broken_by([mutation, None]),
    );
    let mut seen = HashSet::from([digest(&first)]);
    let mut open = VecDeque::from([(first, 0)]);
    while let Some((world, lost)) = open.pop_front() {
        for (next, lost) in steps(&world, lost, bounds) {
            let world = match next {
                Ok(world) => world,
                Err(flaw) => {
                    return Found {
                        states: seen.len(),
                        is_all: false,
                        flaw: Some(flaw),
                    };
                }
            };
            if seen.insert(digest(&world)) {
                open.push_back((world, lost));
            }
        }
        if seen.len() >= bounds.states {
            break;
        }
    }
    Found {
        states: seen.len(),
        is_all: open.is_empty(),
        flaw: None,
    }
}

fn digest(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

type Next = (Result<World, String>, u32);

/// All that can happen next.
fn steps(world: &World, lost: u32, bounds: &Bounds) -> Vec<Next> {
    let mut found = Vec::new();
    let mut step = |lost: u32, act: &dyn Fn(&mut World) -> Result<(), String>| {
        let mut next = world.clone();
        let told = act(&mut next).and_then(|()| calm(&mut next));
        found.push((told.map(|()| next), lost));
    };
    for (number, process) in world.processes.iter().enumerate() {
        for (at, request) in process.requests.iter().enumerate() {
            step(lost, &|world| world.answer(number, at, How::Now));
            if matches!(request.call, Call::Put { .. }) && lost < bounds.lost {
                step(lost + 1, &|world| world.answer(number, at, How::Lost));
            }
        }
        let is_within = process.next <= bounds.slots;
        let is_idle = matches!(process.role, Role::Idle | Role::Leading { .. });
        if is_within && is_idle && world.takes < bounds.takes {
            step(lost, &|world| world.take(number));
        }
        if let Role::Leading { next, .. } = &process.role
            && *next <= bounds.slots
            && world.may_command(number)
        {
            step(lost, &|world| world.command(number));
        }
        if process.role == Role::Idle {
            for asked in readers() {
                if proves(world, process.next, asked).is_some() {
                    step(lost, &|world| {
                        learn(world, number, asked);
                        Ok(())
                    });
                }
            }
        }
    }
    for (number, bucket) in world.buckets.iter().enumerate() {
        for at in 0..bucket.late.len() {
            step(lost, &|world| world.land(number, at));
        }
    }
    found
}

/// Answers what cannot matter here, and puts what is under way into one order.
fn calm(world: &mut World) -> Result<(), String> {
    for process in 0..world.processes.len() {
        let is_calm =
            |request: &Request| matches!(request.call, Call::Floor { .. } | Call::Look { .. });
        while let Some(at) = world.processes[process].requests.iter().position(is_calm) {
            world.answer(process, at, How::Now)?;
        }
        world.processes[process].requests.sort_by_key(|request| {
            let place = match &request.call {
                Call::Put { slot, link, .. } => (0, *slot, *link),
                Call::Get { slot, link, .. } => (1, *slot, *link),
                _ => (2, 0, 0),
            };
            (request.owner, request.bucket, place)
        });
    }
    Ok(())
}

/// One or two buckets.
fn readers() -> impl Iterator<Item = [bool; BUCKETS]> {
    let one = |bucket: usize| std::array::from_fn(|other| other == bucket);
    let two = |bucket: usize| std::array::from_fn(|other| other != bucket);
    (0..BUCKETS).map(one).chain((0..BUCKETS).map(two))
}

/// What a reader of these buckets learns of a slot.
fn proves(
    world: &World,
    slot: u64,
    asked: [bool; BUCKETS],
) -> Option<crate::three::ballot::Ballot> {
    let chain = |bucket: usize, slot: u64| match asked[bucket] {
        true => world.buckets[bucket].chain(slot),
        false => Vec::new(),
    };
    let views: [View; BUCKETS] = std::array::from_fn(|bucket| View {
        chain: chain(bucket, slot),
        is_whole: asked[bucket],
        ..View::default()
    });
    let last = slot + 2 * world.settings.window;
    let later = std::array::from_fn(|bucket| {
        (slot + 1..=last)
            .flat_map(|slot| chain(bucket, slot))
            .collect()
    });
    match judge(slot, &views, &later, world.rules) {
        Verdict::Chosen(ballot, ..) => Some(ballot),
        Verdict::Free | Verdict::Undecided => None,
    }
}

fn learn(world: &mut World, process: usize, asked: [bool; BUCKETS]) {
    let slot = world.processes[process].next;
    if let Some(ballot) = proves(world, slot, asked) {
        world.processes[process].next += 1;
        world.processes[process].feed(Event::Learned { slot, ballot });
    }
}

/// The number of states to visit; `THREE_STATES` asks for more.
fn states() -> usize {
    let asked = std::env::var("THREE_STATES").ok();
    asked.map_or(12_000, |text| {
        text.parse().expect("THREE_STATES is a number")
    })
}

fn small() -> [Bounds; 5] {
    let bounds = |processes, window, slots, takes, lost| Bounds {
        processes,
        window,
        slots,
        takes,
        lost,
        links_at_once: 1,
        states: states(),
    };
    [
        bounds(2, 1, 1, 2, 0),
        bounds(2, 1, 2, 2, 1),
        bounds(2, 2, 3, 2, 1),
        bounds(3, 1, 3, 3, 1),
        Bounds {
            links_at_once: 2,
            ..bounds(2, 1, 2, 2, 0)
        },
    ]
}

#[test]
fn no_schedule_of_a_small_world_breaks_anything() {
    for bounds in small() {
        let found = explore(&bounds, None);
        let Bounds {
            processes,
            window,
            slots,
            takes,
            lost,
            ..
        } = bounds;
        let extent = if found.is_all { "all" } else { "bounded" };
        println!(
            "{processes} processes, {slots} slots, W = {window}, {takes} ballots, {lost} lost: {} states, {extent}",
            found.states
        );
        assert_eq!(found.flaw, None);
    }
}

/// Mutations that so small a search already misses.
#[test]
fn a_search_of_all_schedules_misses_what_is_soonest_missed() {
    for mutation in [Mutation::AckQuorum1, Mutation::ReaderOneBucket] {
        let found = small()
            .iter()
            .find_map(|bounds| explore(bounds, Some(mutation)).flaw);
        assert!(found.is_some(), "{mutation:?}");
    }
}
