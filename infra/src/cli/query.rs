//! `crm query`

use std::process::ExitCode;

use clap::Args;
use domain::Position;
use jiff::Timestamp;
use jiff::civil::Date;
use projections::{Question, READ_MODELS, ReadModel, Where};
use services::clock::SystemClock;
use services::views::{Ask, Queries};

use super::output::out;
use super::table::{Format, render};
use crate::config::Settings;

/// Asks a read model. Without a name, lists them.
#[derive(Debug, Args)]
pub struct QueryCommand {
    /// Such as pipeline, cases, timeline
    name: Option<String>,
    /// The world at this time, with everything that was recorded since: a time with offset, or a day (its end in Taipei)
    #[arg(long, value_parser = time)]
    as_of: Option<Timestamp>,
    /// Only what was recorded by this time: the report as it was
    #[arg(long, value_parser = time)]
    known_at: Option<Timestamp>,
    /// Only what stands up to these positions, as an earlier answer gave them: 0:12,1:99
    #[arg(long, value_parser = positions)]
    known_until: Option<Positions>,
    /// column=value, with =, !=, <, <=, > or >=; may be repeated
    #[arg(long = "where", value_name = "FILTER")]
    filters: Vec<String>,
    /// Wait until the read model has passed this position (from an ack): 3:1207
    #[arg(long, value_parser = positions)]
    at_least: Option<Positions>,
    #[arg(long)]
    limit: Option<usize>,
    /// Where the last page ended
    #[arg(long)]
    cursor: Option<String>,
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Positions, at most one per shard.
#[derive(Debug, Clone)]
pub struct Positions(pub Vec<Position>);

/// Reads `0:12,1:99`.
pub fn positions(text: &str) -> Result<Positions, String> {
    let parsed: Option<Vec<_>> = text.split(',').map(|part| Position::parse(part.trim())).collect();
    parsed
        .map(Positions)
        .ok_or_else(|| format!("{text:?} is not <shard>:<offset>[,…]"))
}

/// Reads a time with an offset, or a day: its last microsecond in Taipei (UTC+8).
pub fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let day: Date = text
        .parse()
        .map_err(|_| format!("{text:?} is neither a day nor a time with an offset"))?;
    let next = day.tomorrow().map_err(|error| error.to_string())?;
    let midnight: Timestamp = format!("{next}T00:00:00+08:00")
        .parse()
        .map_err(|_| format!("{text:?} is out of range"))?;
    Ok(midnight - jiff::SignedDuration::from_micros(1))
}

impl QueryCommand {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let Some(name) = &self.name else {
            for model in READ_MODELS {
                out!("{:20} {}", model.name, model.about);
            }
            return Ok(ExitCode::SUCCESS);
        };
        let model = ReadModel::find(name)
            .ok_or_else(|| anyhow::anyhow!("there is no read model {name:?}; `crm query` lists them"))?;
        let stores = settings.open_stores().await?;
        let queries = Queries::new(stores.views, std::sync::Arc::new(SystemClock));
        let filters = self
            .filters
            .iter()
            .map(|text| Where::parse(text))
            .collect::<Result<_, _>>()?;
        let until = |positions: Positions| positions.0.into_iter().map(|at| (at.shard, at.offset)).collect();
        let question = Question {
            filters,
            as_of: self.as_of,
            known_until: self.known_until.map(until),
            limit: self.limit,
            cursor: self.cursor,
            now: None,
        };
        let at_least = self.at_least.map(|positions| positions.0).unwrap_or_default();
        let answered = queries
            .ask(
                model,
                Ask {
                    question,
                    known_at: self.known_at,
                    at_least,
                },
            )
            .await?;
        out!("{}", render(&answered.answer, self.format)?);
        if let Some(cursor) = &answered.answer.cursor {
            eprintln!("there is more: --cursor {cursor}");
        }
        if let Some(known) = &answered.known_until {
            let positions: Vec<_> = known
                .iter()
                .map(|(shard, offset)| format!("{shard}:{offset}"))
                .collect();
            eprintln!(
                "known until {}; definition {}",
                positions.join(","),
                answered.definition
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
