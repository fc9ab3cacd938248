//! Structured logs on standard error.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::settings::Settings;

/// The filter of `log.level`. A word that is no level would be taken for a part of which everything
/// is logged, and of all others nothing.
fn filter(level: &str) -> Result<EnvFilter> {
    for word in level.split(',').filter(|word| !word.contains(['=', '['])) {
        word.trim().parse::<LevelFilter>()?;
    }
    Ok(EnvFilter::try_new(level)?)
}

/// Starts logging as `log.level` and `log.format` say.
pub fn start(settings: &Settings) -> Result<()> {
    let level = settings.text("log.level");
    let filter = filter(level).with_context(|| {
        format!("log.level={level}: write error, warn, info, debug, trace, or PART=LEVEL,...")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if settings.text("log.format") == "json" {
        builder.json().init();
    } else {
        builder.init();
    }
    // Panics go through the log too, so that whoever reads it alone sees why a process ended.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!(panic = %info, "a bug: the process ends");
        print(info);
    }));
    Ok(())
}
