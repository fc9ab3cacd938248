//! The safety rules by name, each as the mutation that removes it: what a run of the simulator with it must catch.
//!
//! In the town production's own processes leave the rule out ([`host::trial`]). The journal's rules are removed inside its
//! node ([`journal::rule::Rule`]), in the world.

use journal::rule::Rule;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// An agent answers as soon as the file is durable (rule 1).
    AckBeforeCommit,
    /// An agent commits before the file is durable (rule 1).
    CommitBeforeUpload,
    /// A reader takes what the file holds of a partition, whatever the commit named (rule 2).
    ReadersGuess,
    /// A file's name lacks what makes it unique, and a PUT overwrites (rule 3).
    OverwriteFiles,
    /// A repeated commit takes the next number instead of its own (rule 4).
    CommitNotIdempotent,
    /// The leader deduplicates in memory, not in the entry of the batch (rule 5).
    DedupOutsideTheLog,
    /// Commits apply at whatever number comes next, so in any order.
    CommitsInAnyOrder,
    /// The data path deletes the upload whose commit failed (rule 13).
    AgentDeletesFailedUpload,
    /// The collector deletes what is tombstoned without the grace (rule 14).
    CollectWithoutGrace,
    /// The collector deletes never-committed files by their age alone (rule 15).
    CollectByAge,
    /// A read error counts as absence (rule 16).
    ErrorMeansAbsent,
    /// A reader does not compare checksums (rule 19).
    IgnoreChecksums,
    /// An unknown offset is answered as 0 (rule 20).
    OffsetZeroForUnknown,
    /// OFFSET_OUT_OF_RANGE is answered from what is applied here (rule 21).
    OutOfRangeFromStale,
    /// End offsets are answered from what is applied here (rule 21).
    BoundsFromStale,
    /// Group offsets are answered from what is applied here (rule 21).
    GroupOffsetsFromStale,
    /// Commands are applied at the node's own time (rule 22).
    ApplyAtLocalTime,
    /// A snapshot says another position than it was cut at (rule 23).
    SnapshotMislabelled,
    /// An ambiguous failure is told as a definite one (rule 25).
    UnknownIsDefinite,
    /// A node that follows answers what must be current from what is applied there (rule 21).
    FollowersConfirm,
    /// An agent takes notices that do not join what it knows for all there is (rule 21).
    TheTailJoins,
    /// The leader fences agents that call it.
    FenceOnlyTheSilent,
    /// Nobody looks into it when the leader's machine refuses connections.
    RefusalsAreLookedInto,
    /// A caller waits for the node that it asked, however long that is silent.
    SilenceAsksAll,
    /// Control nodes pass no call on to the leader.
    CallsAreRelayed,
    /// A leader that no agent reaches keeps the lead.
    UnreachedLeadersStandAside,
    /// Control nodes do not compare their wall clocks.
    ClocksAreCompared,
    /// An agent goes on with the notices of a node that has not seen the end of the journal for long.
    OldNoticesAreLeft,
    /// A node acts upon calls for clients however long they were under way.
    LateCallsAreRefused,
    /// A rule of the journal.
    Journal(Rule),
}

/// All mutations of this file, by name.
const NAMED: [(&str, Mutation); 29] = [
    ("ack-before-commit", Mutation::AckBeforeCommit),
    ("commit-before-upload", Mutation::CommitBeforeUpload),
    ("readers-guess", Mutation::ReadersGuess),
    ("overwrite-files", Mutation::OverwriteFiles),
    ("commit-not-idempotent", Mutation::CommitNotIdempotent),
    ("dedup-outside-the-log", Mutation::DedupOutsideTheLog),
    ("commits-in-any-order", Mutation::CommitsInAnyOrder),
    (
        "agent-deletes-failed-upload",
        Mutation::AgentDeletesFailedUpload,
    ),
    ("collect-without-grace", Mutation::CollectWithoutGrace),
    ("collect-by-age", Mutation::CollectByAge),
    ("error-means-absent", Mutation::ErrorMeansAbsent),
    ("ignore-checksums", Mutation::IgnoreChecksums),
    ("offset-zero-for-unknown", Mutation::OffsetZeroForUnknown),
    ("out-of-range-from-stale", Mutation::OutOfRangeFromStale),
    ("bounds-from-stale", Mutation::BoundsFromStale),
    ("group-offsets-from-stale", Mutation::GroupOffsetsFromStale),
    ("apply-at-local-time", Mutation::ApplyAtLocalTime),
    ("snapshot-mislabelled", Mutation::SnapshotMislabelled),
    ("unknown-is-definite", Mutation::UnknownIsDefinite),
    ("followers-confirm", Mutation::FollowersConfirm),
    ("the-tail-joins", Mutation::TheTailJoins),
    ("fence-only-the-silent", Mutation::FenceOnlyTheSilent),
    ("refusals-are-looked-into", Mutation::RefusalsAreLookedInto),
    ("silence-asks-all", Mutation::SilenceAsksAll),
    ("calls-are-relayed", Mutation::CallsAreRelayed),
    (
        "unreached-leaders-stand-aside",
        Mutation::UnreachedLeadersStandAside,
    ),
    ("clocks-are-compared", Mutation::ClocksAreCompared),
    ("old-notices-are-left", Mutation::OldNoticesAreLeft),
    ("late-calls-are-refused", Mutation::LateCallsAreRefused),
];

impl Mutation {
    /// All of them, those of the journal included.
    pub fn all() -> Vec<Mutation> {
        let journal = Rule::ALL.into_iter().map(Mutation::Journal);
        NAMED
            .iter()
            .map(|(_, mutation)| *mutation)
            .chain(journal)
            .collect()
    }

    /// The name under which production leaves the rule out in the town ([`host::trial`]).
    pub fn left_out(self) -> Option<&'static str> {
        let named = NAMED.iter().find(|(_, mutation)| *mutation == self);
        named.map(|(name, _)| *name)
    }

    /// The name, as `--mutation` takes it.
    pub fn name(self) -> String {
        if let Mutation::Journal(rule) = self {
            return format!("journal-{}", kebab(&format!("{rule:?}")));
        }
        let named = NAMED.iter().find(|(_, mutation)| *mutation == self);
        named.map_or_else(String::new, |(name, _)| (*name).to_owned())
    }

    /// The mutation of a name.
    pub fn named(name: &str) -> Option<Mutation> {
        Mutation::all()
            .into_iter()
            .find(|mutation| mutation.name() == name)
    }
}

fn kebab(camel: &str) -> String {
    let mut out = String::new();
    for (at, letter) in camel.chars().enumerate() {
        if letter.is_uppercase() && at > 0 {
            out.push('-');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Mutation;

    #[test]
    fn every_mutation_has_a_name_of_its_own() {
        let all = Mutation::all();
        for mutation in &all {
            assert_eq!(Mutation::named(&mutation.name()), Some(*mutation));
        }
        let mut names: Vec<String> = all.iter().map(|mutation| mutation.name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(Mutation::named("journal-settle-by-reading").is_some());
    }
}
