//! What files and entries of the journal may cost in a run. It must not know the worlds.

use std::time::Duration;

use host::rng::Rng;
use host::thrift::Limits;

/// The limits of a run: in one of two nothing waits. They are drawn apart from `rng`, so that a seed
/// that is kept gives the same run in all else.
pub(crate) fn draw(rng: &Rng) -> Limits {
    let mut apart = rng.clone();
    Limits {
        per_second: apart.below(2) * (1 + apart.below(40)),
        per_mib: 1,
        wait_max: Duration::from_millis(apart.below(150)),
    }
}
