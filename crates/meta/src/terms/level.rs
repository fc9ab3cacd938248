//! The feature levels that this build knows. It must not know what a feature does.

use super::refusal::Refusal;

/// The level at which every journal begins, for ever: what a journal says before its first
/// `SetFeatureLevel` means the same to every build.
pub(crate) const GENESIS: u32 = 1;

/// The highest level that this build supports.
pub const FEATURE_LEVEL: u32 = 1;

/// Refuses a process that does not support the cluster's level.
pub(crate) fn check_supports(level: u32, supported: u32) -> Result<(), Refusal> {
    if supported < level {
        Err(Refusal::LevelUnsupported { level })
    } else {
        Ok(())
    }
}
