//! Standard output of commands. It must not know what is printed.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use anyhow::Result;

/// The reader of standard output went away, as `head` does: the command ends quietly.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub struct Closed;

/// Prints a line as `println!` does, but returns an error where that would panic.
macro_rules! say {
    ($($what:tt)*) => {
        $crate::output::line(format_args!($($what)*))?
    };
}
pub(crate) use say;

pub fn line(text: fmt::Arguments<'_>) -> Result<()> {
    written(writeln!(io::stdout(), "{text}"))
}

/// The outcome of a write to standard output.
pub fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        result => Ok(result?),
    }
}
