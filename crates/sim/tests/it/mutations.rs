//! Testing the tester: production's processes leave out a safety rule, and a run of the town must not pass.
//!
//! Beside each mutation stand seeds, of which one must catch it and be clean without it. Another version of the program
//! draws other numbers: if none of them catches it any more, the test fails at once and says how to look for others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sim::mutation::Mutation;
use sim::scheduler::Trace;
use sim::town::{run, run_together};
use sim::world::Settings;

/// How the processes of a run are shaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Together,
    Apart,
}
use Shape::{Apart, Together};

/// Whether seeds are clean as long as all rules hold: most mutations are caught by one of a few.
static CLEAN: Mutex<BTreeMap<(Shape, u64), bool>> = Mutex::new(BTreeMap::new());

fn is_clean(shape: Shape, seed: u64, mutation: Option<Mutation>) -> bool {
    let run = match shape {
        Together => run_together,
        Apart => run,
    };
    run(Settings { seed, mutation }, Trace::hashed()).is_clean()
}

fn is_clean_without(shape: Shape, seed: u64) -> bool {
    let known = || CLEAN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known().get(&(shape, seed)).copied();
    found.unwrap_or_else(|| {
        let clean = is_clean(shape, seed, None);
        known().insert((shape, seed), clean);
        clean
    })
}

fn is_caught(mutation: Mutation, shape: Shape, seeds: &[u64]) {
    let mut seeds = seeds.iter();
    let caught =
        seeds.any(|seed| !is_clean(shape, *seed, Some(mutation)) && is_clean_without(shape, *seed));
    let name = mutation.name();
    let together = match shape {
        Together => " --together",
        Apart => "",
    };
    assert!(
        caught,
        "none of its seeds catches {name} any more: put here what this finds, if that seed is clean without it:\n\
         cargo run --release -p sim -- --town{together} --seeds 0..1000 --mutation {name}"
    );
}

macro_rules! caught {
    ($($name:ident: $mutation:ident $shape:ident at $seeds:expr;)*) => {
        $(
            #[test]
            fn $name() {
                is_caught(Mutation::$mutation, $shape, &$seeds);
            }
        )*

        #[test]
        fn every_mutation_has_its_seeds() {
            let mut here = vec![$(Mutation::$mutation),*];
            let mut all = Mutation::all();
            all.retain(|mutation| !matches!(mutation, Mutation::Journal(_)));
            here.sort();
            all.sort();
            assert_eq!(here, all);
        }
    };
}

caught! {
    ack_before_commit: AckBeforeCommit Together at [0, 1];
    commit_before_upload: CommitBeforeUpload Together at [1, 3];
    readers_guess: ReadersGuess Together at [3, 6];
    overwrite_files: OverwriteFiles Together at [0, 1];
    commit_not_idempotent: CommitNotIdempotent Together at [17, 9];
    dedup_outside_the_log: DedupOutsideTheLog Together at [3, 6];
    collect_without_grace: CollectWithoutGrace Together at [0, 1];
    collect_by_age: CollectByAge Together at [18, 28];
    error_means_absent: ErrorMeansAbsent Together at [3, 19];
    ignore_checksums: IgnoreChecksums Together at [3, 7];
    offset_zero_for_unknown: OffsetZeroForUnknown Together at [6, 3];
    out_of_range_from_stale: OutOfRangeFromStale Together at [3, 5];
    bounds_from_stale: BoundsFromStale Together at [31, 46];
    apply_at_local_time: ApplyAtLocalTime Together at [2, 3];
    snapshot_mislabelled: SnapshotMislabelled Together at [5, 3];
    group_offsets_from_stale: GroupOffsetsFromStale Together at [88];
    agent_deletes_failed_upload: AgentDeletesFailedUpload Together at [60, 43];
    commits_in_any_order: CommitsInAnyOrder Together at [366];
    unknown_is_definite: UnknownIsDefinite Together at [19, 20];
    followers_confirm: FollowersConfirm Apart at [20, 24];
    the_tail_joins: TheTailJoins Apart at [1, 3];
    fence_only_the_silent: FenceOnlyTheSilent Apart at [9, 19];
    refusals_are_looked_into: RefusalsAreLookedInto Apart at [6, 26];
    silence_asks_all: SilenceAsksAll Apart at [2, 13];
    calls_are_relayed: CallsAreRelayed Apart at [20, 38];
    unreached_leaders_stand_aside: UnreachedLeadersStandAside Apart at [9, 11];
    clocks_are_compared: ClocksAreCompared Apart at [6, 3];
    old_notices_are_left: OldNoticesAreLeft Apart at [5, 36];
    late_calls_are_refused: LateCallsAreRefused Apart at [26, 27];
}
