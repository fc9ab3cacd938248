//! Whole runs of the town at fixed seeds: clean, and the same twice. Seeds that once failed are kept here.

use sim::scheduler::Trace;
use sim::town::{run, run_together};
use sim::world::{Outcome, Settings};

/// How a seed is run.
type Run = fn(Settings, Trace) -> Outcome;

/// Both shapes of the town.
const SHAPES: [Run; 2] = [run, run_together];

fn outcome(run: Run, seed: u64) -> Outcome {
    let mutation = None;
    run(Settings { seed, mutation }, Trace::hashed())
}

#[test]
fn fixed_seeds_are_clean_and_do_something() {
    let (mut failures, mut acknowledged, mut injected) = (Vec::new(), 0, 0);
    for (seed, run) in (0..4).flat_map(|seed| SHAPES.map(|run| (seed, run))) {
        let outcome = outcome(run, seed);
        acknowledged += outcome.report.counts.acknowledged;
        injected += outcome.injected.values().sum::<u64>();
        if !outcome.is_clean() {
            let (first, names) = (outcome.violations.first(), outcome.report.names());
            failures.push(format!("seed {seed}: {first:?} {names:?}"));
        }
    }
    assert_eq!(failures, Vec::<String>::new());
    assert!(acknowledged > 500, "{acknowledged} were acknowledged");
    assert!(injected > 100, "{injected} faults were injected");
}

#[test]
fn a_seed_gives_one_trace_byte_for_byte() {
    for (seed, run) in [3, 9].into_iter().zip(SHAPES) {
        let (first, second) = (outcome(run, seed), outcome(run, seed));
        assert_eq!(first.trace, second.trace);
        assert_eq!(first.lines, second.lines);
    }
}
