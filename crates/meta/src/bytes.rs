//! The state and its commands as bytes, for journal entries and snapshots, and the digest. It must
//! not decide anything about a state.

mod digest;
pub mod encoding;
pub mod group;
mod group_snapshot;
#[allow(
    unreachable_pub,
    clippy::all,
    reason = "generated: documented in proto/, and public whether anyone is outside or not"
)]
pub(crate) mod proto;
pub mod snapshot;
