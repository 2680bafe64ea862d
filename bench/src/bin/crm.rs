//! The program `crm` itself, built here so that it is measured as it is, without a second build of everything.

use clap::Parser;
use infra::cli::Cli;

/// Threads hand small things to each other all the time: see docs/BENCHMARKS.md for what it gains.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    infra::cli::run(Cli::parse())
}
