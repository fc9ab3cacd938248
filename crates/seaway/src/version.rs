//! The version of this build, as it is shown and told to others.

/// Builds that rehearse an upgrade say that they do: they know what no release knows.
pub const VERSION: &str = match cfg!(feature = "rehearsal") {
    true => concat!(env!("CARGO_PKG_VERSION"), "+rehearsal"),
    false => env!("CARGO_PKG_VERSION"),
};
