//! Structured logs on standard error.

use std::fmt::{self, Write};
use std::io::IsTerminal;

use anyhow::Result;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

use crate::settings::Settings;

/// The filter for `log.level`. A word that is no level is refused: it would be taken for the name
/// of a module, and everything else would not be logged.
fn filter(level: &str) -> Result<EnvFilter> {
    for word in level.split(',').filter(|word| !word.contains(['=', '['])) {
        word.trim().parse::<LevelFilter>()?;
    }
    Ok(EnvFilter::try_new(level)?)
}

/// Formats fields as usual, but keeps each event on one line: log readers work by lines, and text
/// from a client or a store must not pass for an event.
struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut escaping = Escaping { to: &mut writer };
        DefaultFields::new().format_fields(Writer::new(&mut escaping), fields)
    }
}

/// Escapes control characters as in a Rust literal.
struct Escaping<'a> {
    to: &'a mut dyn Write,
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, control)) = rest.char_indices().find(|(_, c)| c.is_control()) {
            self.to.write_str(&rest[..at])?;
            write!(self.to, "{}", control.escape_default())?;
            rest = &rest[at + control.len_utf8()..];
        }
        self.to.write_str(rest)
    }
}

/// Whether `log.level` may have this value; if not, what to write.
pub fn check(level: &str) -> Result<(), String> {
    filter(level).map(drop).map_err(|why| {
        format!(
            "log.level={level}: write error, warn, info, debug, trace, or PART=LEVEL,...: {why}"
        )
    })
}

/// Starts the log as the settings, which are checked, say.
pub fn start(settings: &Settings) -> Result<()> {
    let filter = filter(settings.text("log.level"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // The library reports a line that it could not write on standard error, and panics if that
        // fails too: a full disk under the log, or a reader that went away, would end the node.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    if settings.text("log.format") == "json" {
        builder.json().init();
    } else {
        builder.fmt_fields(OneLine).init();
    }
    // A panic also goes through the log, so that the log alone shows why a process ended.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!(panic = %info, "a bug: the process ends");
        print(info);
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .fmt_fields(OneLine)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let page = "403\r\n<Error>\u{1b}[1mnein \u{e4}\u{85}</Error>\n";
            let _span = tracing::info_span!("span", of = %"a\nb").entered();
            tracing::warn!(why = %page, text = page, count = 3, "it failed:\n{page}");
        });
        let written = lines.0.lock().expect("not poisoned").clone();
        let written = String::from_utf8(written).expect("text");
        assert_eq!(written.find('\n'), Some(written.len() - 1), "{written:?}");
        assert!(
            !written.trim_end().contains(char::is_control),
            "{written:?}"
        );
        for part in [
            "WARN span{of=a\\nb}",
            "why=403\\r\\n<Error>",
            "nein \u{e4}",
            " count=3",
            "it failed:\\n403",
        ] {
            assert!(written.contains(part), "{part} in {written:?}");
        }
    }
}
