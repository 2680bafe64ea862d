//! `crm-bench`: run by `scripts/bench`, which starts the servers and says where they are.

mod bare_kafka;
mod bare_rebuild;
mod bare_sqlite;
mod bare_upsert;
mod benches;
mod debezium;
mod floor;
mod history;
mod http;
mod http_clients;
mod load;
mod machine;
mod meters;
mod noop;
mod ours;
mod peer;
mod places;
mod projecting;
mod recording;
mod report;
mod results;
mod sender;
mod session;
mod stored;
mod target;
mod workload;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use benches::{ALL, Bench};
use places::Places;
use session::{Extent, Session};

/// As the program has it, and the bare contenders with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Measures the core beside its peers and bare limits; scripts/bench runs it")]
struct Cli {
    #[command(subcommand)]
    task: Task,
    /// Where the raw rounds are kept
    #[arg(long, global = true, default_value = "bench/results")]
    results: PathBuf,
}

#[derive(Subcommand)]
enum Task {
    /// Run benchmarks and keep their rounds
    Run {
        /// B1, B2 …; none = all
        benches: Vec<String>,
        /// A few seconds each: to see that it works, and for the floor
        #[arg(long)]
        short: bool,
        /// Rounds that count; one more is run first and dropped
        #[arg(long)]
        rounds: Option<u32>,
        /// Events of the large histories, as a share of ten million
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// Only what the floor compares
        #[arg(long)]
        for_floor: bool,
        /// Measure this contender alone, to profile it
        #[arg(long)]
        only: Option<String>,
    },
    /// Write the report from the rounds that are kept
    Report { to: PathBuf },
    /// Compare processor time per operation with the floor
    Floor { file: PathBuf },
    /// List the benchmarks
    List,
    /// Serve HTTP that does nothing (for B6)
    #[command(hide = true)]
    Noop { address: String },
    /// Record receipts and tell how much memory that takes (for B11)
    #[command(hide = true)]
    Grow {
        folder: PathBuf,
        streams: u64,
        cached_max: usize,
    },
}

fn main() -> std::process::ExitCode {
    // As `crm` runs.
    let done = infra::runtime::threads()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(work()));
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn work() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,rdkafka=off,deadpool=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let cli = Cli::parse();
    match cli.task {
        Task::Run {
            benches,
            short,
            rounds,
            scale,
            for_floor,
            only,
        } => {
            let extent = Extent {
                short,
                rounds: rounds.unwrap_or(if short { 3 } else { 7 }),
                scale,
                for_floor,
                only,
            };
            run(&chosen(&benches)?, &extent, &cli.results).await
        }
        Task::Report { to } => report::write(&cli.results, &to),
        Task::Floor { file } => floor::check(&cli.results, &file),
        Task::List => {
            for bench in ALL {
                println!("{}\t{}", bench.id(), bench.title());
            }
            Ok(())
        }
        Task::Noop { address } => noop::serve(&address).await,
        Task::Grow {
            folder,
            streams,
            cached_max,
        } => benches::b11_memory::grow(folder, streams, cached_max).await,
    }
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static dyn Bench>> {
    if names.is_empty() {
        return Ok(ALL.to_vec());
    }
    let find = |name: &String| ALL.iter().copied().find(|bench| bench.id().eq_ignore_ascii_case(name));
    names
        .iter()
        .map(|name| find(name).with_context(|| format!("there is no benchmark {name}; `crm-bench list` shows them")))
        .collect()
}

/// Runs one after the other. One that fails does not keep the others from running.
async fn run(benches: &[&'static dyn Bench], extent: &Extent, results: &std::path::Path) -> anyhow::Result<()> {
    let places = Places::from_environment()?;
    let mut failed = vec![];
    for bench in benches {
        eprintln!("== {}: {}", bench.id(), bench.title());
        let mut session = Session::new(bench.id(), places.clone(), extent.clone(), results.to_owned());
        let outcome = match bench.run(&mut session).await {
            Ok(()) => session.finish(),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            eprintln!("error: {}: {error:#}", bench.id());
            failed.push(bench.id());
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("failed: {}", failed.join(", ")),
    }
}
