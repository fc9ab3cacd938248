//! The rules of the journal over three buckets by what removes them, so that tests can remove one and show that it is
//! missed. Outside tests all of them hold, and nothing can change that.

/// A way to break one rule (docs/three-buckets.md has them by number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Mutation {
    /// Choosing: one accept is taken for two.
    AckQuorum1,
    /// Choosing: accepts of two ballots with equal values add up.
    ReaderMixBallots,
    /// R1: an accept is put above a promise or accept of a higher ballot.
    AcceptOverHigher,
    /// R1: promises that this process has read before are passed over, whatever their ballot.
    PassOverHigher,
    /// R2: a ballot need only be higher than one's own last one.
    NoBallotRule,
    /// R2: of the ballots under which known slots were chosen, that of the last slot counts.
    BallotOfLastSlot,
    /// R2: a mark carries no ballot.
    RestartNoBallot,
    /// R2: a mark carries the ballot of its slot only.
    RestartLastSlot,
    /// A process takes again with the ballot that it had.
    BallotReuse,
    /// R3: one promise is taken for two.
    PromiseQuorum1,
    /// R3: a chain that was read to its end counts as if a promise ended it.
    ReadOnlyPrepare,
    /// R3: only slots up to the claim's are sealed.
    SealOnlyFirst,
    /// R3: the run ends at the first slot that two promises found empty.
    EQuorum,
    /// R3: a learned record of a higher ballot is passed over.
    LearnedBelowIsNoReason,
    /// R3: a record may be put behind a link that was not read.
    AheadUncounted,
    /// R4: the value of the lowest ballot is proposed.
    RecoverLowest,
    /// R4: a filler is proposed whatever was seen.
    RecoverNothing,
    /// R4: the run ends at the first slot in which nothing was seen.
    HoleStop,
    /// R4, R6: a run is taken for settled, and the claim is sent, before two buckets have accepted it.
    ClaimUnwindowed,
    /// R5: a settled run counts without a look at the floor.
    NoTakeoverFloor,
    /// R5, R6: the floor of one bucket is taken for that of two.
    FloorReadOne,
    /// R6: a claim counts once it is chosen.
    NoClaimFloor,
    /// R6: commands are sent to slots that are not sealed before the claim counts.
    CmdBeforeConfirm,
    /// R7: slots are proposed however far ahead.
    NoWindow,
    /// R7: the window moves with what was read, not only with what this tenure has counted.
    WindowByChain,
    /// R8: the window moves with slots that are chosen out of order.
    CountOutOfOrder,
    /// R9: `known` counts what was sent.
    KnownIsSent,
    /// R9: `known` is not capped until the settled run and the claim count.
    KnownUnsettled,
    /// R10: one accept proves a slot to a reader.
    ReaderOneBucket,
    /// R11: a later accept proves a slot whatever its ballot.
    KnownAnyBallot,
    /// R14: one bucket's floor is raised before slots are deleted.
    FloorInOne,
    /// R14: slots are deleted before a floor is raised.
    DeleteBeforeFloor,
    /// Section 7: a bucket that lacks what it acknowledged is refused without a look at the floor.
    LostNoFloor,
    /// R17: slots are filled before the settled run is known not to be trimmed.
    FillBeforeR5,
    /// R17: what a single accept holds is written as learned.
    FillUnproven,
    /// R17: a learned record does not count for the next ballot.
    LearnedNoBallot,
    /// R17: the slots below a new tenure are not written as learned.
    NoLearnedTail,
}

#[cfg(test)]
impl Mutation {
    pub(crate) const ALL: [Mutation; 37] = [
        Mutation::AckQuorum1,
        Mutation::ReaderMixBallots,
        Mutation::AcceptOverHigher,
        Mutation::PassOverHigher,
        Mutation::NoBallotRule,
        Mutation::BallotOfLastSlot,
        Mutation::RestartNoBallot,
        Mutation::RestartLastSlot,
        Mutation::BallotReuse,
        Mutation::PromiseQuorum1,
        Mutation::ReadOnlyPrepare,
        Mutation::SealOnlyFirst,
        Mutation::EQuorum,
        Mutation::LearnedBelowIsNoReason,
        Mutation::AheadUncounted,
        Mutation::RecoverLowest,
        Mutation::RecoverNothing,
        Mutation::HoleStop,
        Mutation::ClaimUnwindowed,
        Mutation::NoTakeoverFloor,
        Mutation::FloorReadOne,
        Mutation::NoClaimFloor,
        Mutation::CmdBeforeConfirm,
        Mutation::NoWindow,
        Mutation::WindowByChain,
        Mutation::CountOutOfOrder,
        Mutation::KnownIsSent,
        Mutation::KnownUnsettled,
        Mutation::ReaderOneBucket,
        Mutation::KnownAnyBallot,
        Mutation::FloorInOne,
        Mutation::DeleteBeforeFloor,
        Mutation::LostNoFloor,
        Mutation::FillBeforeR5,
        Mutation::FillUnproven,
        Mutation::LearnedNoBallot,
        Mutation::NoLearnedTail,
    ];
}

/// The rules in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    /// Two, since some rules do harm only together with another one.
    #[cfg(test)]
    broken: [Option<Mutation>; 2],
}

impl Rules {
    pub(crate) const fn all() -> Self {
        Rules {
            #[cfg(test)]
            broken: [None; 2],
        }
    }

    #[cfg(test)]
    pub(crate) const fn broken_by(broken: [Option<Mutation>; 2]) -> Self {
        Rules { broken }
    }

    /// Whether this mutation is at work.
    #[cfg(test)]
    pub(crate) fn broken(self, by: Mutation) -> bool {
        self.broken.contains(&Some(by))
    }

    /// Whether this mutation is at work: never.
    #[cfg(not(test))]
    pub(crate) fn broken(self, _: Mutation) -> bool {
        false
    }
}
