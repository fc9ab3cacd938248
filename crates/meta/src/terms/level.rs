//! The feature levels that this build knows. It must not know what a feature does.

use super::refusal::Refusal;

/// The level of a new cluster, and the highest this build supports.
pub const FEATURE_LEVEL: u32 = 1;

/// Refuses a process that does not support the cluster's level.
pub(crate) fn check_supports(level: u32, supported: u32) -> Result<(), Refusal> {
    if supported < level {
        Err(Refusal::LevelUnsupported { level })
    } else {
        Ok(())
    }
}
