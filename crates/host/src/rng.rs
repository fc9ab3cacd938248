//! Randomness: entropy from the OS for nonces, and a small seeded generator for jitter and for
//! the simulator. It must not know what the numbers are used for.

pub(crate) mod generator;

pub use generator::Rng;

/// 128 bits of OS entropy.
///
/// # Panics
/// If the OS has no entropy source: nothing that needs unique names can run then.
pub fn nonce() -> u128 {
    #[cfg(feature = "simulated")]
    if let Some(nonce) = crate::seeded::nonce() {
        return nonce;
    }
    let mut bytes = [0; 16];
    assert!(
        getrandom::fill(&mut bytes).is_ok(),
        "the operating system gives no entropy"
    );
    u128::from_le_bytes(bytes)
}

impl Rng {
    /// A generator seeded from OS entropy.
    pub fn from_entropy() -> Self {
        let [low, high] = [nonce() as u64, (nonce() >> 64) as u64];
        Rng::seeded(low ^ high.rotate_left(32))
    }
}
