//! The engine on real etcd servers. Runs only where `SEAWAY_ETCD` names their binary; `./test` installs it.

mod engine;
mod outage;
mod server;
mod strangers;
