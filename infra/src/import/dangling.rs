//! How much is referred to and not there (yet), as reports and the status say it.

use std::fmt;

use anyhow::Context;
use projections::LIMIT_MAX;
use serde::Serialize;
use services::views::{Ask, Queries};

/// What the read model `dangling` lists. Serialized as it is shown in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Dangling {
    /// Customers, machines, deals and other things that something refers to.
    pub things: usize,
    /// There are more of them.
    pub more: bool,
}

impl Dangling {
    /// Of the read models that can be asked here.
    ///
    /// # Errors
    /// When they cannot be asked.
    pub async fn here(queries: &Queries) -> anyhow::Result<Dangling> {
        let mut ask = Ask::of(queries.question());
        ask.question.limit = Some(LIMIT_MAX);
        let answer = queries.ask(&projections::dangling::MODEL, ask).await?.answer;
        Ok(Dangling {
            things: answer.rows.len(),
            more: answer.cursor.is_some(),
        })
    }

    /// Of a running server.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn at(http: &reqwest::Client, url: &str) -> anyhow::Result<Dangling> {
        let address = format!("{url}/api/dangling?limit={LIMIT_MAX}");
        let answer: serde_json::Value = http.get(address).send().await?.error_for_status()?.json().await?;
        let rows = answer["rows"].as_array().context("the answer has no rows")?;
        Ok(Dangling {
            things: rows.len(),
            more: answer["cursor"].is_string(),
        })
    }
}

impl fmt::Display for Dangling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.more { "more than " } else { "" };
        let things = match self.things {
            1 => "1 thing (customer, machine, deal …) that something refers to is".to_owned(),
            things => format!("{things} things (customers, machines, deals …) that something refers to are"),
        };
        write!(f, "{more}{things} not there (yet): crm query dangling")
    }
}
