//! What simulated processes log, in a file: each line with the true time of the run and the number of the machine, so that it can be
//! read beside the trace. It must not change what they do.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// What is left out: the libraries' own words.
const FILTER: &str = "debug,h2=off,hyper=off,hyper_util=off,tonic=off,tower=off";

struct TrueTimeAndPlace;

impl FormatTime for TrueTimeAndPlace {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        match host::seeded::time_and_place() {
            Some((micros, place)) => write!(writer, "{micros} {}", place.0),
            None => write!(writer, "-"),
        }
    }
}

/// From now on everything that is logged goes to the file.
pub fn to(path: &Path) -> std::io::Result<()> {
    let file = File::create(path)?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(FILTER))
        .with_ansi(false)
        .with_timer(TrueTimeAndPlace)
        .with_writer(Mutex::new(file))
        .init();
    Ok(())
}
