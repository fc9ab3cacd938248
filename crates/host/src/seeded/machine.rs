//! What a simulated machine has of its own: clocks that may be off and drift, entropy, and whether its
//! process is paused. It must not know what runs on it.

use crate::rng::Rng;

/// Wall time at the start of every run, in milliseconds since 1970.
const WALL_START_MILLIS: u64 = 1_800_000_000_000;
/// Parts of a whole, for drift.
const MILLION: i128 = 1_000_000;

/// How far a machine's clocks are off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// What the boot clock shows at the start of the run, in microseconds.
    pub boot_start_us: u64,
    /// By how many millionths the machine's second is shorter than a true one; its clocks are fast.
    pub drift_ppm: i32,
    pub wall_offset_millis: i64,
}

impl Clocks {
    /// What has passed by this clock of a true duration.
    fn passed_us(self, true_us: u64) -> u64 {
        let passed = i128::from(true_us) * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    pub(super) fn boot_us(self, now_us: u64) -> u64 {
        self.boot_start_us.saturating_add(self.passed_us(now_us))
    }

    pub(super) fn wall_millis(self, now_us: u64) -> u64 {
        let passed = WALL_START_MILLIS + self.passed_us(now_us) / 1_000;
        passed.saturating_add_signed(self.wall_offset_millis)
    }

    /// The true duration after which so much has passed by this clock.
    pub(super) fn true_us(self, local_us: u64) -> u64 {
        let speed = MILLION + i128::from(self.drift_ppm);
        let passed = (i128::from(local_us) * MILLION + speed - 1) / speed;
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

pub(super) struct Machine {
    pub(super) clocks: Clocks,
    pub(super) entropy: Rng,
    pub(super) paused: bool,
    /// Its tasks are being dropped: what they do now reaches nobody.
    pub(super) dying: Option<Death>,
    /// Tasks that were woken while the process was paused.
    pub(super) parked: Vec<u64>,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The kernel resets its connections.
    Killed,
    /// Nobody is told.
    Silent,
}

impl Machine {
    pub(super) fn new(entropy: Rng) -> Self {
        Machine {
            clocks: Clocks::default(),
            entropy,
            paused: false,
            dying: None,
            parked: Vec::new(),
        }
    }
}
