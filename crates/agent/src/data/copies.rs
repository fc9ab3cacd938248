//! The copies of files beyond those that their commits needed: told once they are there, and made where they lack. A cluster in one
//! bucket has none. This floor must not know what is in a file.

pub mod repair;
pub mod report;
pub(crate) mod run;
pub(crate) mod turn;
