//! Testing the tester in the town: production's processes leave out a safety rule, and a run must not pass.
//!
//! Beside each mutation stands a seed that catches it. Another version draws other numbers; the test then looks for
//! another seed among the first ones, and fails only if there is none.

use sim::mutation::Mutation;
use sim::scheduler::Trace;
use sim::town::run;
use sim::world::Settings;

/// Seeds looked at where the one given does not catch the mutation any more.
const SEEDS: u64 = 150;

fn is_clean(seed: u64, mutation: Option<Mutation>) -> bool {
    run(Settings { seed, mutation }, Trace::hashed()).is_clean()
}

/// Some seed fails with the mutation and is clean without.
fn is_caught(mutation: Mutation, seed: u64) {
    assert!(Mutation::IN_TOWN.contains(&mutation));
    let mut seeds = std::iter::once(seed).chain(0..SEEDS);
    let caught = seeds.find(|&seed| !is_clean(seed, Some(mutation)) && is_clean(seed, None));
    assert!(caught.is_some(), "no seed catches {}", mutation.name());
}

macro_rules! caught {
    ($($name:ident: $mutation:ident at $seed:literal;)*) => {
        $(
            #[test]
            fn $name() {
                is_caught(Mutation::$mutation, $seed);
            }
        )*

        #[test]
        fn every_mutation_of_the_town_has_its_seed() {
            assert_eq!([$(Mutation::$mutation),*], Mutation::IN_TOWN);
        }
    };
}

caught! {
    ack_before_commit: AckBeforeCommit at 0;
    out_of_range_from_stale: OutOfRangeFromStale at 4;
    bounds_from_stale: BoundsFromStale at 18;
    apply_at_local_time: ApplyAtLocalTime at 0;
}
