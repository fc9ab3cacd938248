//! `sim`: runs seeds of the simulated world and says what went wrong, with all that is needed to run it again.
//!
//! Must not judge: the world and the checker do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use sim::history::write::{write_header, write_line};
use sim::mutation::Mutation;
use sim::scheduler::Trace;
use sim::world::{Outcome, Settings};

/// Runs the simulated world. Exit code 0: every seed was clean; 1: one was not, or a mutation was not caught.
#[derive(Parser)]
struct Arguments {
    /// One seed.
    #[arg(long, conflicts_with_all = ["seeds", "hours"])]
    seed: Option<u64>,
    /// Seeds from A up to, and without, B.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<(u64, u64)>,
    /// Seeds one after another for so long, from a random one unless --seeds says where to begin.
    #[arg(long)]
    hours: Option<f64>,
    /// Remove this safety rule: a clean run is a failure then. `list` names all.
    #[arg(long)]
    mutation: Option<String>,
    /// Write the trace of the run here.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Write what the simulated processes log here: lines with true microseconds and the number of the machine.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Write the clients' history of the run here.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Run the town, production's own processes, instead of the world of cores.
    #[arg(long)]
    town: bool,
    /// In the town, each process has an agent and a control node, as `seaway dev` starts it.
    #[arg(long, requires = "town")]
    together: bool,
    /// Go on after a seed that failed.
    #[arg(long)]
    keep_going: bool,
    /// Run each seed twice and compare the traces.
    #[arg(long)]
    twice: bool,
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text
        .split_once("..")
        .ok_or("A..B is wanted, for example 0..1000")?;
    let number = |part: &str| part.parse().map_err(|error| format!("{part:?}: {error}"));
    Ok((number(from)?, number(to)?))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.mutation.as_deref() == Some("list") {
        for mutation in Mutation::all() {
            println!("{}", mutation.name());
        }
        return ExitCode::SUCCESS;
    }
    let mutation = match arguments
        .mutation
        .as_deref()
        .map(|name| (name, Mutation::named(name)))
    {
        None => None,
        Some((_, Some(mutation))) => Some(mutation),
        Some((name, None)) => {
            eprintln!("there is no mutation {name:?}; --mutation list names all");
            return ExitCode::from(2);
        }
    };
    if let Some(mutation) = mutation
        && arguments.town != mutation.left_out().is_some()
    {
        let where_else = if arguments.town { "without" } else { "with" };
        eprintln!("{} is left out {where_else} --town", mutation.name());
        return ExitCode::from(2);
    }
    let log = arguments.log.as_deref().map_or(Ok(()), sim::log::to);
    match log.and_then(|()| run_all(&arguments, mutation)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// How long clients waited for service, by what became of the leader.
type Waits = BTreeMap<&'static str, Vec<Duration>>;

/// Runs the seeds asked for; true if all were as they should be.
fn run_all(arguments: &Arguments, mutation: Option<Mutation>) -> std::io::Result<bool> {
    let until = arguments
        .hours
        .map(|hours| host::clock::now() + Duration::from_secs_f64(hours * 3600.0));
    let (from, to) = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => (seed, seed + 1),
        (None, Some(range)) => range,
        (None, None) => {
            let from = host::rng::nonce() as u64 >> 16;
            (from, if until.is_some() { u64::MAX } else { from + 1 })
        }
    };
    let (mut good, mut runs, mut caught) = (true, 0_u64, 0_u64);
    let mut waits = Waits::new();
    for seed in from..to {
        if until.is_some_and(|until| host::clock::now() >= until) {
            break;
        }
        // A core that stops at a broken invariant is a failure with a seed like any other.
        let attempt = AssertUnwindSafe(|| run_one(arguments, Settings { seed, mutation }));
        let Ok(outcome) = catch_unwind(attempt) else {
            println!(
                "FAILED {}: it panicked, see above",
                command(arguments, seed)
            );
            (runs, caught, good) = (runs + 1, caught + 1, mutation.is_some());
            if arguments.keep_going {
                continue;
            }
            break;
        };
        let outcome = outcome?;
        runs += 1;
        caught += u64::from(!outcome.is_clean());
        for (end, waited) in &outcome.waits {
            waits.entry(end).or_default().push(*waited);
        }
        if outcome.is_clean() {
            continue;
        }
        println!("{}", describe(arguments, seed, &outcome));
        if mutation.is_none() {
            good = false;
            if !arguments.keep_going {
                break;
            }
        } else if !arguments.keep_going {
            break;
        }
    }
    if mutation.is_some() {
        good = caught > 0;
    }
    for (end, mut waited) in waits {
        waited.sort_unstable();
        let (median, longest) = (waited[waited.len() / 2], waited[waited.len() - 1]);
        println!(
            "leader {end}: {} times, service again after {} ms in the median, {} ms at most",
            waited.len(),
            median.as_millis(),
            longest.as_millis()
        );
    }
    println!("{runs} runs, {caught} not clean");
    Ok(good)
}

/// The trace of a run, kept to be written or compared.
#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Kept {
    /// Says where the trace of another run of the same seed leaves this one, with the line before.
    fn differs_from(&self, other: &Kept) -> String {
        let (one, other) = (self.0.borrow(), other.0.borrow());
        let (one, other) = (
            String::from_utf8_lossy(&one),
            String::from_utf8_lossy(&other),
        );
        let (one, other): (Vec<&str>, Vec<&str>) = (one.lines().collect(), other.lines().collect());
        let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        let line = |lines: &[&str], at: usize| lines.get(at).unwrap_or(&"(its end)").to_string();
        format!(
            "the same seed gave two traces: after {:?}, line {}, one goes on with {:?} and the other with {:?}",
            line(&one, same.saturating_sub(1)),
            same,
            line(&one, same),
            line(&other, same),
        )
    }
}

fn run_one(arguments: &Arguments, settings: Settings) -> std::io::Result<Outcome> {
    let run = match (arguments.town, arguments.together) {
        (true, true) => sim::town::run_together,
        (true, false) => sim::town::run,
        (false, _) => sim::world::run,
    };
    let first = Kept::default();
    let trace = match (&arguments.trace, arguments.twice) {
        (Some(_), _) | (_, true) => Trace::written(Box::new(first.clone())),
        (None, false) => Trace::hashed(),
    };
    let mut outcome = run(settings, trace);
    if arguments.twice {
        let second = Kept::default();
        let again = run(settings, Trace::written(Box::new(second.clone())));
        if again.trace != outcome.trace {
            outcome.violations.push(first.differs_from(&second));
        }
    }
    if let Some(path) = &arguments.trace {
        std::fs::write(path, &*first.0.borrow())?;
    }
    if let Some(path) = &arguments.history {
        let mut out = BufWriter::new(File::create(path)?);
        write_header(&mut out, &outcome.header)?;
        for line in &outcome.lines {
            write_line(&mut out, line)?;
        }
        out.flush()?;
    }
    if arguments.seed.is_some() {
        println!(
            "seed {}: {} journal entries, trace {} lines {:016x}, faults {:?}\n{}",
            settings.seed,
            outcome.entries,
            outcome.trace.0,
            outcome.trace.1,
            outcome.injected,
            outcome.report
        );
    }
    Ok(outcome)
}

/// What runs the seed again.
fn command(arguments: &Arguments, seed: u64) -> String {
    let town = match (arguments.town, arguments.together) {
        (true, true) => " --town --together",
        (true, false) => " --town",
        (false, _) => "",
    };
    let mutation = arguments.mutation.as_ref();
    let mutation = mutation.map_or_else(String::new, |name| format!(" --mutation {name}"));
    let version = env!("CARGO_PKG_VERSION");
    format!("cargo run --release -p sim --{town} --seed {seed}{mutation} (version {version})")
}

/// One line with everything needed to run it again, then what was wrong.
fn describe(arguments: &Arguments, seed: u64, outcome: &Outcome) -> String {
    let mut wrong: Vec<String> = outcome.violations.iter().take(5).cloned().collect();
    wrong.extend(outcome.report.names().iter().map(|name| (*name).to_owned()));
    let (command, wrong) = (command(arguments, seed), wrong.join("; "));
    format!("FAILED {command}, trace {:016x}: {wrong}", outcome.trace.1)
}
