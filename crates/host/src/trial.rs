//! What a simulated town asks of production code: to leave out a safety rule, so that the town shows that
//! it misses it, and to be told what only a simulator compares. Built without the feature `simulated`, as
//! the released binary is, nothing is left out and nothing is told. It must not know any rule.

/// True if the run that this thread simulates leaves out `rule`.
#[inline]
pub fn leaves_out(rule: &str) -> bool {
    #[cfg(feature = "simulated")]
    return crate::seeded::leaves_out(rule);
    #[cfg(not(feature = "simulated"))]
    {
        let _ = rule;
        false
    }
}

/// Tells the simulator a fact about number `number` of something.
#[inline]
pub fn tell(what: &'static str, number: u64, fact: impl FnOnce() -> Vec<u8>) {
    #[cfg(feature = "simulated")]
    crate::seeded::tell(what, number, fact);
    #[cfg(not(feature = "simulated"))]
    let _ = (what, number, fact);
}
