//! The core of the engine over three buckets under every schedule of a small world, under random schedules of a larger one, and
//! through schedules that no search finds. Every put may land at any later time, every answer may get lost, processes may stop
//! at any step. It must not know the shell.

mod directed;
mod explore;
mod random;
mod world;
