//! A run of benchmarks: contenders take turns, the order moves by one each round, the first round is dropped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::load::{Load, Measured};
use crate::meters::{Meters, fsync_probe};
use crate::places::Places;
use crate::results::{Head, Line, Sink};

/// One of those who are measured side by side.
#[async_trait]
pub trait Contender: Send {
    fn name(&self) -> String;

    /// How durable what it acks is.
    fn class(&self) -> Class;

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured>;

    /// After the last round: is what it holds what it acked?
    ///
    /// # Errors
    /// When it is not: then its figures count for nothing.
    async fn check(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Stands for [`Class::None`].
pub const NO_CLASS: &str = "-";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Survives the death of its process, not a power cut.
    D0,
    /// Survives a power cut: fsync before the ack.
    D1,
    /// Stores nothing that must survive.
    None,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::D0 => "D0",
            Class::D1 => "D1",
            Class::None => NO_CLASS,
        }
    }
}

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Extent {
    pub short: bool,
    pub rounds: u32,
    /// Events of the large histories, as a share of ten million.
    pub scale: f64,
    /// Only what the floor compares: one cell a benchmark, without other contenders.
    pub for_floor: bool,
    /// Measures this contender alone: for a profiler.
    pub only: Option<String>,
}

impl Extent {
    /// `full` in a real run, a few in a short one.
    pub fn pick<T>(&self, full: T, short: T) -> T {
        match self.short {
            true => short,
            false => full,
        }
    }

    pub fn load(&self, clients: usize) -> Load {
        Load {
            clients,
            warm_up: self.pick(Duration::from_millis(1_000), Duration::from_millis(300)),
            measure: self.pick(Duration::from_millis(4_000), Duration::from_millis(1_000)),
        }
    }

    /// So many events of the large histories.
    pub fn events(&self) -> u64 {
        let share = self.pick(self.scale, self.scale.min(0.002));
        (10_000_000.0 * share) as u64
    }
}

/// What a benchmark runs in.
pub struct Session {
    pub places: Places,
    pub extent: Extent,
    results: PathBuf,
    bench: &'static str,
    sink: Sink,
    notes: BTreeMap<String, String>,
}

impl Session {
    pub fn new(bench: &'static str, places: Places, extent: Extent, results: PathBuf) -> Session {
        Session {
            sink: Sink::new(&results, bench),
            places,
            extent,
            results,
            bench,
            notes: BTreeMap::new(),
        }
    }

    /// Says something about the run that a reader of the numbers must know.
    pub fn note(&mut self, what: &str, is: impl ToString) {
        eprintln!("   {what}: {}", is.to_string());
        self.notes.insert(what.to_owned(), is.to_string());
    }

    /// Measures the contenders of one cell, side by side.
    pub async fn cell(&mut self, cell: &str, load: Load, contenders: &mut [Box<dyn Contender>]) -> anyhow::Result<()> {
        self.take_turns(cell, load, contenders, 1).await
    }

    /// The same without rotation, where one contender says what the next one does.
    pub async fn cell_in_order(
        &mut self,
        cell: &str,
        load: Load,
        contenders: &mut [Box<dyn Contender>],
    ) -> anyhow::Result<()> {
        self.take_turns(cell, load, contenders, 0).await
    }

    async fn take_turns(
        &mut self,
        cell: &str,
        load: Load,
        contenders: &mut [Box<dyn Contender>],
        rotation: usize,
    ) -> anyhow::Result<()> {
        let meters = &self.places.meters();
        let only = self.extent.only.clone();
        let is_asked = |contender: &dyn Contender| only.as_ref().is_none_or(|name| *name == contender.name());
        let count = contenders.len();
        for round in 0..=self.extent.rounds {
            let fsync = fsync_probe(&self.places.folder)?;
            for turn in 0..count {
                let contender = &mut contenders[(turn + rotation * round as usize) % count];
                if !is_asked(contender.as_ref()) {
                    continue;
                }
                let measured = contender.run(load, meters).await?;
                if round == 0 {
                    continue;
                }
                let mut line = Line {
                    cell: cell.to_owned(),
                    round,
                    turn: turn as u32,
                    contender: contender.name(),
                    class: contender.class().name().to_owned(),
                    fsync_us: fsync.as_micros() as u64,
                    ..Line::default()
                };
                line.fill(&measured);
                eprintln!("   {}", sentence(&line));
                self.sink.add(&line)?;
            }
        }
        Ok(())
    }

    /// Asks each contender whether what it holds is what it acked.
    pub async fn check(&mut self, contenders: &mut [Box<dyn Contender>]) -> anyhow::Result<()> {
        for contender in contenders {
            contender
                .check()
                .await
                .map_err(|error| error.context(contender.name()))?;
        }
        Ok(())
    }

    pub fn finish(self) -> anyhow::Result<()> {
        let head = Head {
            bench: self.bench.to_owned(),
            at: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M").to_string(),
            commit: self.places.commit.clone(),
            machine: crate::machine::describe(),
            short: self.extent.short,
            rounds: self.extent.rounds,
            notes: self.notes,
        };
        self.sink.finish(&head)?;
        eprintln!(
            "   rounds are in {}",
            self.results.join(format!("{}.jsonl", self.bench)).display()
        );
        Ok(())
    }
}

fn sentence(line: &Line) -> String {
    let latency = match (line.p50_us, line.p99_us) {
        (Some(p50), Some(p99)) => format!(", p50 {:.2} ms, p99 {:.2} ms", p50 as f64 / 1e3, p99 as f64 / 1e3),
        _ => String::new(),
    };
    format!(
        "{} | round {} | {}: {:.0}/s{latency}, CPU {:.1} us, idle {:.0} %, others {:.0} %",
        line.cell,
        line.round,
        line.contender,
        line.per_second,
        line.cpu_total_us(),
        line.idle * 100.0,
        line.others * 100.0,
    )
}
