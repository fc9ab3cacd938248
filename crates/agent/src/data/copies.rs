//! The copies of files beyond those that their commits needed: told once they are there, made where they lack, and looked into where
//! something speaks against them. A cluster in one bucket has none. This floor must not know what is in a file.

pub(crate) mod compare;
pub(crate) mod examine;
pub mod repair;
pub mod report;
pub(crate) mod run;
pub(crate) mod turn;
pub(crate) mod watch;
