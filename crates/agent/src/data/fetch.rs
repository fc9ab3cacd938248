//! Fetch: from offsets to records. `poll` decides, with `items`, `item` and `plan`, all pure; `run`
//! performs its effects. `hub` wakes fetches when commits come, and keeps `tails`, from which `finder` learns without a call where records are; `read` reads the bytes of slices
//! from the cache; what it lacks comes from a `source`, by way of `neighbours` if there are any, to whom `offer` gives in turn; `ahead` decides what `prefetch`
//! loads before it is asked for.
//! It must not know Kafka's messages.

pub(crate) mod ahead;
pub(crate) mod finder;
pub mod hub;
mod indexes;
pub mod item;
pub mod items;
pub(crate) mod neighbours;
pub(crate) mod offer;
pub mod plan;
pub mod poll;
pub(crate) mod prefetch;
pub mod read;
pub mod records;
pub mod run;
mod source;
mod tail;
pub(crate) mod tails;
