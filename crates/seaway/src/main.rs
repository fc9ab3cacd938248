//! The `seaway` binary: verbs and exit codes. It must not know the journal's or the control plane's
//! protocols; of Kafka's it knows what any client knows.

mod address;
mod admission;
mod client;
mod cluster;
mod commands;
mod config;
mod data_dir;
mod fail_points;
mod family;
mod health;
mod http;
mod issuing;
mod journals;
mod leading;
mod links;
mod listeners;
mod listening;
mod logging;
mod origin;
mod output;
mod pages;
mod places;
mod roles;
mod running;
mod runtime;
mod settings;
mod spending;
mod timing;
mod tuning;
mod version;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

/// Requests and files live for some milliseconds and take tens of KiB to some MiB. glibc gives such
/// memory back to the kernel as soon as it is free, which clears and maps it again for the next
/// request; jemalloc keeps it for two seconds (`.cargo/config.toml` says how).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Kafka on object storage: one cluster, nothing to look after.
#[derive(Parser)]
#[command(name = "seaway", version = version::VERSION, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a whole cluster on this machine.
    Dev(commands::dev::Arguments),
    /// Run one of the control nodes of a cluster.
    Control(commands::control::Arguments),
    /// Run an agent of a cluster: it serves Kafka clients.
    Agent(commands::agent::Arguments),
    /// Kill and start single processes of a `dev` cluster of several, and list them.
    #[command(subcommand)]
    Node(commands::node::Verb),
    /// Show the regions of a cluster; lose one of a `dev` cluster, and have it back.
    #[command(subcommand)]
    Region(commands::region::Verb),
    /// Rehearse a disaster on a `dev` cluster under load, and report what was lost.
    #[command(subcommand)]
    Drill(commands::drill::Verb),
    /// Make the certificates by which the processes of a cluster know each other.
    #[command(subcommand)]
    Certs(commands::certs::Verb),
    /// Show what a node would be configured with.
    #[command(subcommand)]
    Config(commands::config::Verb),
    /// List every setting with its default, unit and meaning.
    Settings(commands::settings::Arguments),
    /// Show what a running node is doing.
    Status(commands::status::Arguments),
    /// Set the time of the journal right, after it has run ahead by a wrong clock.
    #[command(subcommand)]
    Time(commands::time::Verb),
    /// Create, list, describe and delete topics.
    #[command(subcommand)]
    Topic(commands::topic::Verb),
    /// Send the lines of standard input as records.
    Produce(commands::produce::Arguments),
    /// Print the records of a topic.
    Consume(commands::consume::Arguments),
}

fn run() -> Result<()> {
    let line = std::env::args_os().collect();
    let (Arguments { verb }, sources) = config::command_line::parse(line, std::env::vars_os())?;
    match verb {
        Verb::Dev(arguments) => commands::dev::run(arguments, &sources),
        Verb::Control(arguments) => commands::control::run(arguments, &sources),
        Verb::Agent(arguments) => commands::agent::run(arguments, &sources),
        Verb::Node(verb) => commands::node::run(verb),
        Verb::Region(verb) => commands::region::run(&verb),
        Verb::Drill(verb) => commands::drill::run(&verb),
        Verb::Certs(verb) => commands::certs::run(verb),
        Verb::Config(verb) => commands::config::run(&verb, &Arguments::command()),
        Verb::Settings(arguments) => commands::settings::run(&arguments),
        Verb::Status(arguments) => commands::status::run(&arguments),
        Verb::Time(verb) => commands::time::run(&verb),
        Verb::Topic(verb) => commands::topic::run(verb),
        Verb::Produce(arguments) => commands::produce::run(&arguments),
        Verb::Consume(arguments) => commands::consume::run(&arguments),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<output::Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            // What is wrong with the command line, and help that was asked for, are clap's to print.
            let error = match error.downcast::<clap::Error>() {
                Ok(error) => error.exit(),
                Err(error) => error,
            };
            // One line with the error and its causes.
            eprintln!("seaway: {error:#}");
            ExitCode::FAILURE
        }
    }
}
