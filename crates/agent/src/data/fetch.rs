//! Fetch: from offsets to records. `poll` decides, with `items`, `item` and `plan`, all pure; `run`
//! performs its effects. `hub` wakes fetches when commits come, `read` reads the bytes of slices.
//! It must not know Kafka's messages.

pub mod hub;
mod indexes;
pub mod item;
pub mod items;
pub mod plan;
pub mod poll;
pub mod read;
pub mod records;
pub mod run;
