//! The safety rules of the journal by name, so that a simulation can remove one and show that it
//! is missed. Outside tests all of them hold, and nothing can change that.

/// A rule without which acknowledged entries get lost, histories part, or a journal grows without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A claim counts only if it names the last valid claim.
    ClaimNamesLastClaim,
    /// A claim counts only if it names the last valid entry.
    ClaimNamesLastEntry,
    /// Commands count only under the last valid claim.
    CommandsNameLastClaim,
    /// Commands count only after the last valid entry.
    CommandsNameLastEntry,
    /// One's own claim counts once the floor, read after it, lies below it.
    ClaimantReadsFloor,
    /// Another's claim, or a void entry, counts as what it is once the floor, read after it, lies
    /// below it.
    ReaderReadsFloor,
    /// Claims and void entries are never trimmed.
    TrimSparesClaims,
    /// An append of unknown outcome is repeated with the same bytes only, and given up only once a
    /// take has settled its slot.
    SettleByReading,
    /// What comes after a tenure is over comes after a claim of its own.
    OneTenureOneClaim,
    /// A slot that a take found occupied may hold one's own entry.
    OccupiedMayBeOurs,
    /// One's own entry counts once it and every slot before it are known to be appended.
    KnownInOrder,
    /// A leader answers from memory by the start of its append's first attempt.
    LeadFromFirstAttempt,
    /// A barrier passes with an entry whose append began after the barrier arrived.
    BarrierBeforeAppend,
    /// A follower confirms by a slot found free only once it has read every slot before that.
    HorizonIsReached,
    /// Others are told of an entry once it counts.
    OnlyWhatCountsIsTold,
    StampsGrow,
    /// What cannot be read at a start is asked for again, and ends nothing.
    StartsAreRepeated,
    /// Who has applied an entry that is quarantined later gives that state up.
    QuarantineRebuilds,
    /// A snapshot at or above an entry that is quarantined is loaded only if it was cut with the quarantine.
    SnapshotsKnowQuarantines,
    /// An entry is quarantined only while nobody is known to have led beyond it.
    QuarantineBeforeOthersLead,
    /// An entry is quarantined only while no snapshot holds it.
    QuarantineBeforeSnapshots,
    /// An entry is quarantined only while no node that is there has applied it, unless an operator forces it.
    QuarantineBeforeLiveReplicas,
    /// What a snapshot makes dispensable is removed only by who has appended since the snapshot was there.
    RemoveAfterAppend,
    /// A leader that stores no snapshots is said to, so that it hands the lead over.
    UnstoredIsTold,
}

impl Rule {
    pub const ALL: [Rule; 24] = [
        Rule::ClaimNamesLastClaim,
        Rule::ClaimNamesLastEntry,
        Rule::CommandsNameLastClaim,
        Rule::CommandsNameLastEntry,
        Rule::ClaimantReadsFloor,
        Rule::ReaderReadsFloor,
        Rule::TrimSparesClaims,
        Rule::SettleByReading,
        Rule::OneTenureOneClaim,
        Rule::OccupiedMayBeOurs,
        Rule::KnownInOrder,
        Rule::LeadFromFirstAttempt,
        Rule::BarrierBeforeAppend,
        Rule::HorizonIsReached,
        Rule::OnlyWhatCountsIsTold,
        Rule::StampsGrow,
        Rule::StartsAreRepeated,
        Rule::QuarantineRebuilds,
        Rule::SnapshotsKnowQuarantines,
        Rule::QuarantineBeforeOthersLead,
        Rule::QuarantineBeforeSnapshots,
        Rule::QuarantineBeforeLiveReplicas,
        Rule::RemoveAfterAppend,
        Rule::UnstoredIsTold,
    ];
}

/// The rules in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    #[cfg(any(test, feature = "mutations"))]
    removed: Option<Rule>,
}

impl Rules {
    pub(crate) const fn all() -> Self {
        Rules {
            #[cfg(any(test, feature = "mutations"))]
            removed: None,
        }
    }

    #[cfg(any(test, feature = "mutations"))]
    pub(crate) const fn without(rule: Rule) -> Self {
        Rules {
            removed: Some(rule),
        }
    }

    /// Whether `rule` is in force.
    #[cfg(any(test, feature = "mutations"))]
    pub(crate) fn hold(self, rule: Rule) -> bool {
        self.removed != Some(rule)
    }

    /// Whether `rule` is in force.
    #[cfg(not(any(test, feature = "mutations")))]
    pub(crate) fn hold(self, _: Rule) -> bool {
        true
    }
}
