//! Testing the tester: a run without one of the safety rules must not pass.
//!
//! Beside each mutation stands a seed that catches it. Another version of a core draws other numbers; the test then looks
//! for another seed among the first ones, and fails only if there is none.

use sim::mutation::Mutation;
use sim::scheduler::Trace;
use sim::world::{Outcome, Settings, run};

/// Seeds looked at where the one given does not catch the mutation any more.
const SEEDS: u64 = 120;

fn outcome(seed: u64, mutation: Option<Mutation>) -> Outcome {
    run(Settings { seed, mutation }, Trace::hashed())
}

/// Some seed fails with the mutation and is clean without.
fn is_caught(mutation: Mutation, seed: u64) {
    let caught = std::iter::once(seed)
        .chain(0..SEEDS)
        .find(|&seed| !outcome(seed, Some(mutation)).is_clean() && outcome(seed, None).is_clean());
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
    };
}

caught! {
    ack_before_commit: AckBeforeCommit at 0;
    commit_before_upload: CommitBeforeUpload at 0;
    readers_guess: ReadersGuess at 0;
    overwrite_files: OverwriteFiles at 0;
    commit_not_idempotent: CommitNotIdempotent at 0;
    dedup_outside_the_log: DedupOutsideTheLog at 0;
    commits_in_any_order: CommitsInAnyOrder at 0;
    agent_deletes_failed_upload: AgentDeletesFailedUpload at 0;
    collect_without_grace: CollectWithoutGrace at 13;
    collect_by_age: CollectByAge at 0;
    error_means_absent: ErrorMeansAbsent at 0;
    ignore_checksums: IgnoreChecksums at 4;
    offset_zero_for_unknown: OffsetZeroForUnknown at 0;
    out_of_range_from_stale: OutOfRangeFromStale at 247;
    bounds_from_stale: BoundsFromStale at 5;
    group_offsets_from_stale: GroupOffsetsFromStale at 131;
    apply_at_local_time: ApplyAtLocalTime at 0;
    snapshot_mislabelled: SnapshotMislabelled at 0;
    missing_at_start_ends: MissingAtStartEnds at 9;
    unknown_is_definite: UnknownIsDefinite at 0;
}
