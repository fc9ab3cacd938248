//! Rules of answers by name, so that a simulation can remove one and show that it is missed
//! (docs/safety.md). In a product's build all of them hold. It must not know where they are obeyed.

/// A rule without which clients are told what is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The bounds of partitions are current (21).
    BoundsAreCurrent,
    /// A read at a position is answered once that is applied (21).
    ReadsReachTheirPosition,
    /// The offsets of groups are current, and told by the leader alone (21).
    GroupOffsetsAreCurrent,
}

/// The rules in force.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    #[cfg(any(test, feature = "mutations"))]
    removed: Option<Rule>,
}

impl Rules {
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
    pub(crate) const fn hold(self, _: Rule) -> bool {
        true
    }
}
