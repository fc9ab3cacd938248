//! Work in the background, that no client waits for.

pub mod collect;
