//! `crm`: the program.

use clap::Parser;
use infra::cli::Cli;

fn main() -> std::process::ExitCode {
    infra::cli::run(Cli::parse())
}
