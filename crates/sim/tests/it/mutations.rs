//! Testing the tester: production's processes leave out a safety rule, and a run of the town must not pass.
//!
//! Beside each mutation stand seeds, of which one must catch it and be clean without it. Another version of the program
//! draws other numbers: if none of them catches it any more, the test fails at once and says how to look for others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sim::mutation::Mutation;
use sim::scheduler::Trace;
use sim::town::run;
use sim::world::Settings;

/// Whether seeds are clean as long as all rules hold: most mutations are caught by one of a few.
static CLEAN: Mutex<BTreeMap<u64, bool>> = Mutex::new(BTreeMap::new());

fn is_clean(seed: u64, mutation: Option<Mutation>) -> bool {
    run(Settings { seed, mutation }, Trace::hashed()).is_clean()
}

fn is_clean_without(seed: u64) -> bool {
    let known = || CLEAN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known().get(&seed).copied();
    found.unwrap_or_else(|| {
        let clean = is_clean(seed, None);
        known().insert(seed, clean);
        clean
    })
}

fn is_caught(mutation: Mutation, seeds: &[u64]) {
    let mut seeds = seeds.iter();
    let caught = seeds.any(|seed| !is_clean(*seed, Some(mutation)) && is_clean_without(*seed));
    let name = mutation.name();
    assert!(
        caught,
        "none of its seeds catches {name} any more: put here what this finds, if that seed is clean without it:\n\
         cargo run --release -p sim -- --town --seeds 0..1000 --mutation {name}"
    );
}

macro_rules! caught {
    ($($name:ident: $mutation:ident at $seeds:expr;)*) => {
        $(
            #[test]
            fn $name() {
                is_caught(Mutation::$mutation, &$seeds);
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
    ack_before_commit: AckBeforeCommit at [0, 1];
    commit_before_upload: CommitBeforeUpload at [0, 1];
    readers_guess: ReadersGuess at [3, 6];
    overwrite_files: OverwriteFiles at [0, 1];
    commit_not_idempotent: CommitNotIdempotent at [4, 36];
    dedup_outside_the_log: DedupOutsideTheLog at [3, 6];
    collect_without_grace: CollectWithoutGrace at [0, 2];
    collect_by_age: CollectByAge at [3, 7];
    error_means_absent: ErrorMeansAbsent at [3, 6];
    ignore_checksums: IgnoreChecksums at [3, 6];
    offset_zero_for_unknown: OffsetZeroForUnknown at [6, 9];
    out_of_range_from_stale: OutOfRangeFromStale at [3, 5];
    bounds_from_stale: BoundsFromStale at [122, 212];
    apply_at_local_time: ApplyAtLocalTime at [0, 1];
    snapshot_mislabelled: SnapshotMislabelled at [5, 10];
    group_offsets_from_stale: GroupOffsetsFromStale at [22, 65];
    agent_deletes_failed_upload: AgentDeletesFailedUpload at [25, 34];
    commits_in_any_order: CommitsInAnyOrder at [93, 122];
    unknown_is_definite: UnknownIsDefinite at [10, 15];
}
