//! Every rule of the journal is missed by some schedule, or by a unit test, once it is removed.

use super::oracle::Oracle;
use super::{simulate, simulate_telling, simulate_with};
use crate::rule::Rule;

/// Rules that no schedule misses: unit tests remove them (node::tests, node::tests::quarantine, node::retention). The first since
/// the appends of a tenure end with the tenure, the two after it since they take a sleep between two requests, the last since no history
/// shows it.
const UNIT: [Rule; 4] = [
    Rule::LeadFromFirstAttempt,
    Rule::QuarantineBeforeSnapshots,
    Rule::RemoveAfterAppend,
    Rule::UnstoredIsTold,
];

/// A seed whose schedule misses the rule.
const MISSED_BY: [(Rule, u64); 15] = [
    (Rule::ClaimNamesLastClaim, 0),
    (Rule::ClaimNamesLastEntry, 2),
    (Rule::CommandsNameLastClaim, 2),
    (Rule::CommandsNameLastEntry, 0),
    (Rule::ClaimantReadsFloor, 10),
    (Rule::ReaderReadsFloor, 60),
    (Rule::TrimSparesClaims, 1),
    (Rule::SettleByReading, 0),
    (Rule::OneTenureOneClaim, 0),
    (Rule::OccupiedMayBeOurs, 59),
    (Rule::KnownInOrder, 0),
    (Rule::BarrierBeforeAppend, 187),
    (Rule::HorizonIsReached, 62),
    (Rule::StampsGrow, 0),
    (Rule::StartsAreRepeated, 1),
];

/// The same for schedules with entries that some builds cannot apply.
const MISSED_WITH_POISON_BY: [(Rule, u64); 4] = [
    (Rule::QuarantineRebuilds, 14),
    (Rule::SnapshotsKnowQuarantines, 164),
    (Rule::QuarantineBeforeOthersLead, 125),
    (Rule::QuarantineBeforeLiveReplicas, 1),
];

/// Removes each of these rules, which its seed must notice, and nothing else be wrong with.
fn each_is_missed(
    table: &[(Rule, u64)],
    simulate: impl Fn(u64, Option<Rule>) -> Result<Oracle, String>,
) {
    std::panic::set_hook(Box::new(|_| {}));
    let fails = |rule, seed| simulate(seed, rule).is_err();
    let tells = |rule, seed| fails(Some(rule), seed) && !fails(None, seed);
    let stale = table.iter().filter(|(rule, seed)| !tells(*rule, *seed));
    let better: Vec<(Rule, Option<u64>)> = stale
        .map(|(rule, _)| (*rule, (0..1_000).find(|seed| tells(*rule, *seed))))
        .collect();
    drop(std::panic::take_hook());
    assert!(
        better.is_empty(),
        "the seeds of these rules tell nothing any more; those found here do: {better:?}"
    );
}

#[test]
fn every_removed_rule_is_missed() {
    each_is_missed(&MISSED_BY, simulate);
}

#[test]
fn every_removed_rule_of_quarantines_is_missed() {
    each_is_missed(&MISSED_WITH_POISON_BY, |seed, rule| {
        simulate_with(seed, rule, true)
    });
}

#[test]
fn every_rule_has_a_seed_or_a_unit_test() {
    let seeds = MISSED_BY
        .iter()
        .chain(&MISSED_WITH_POISON_BY)
        .chain(&MISSED_WHEN_TOLD_BY);
    let mut known: Vec<Rule> = seeds.map(|(rule, _)| *rule).chain(UNIT).collect();
    known.sort();
    let mut all = Rule::ALL.to_vec();
    all.sort();
    assert_eq!(known, all);
}

/// Seeds that notice if others are told of what does not count.
const MISSED_WHEN_TOLD_BY: [(Rule, u64); 1] = [(Rule::OnlyWhatCountsIsTold, 0)];

#[test]
fn every_removed_rule_of_telling_is_missed() {
    each_is_missed(&MISSED_WHEN_TOLD_BY, simulate_telling);
}
