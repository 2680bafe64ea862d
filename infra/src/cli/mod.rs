//! The command line: one file per command.

mod demo;
mod import;
mod init;
mod log;
mod output;
mod project;
mod query;
mod rebuild;
mod serve;
mod status;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Places;
use crate::telemetry::{LogFormat, start_logging};

/// An event-sourced CRM core: commands become events in a log (SQLite, PostgreSQL or Kafka), events become read models
/// (SQLite or PostgreSQL).
///
/// Try it with nothing installed: `crm demo`. Settings come from flags, then the environment, then crm.toml, then defaults.
#[derive(Parser)]
#[command(name = "crm", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub places: Places,
    /// How log lines look; they go to standard error, and RUST_LOG says how much
    #[arg(long, env = "CRM_LOG_FORMAT", global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  crm demo                                  a company of two years, served on 127.0.0.1:7070
  crm init --log kafka://localhost:9092/crm.events --shards 8
  crm serve --log kafka://localhost:9092/crm.events --views postgres://crm@localhost/crm
  crm serve --log postgres://crm@localhost/crm --views postgres://crm@localhost/crm
  crm import commands.jsonl                 one command a line; safe to run twice
  crm query pipeline --as-of 2026-03-31     the pipeline as it was on any past day";

/// What each does stands at its arguments: first in a line, for the list, then at length.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::Init),
    Serve(serve::Serve),
    Project(project::Project),
    Demo(demo::Demo),
    Import(import::Import),
    Ingest(import::Ingest),
    Query(query::QueryCommand),
    Rebuild(rebuild::Rebuild),
    Status(status::Status),
    Log(log::LogCommand),
}

/// Exit code when the command ran and found something wrong: rejected lines, a lag, trouble.
pub const FOUND_TROUBLE: u8 = 2;

/// Runs the command line.
pub fn run(cli: Cli) -> ExitCode {
    let is_server = matches!(cli.command, Command::Serve(_) | Command::Project(_));
    start_logging(cli.log_format, if is_server { "info" } else { "warn" });
    let runtime = match crate::runtime::threads() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("crm: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dispatch(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("crm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = cli.places.settings()?;
    match cli.command {
        Command::Init(init) => init.run(&settings).await,
        Command::Serve(serve) => serve.run(&settings).await,
        Command::Project(project) => project.run(&settings).await,
        Command::Demo(demo) => demo.run(&cli.places, settings).await,
        Command::Import(import) => import.run(&settings).await,
        Command::Ingest(ingest) => ingest.run(&settings).await,
        Command::Query(query) => query.run(&settings).await,
        Command::Rebuild(rebuild) => rebuild.run(&settings).await,
        Command::Status(status) => status.run(&settings).await,
        Command::Log(log) => log.run(&settings).await,
    }
}
