//! The program `crm` itself, built here so that it is measured as it is, without a second build of everything.

use clap::Parser;
use infra::cli::Cli;

fn main() -> std::process::ExitCode {
    infra::cli::run(Cli::parse())
}
