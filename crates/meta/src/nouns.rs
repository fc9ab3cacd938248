//! The things that a state consists of, each with its own rules: a noun changes only itself. They
//! must not know the state, nor how they are encoded.

pub mod behind;
pub(crate) mod block;
pub mod clock;
pub(crate) mod doubt;
pub mod file;
pub mod group;
pub(crate) mod kept;
pub(crate) mod level;
pub mod member;
pub mod offset;
pub(crate) mod ordered;
pub mod partition;
pub(crate) mod placement;
pub(crate) mod producer;
pub mod short;
pub(crate) mod slice;
pub(crate) mod slices;
pub(crate) mod spread;
pub(crate) mod table;
pub(crate) mod tombstones;
pub mod topic;
pub(crate) mod varint;
pub(crate) mod view;
