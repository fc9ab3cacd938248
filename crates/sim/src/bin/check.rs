//! `check FILE...`: judges client histories. Must not know how they came about.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use sim::checker::{self, Checker, Report};
use sim::history::read::{Error, Reader};
use sim::history::{Header, Line};

/// Judges client histories (docs/formats/history.md). Exit code 0: clean; 1: anomalies; 2: unreadable.
#[derive(Parser)]
struct Arguments {
    /// Histories.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Merge the files by time into one history first.
    #[arg(long)]
    merge: bool,
    /// Print the reports as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let batches: Vec<&[PathBuf]> = if arguments.merge {
        vec![&arguments.files]
    } else {
        arguments.files.chunks(1).collect()
    };
    let mut worst = 0;
    for files in batches {
        let name: Vec<String> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let name = name.join(" + ");
        let judged = if let [file] = files {
            judge(file)
        } else {
            judge_merged(files)
        };
        match judged {
            Ok(report) => {
                print_report(&name, &report, arguments.json);
                worst = worst.max(u8::from(!report.is_clean()));
            }
            Err(error) => {
                eprintln!("{name}: {error}");
                worst = 2;
            }
        }
    }
    ExitCode::from(worst)
}

fn print_report(name: &str, report: &Report, json: bool) {
    if json {
        println!(
            "{}",
            serde_json::json!({ "history": name, "clean": report.is_clean(), "report": report })
        );
    } else {
        println!("{name}: {report}");
    }
}

fn judge(path: &Path) -> Result<Report, Error> {
    let mut reader = Reader::open(BufReader::new(File::open(path)?))?;
    let mut checker = Checker::new(reader.header().clone());
    while let Some(line) = reader.next_line()? {
        let index = line.index;
        checker.observe(line).map_err(|what| refused(index, what))?;
    }
    Ok(checker.finish())
}

fn judge_merged(paths: &[PathBuf]) -> Result<Report, Error> {
    let mut header: Option<Header> = None;
    let mut lines: Vec<Line> = Vec::new();
    for path in paths {
        let mut reader = Reader::open(BufReader::new(File::open(path)?))?;
        let faults = reader.header().faults;
        header.get_or_insert_with(|| reader.header().clone()).faults |= faults;
        while let Some(line) = reader.next_line()? {
            lines.push(line);
        }
    }
    // Stable, so that lines of one file keep their order; then numbered afresh.
    lines.sort_by_key(|line| line.time_us);
    for (index, line) in lines.iter_mut().enumerate() {
        line.index = index as u64;
    }
    checker::check_lines(header.unwrap_or_default(), lines).map_err(|what| refused(0, what))
}

fn refused(index: u64, what: String) -> Error {
    Error::Malformed {
        line: index as usize,
        what: format!("(by index) {what}"),
    }
}
