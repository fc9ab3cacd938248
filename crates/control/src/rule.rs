//! Rules of answers by name, so that a simulation can remove one and show that it is missed
//! (docs/safety.md). In a product's build all of them hold. It must not know where they are obeyed.

/// A rule without which clients are told what is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The bounds of partitions are current (21).
    BoundsAreCurrent,
    /// A fetch is told that its offset is out of range by what is current: a barrier passes with an entry, and a read
    /// at its position is answered once that is applied (21).
    OutOfRangeIsCurrent,
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
    /// Those of a process: all, but for the one that the simulated town leaves out in which it runs.
    pub(crate) fn in_force() -> Self {
        #[cfg(any(test, feature = "mutations"))]
        for (name, rule) in [
            ("bounds-from-stale", Rule::BoundsAreCurrent),
            ("out-of-range-from-stale", Rule::OutOfRangeIsCurrent),
        ] {
            if host::trial::leaves_out(name) {
                return Rules::without(rule);
            }
        }
        Rules::default()
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
    pub(crate) const fn hold(self, _: Rule) -> bool {
        true
    }
}
