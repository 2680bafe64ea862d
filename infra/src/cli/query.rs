//! `crm query`

use std::process::ExitCode;

use clap::Args;
use domain::{Calendar, Position};
use jiff::Timestamp;
use jiff::civil::Date;
use projections::{LIMIT_MAX, Question, READ_MODELS, ReadModel, Where};
use services::commands::Reference;
use services::views::{Answered, Ask, Named, Queries, named_by_keys};

use super::output::out;
use super::table::{self, Format, Shown};
use crate::config::Settings;

/// Ask a read model, of now or of any past time
///
/// Asks a read model. Without a name, lists them.
#[derive(Debug, Args)]
pub struct QueryCommand {
    /// Such as pipeline, cases, timeline
    name: Option<String>,
    /// The world at this time, with everything that was recorded since: a time with offset, or a day (its end in the log's
    /// time zone)
    #[arg(long, value_parser = when)]
    as_of: Option<When>,
    /// Only what was recorded by this time: the report as it was
    #[arg(long, value_parser = when)]
    known_at: Option<When>,
    /// Only what stands up to these positions, as an earlier answer gave them: 0:12,1:99
    #[arg(long, value_parser = positions)]
    known_until: Option<Positions>,
    /// column=value, with =, !=, <, <=, > or >=; or "column in (a, b)", "column is null", "column is not null". A value
    /// may stand in double quotes. May be repeated: all are meant, but of several equalities on one column any. A thing
    /// may be named by the key of another system: customer=key:erp:C-12
    #[arg(long = "where", value_name = "FILTER")]
    filters: Vec<String>,
    /// Wait until the read model has passed this position (from an ack): 3:1207
    #[arg(long, value_parser = positions)]
    at_least: Option<Positions>,
    /// Rows of the table or of the page: 1 to 10000. Left out, 100; of CSV and Excel all
    #[arg(long, value_parser = limit)]
    limit: Option<usize>,
    /// The columns to show, in this order: name,owner. "all" for all of them
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// Sorts the rows that are shown by a column; "-amount_minor" for the largest first
    #[arg(long, allow_hyphen_values = true)]
    sort: Option<String>,
    /// The names of the customers beside their ids, as customer_name. A table has them anyway
    #[arg(long)]
    names: bool,
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

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("{text:?} is not a valid limit; use 1 to {LIMIT_MAX} and page with --cursor"))
}

/// A time that is asked for.
#[derive(Debug, Clone, Copy)]
enum When {
    At(Timestamp),
    EndOf(Date),
}

/// Reads a time with an offset, or a day.
fn when(text: &str) -> Result<When, String> {
    if let Ok(at) = text.parse() {
        return Ok(When::At(at));
    }
    let day = text.parse().map(When::EndOf);
    day.map_err(|_| format!("{text:?} is neither a day nor a time with an offset"))
}

impl When {
    fn time(self, calendar: &Calendar) -> Timestamp {
        match self {
            When::At(at) => at,
            When::EndOf(day) => calendar.day_end(day),
        }
    }
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
        let queries = crate::runtime::queries_to_read(settings).await?;
        let filters = self
            .filters
            .iter()
            .map(|text| Where::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let filters = Where::gather(filters, vec![])?;
        let until = |positions: Positions| positions.0.into_iter().map(|at| (at.shard, at.offset)).collect();
        let calendar = queries.calendar().clone();
        let mut question = Question {
            filters,
            as_of: self.as_of.map(|when| when.time(&calendar)),
            known_until: self.known_until.map(until),
            limit: self.limit,
            cursor: self.cursor,
            now: None,
            part: None,
            calendar: calendar.clone(),
        };
        for Named { kind, text, .. } in named_by_keys(model, &mut question) {
            let named = Reference::parse(text)?;
            *text = queries.resolve(kind, &named).await?.to_string();
        }
        let ask = Ask {
            known_at: self.known_at.map(|when| when.time(&calendar)),
            at_least: self.at_least.map(|positions| positions.0).unwrap_or_default(),
            question,
        };
        // A file is complete unless a limit is asked.
        let is_file = matches!(self.format, Format::Csv | Format::Excel);
        let wants_all = is_file && ask.question.limit.is_none() && ask.question.cursor.is_none();
        let mut answered = match wants_all {
            true => all(&queries, model, ask).await?,
            false => queries.ask(model, ask).await?,
        };
        let wants_names = self.names || self.format == Format::Table;
        // Among the customers each has its name already.
        if wants_names && model.name != projections::customers::MODEL.name {
            match queries.customer_names(&table::customers(&answered.answer)).await {
                Ok(names) => table::put_names(&mut answered.answer, &names),
                Err(error) if self.names => return Err(error.into()),
                Err(error) => eprintln!("the names of the customers are not shown: {error}"),
            }
        }
        let shown = Shown {
            columns: &self.columns,
            sort: self.sort.as_deref(),
            format: self.format,
            calendar: &calendar,
        };
        out!("{}", shown.render(&answered.answer)?);
        if self.sort.is_some() && answered.answer.cursor.is_some() {
            eprintln!("only the rows shown are sorted; there are more");
        }
        if let Some(cursor) = &answered.answer.cursor {
            eprintln!("there is more: --cursor {cursor}");
        }
        if let Some(known) = &answered.known_until {
            let positions: Vec<_> = known
                .iter()
                .map(|(shard, offset)| format!("{shard}:{offset}"))
                .collect();
            let until = match positions.is_empty() {
                true => "the beginning: nothing was recorded yet".to_owned(),
                false => positions.join(","),
            };
            eprintln!("known until {until}; definition {}", answered.definition);
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn all(queries: &Queries, model: &'static ReadModel, ask: Ask) -> anyhow::Result<Answered> {
    let (mut answered, mut rest) = queries.ask_all(model, ask).await?;
    while let Some(rows) = rest.next().await? {
        answered.answer.rows.extend(rows);
    }
    Ok(answered)
}
