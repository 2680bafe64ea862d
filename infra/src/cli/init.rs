//! `crm init`

use std::process::ExitCode;

use clap::Args;
use services::clock::SystemClock;
use services::log::LogError;

use super::output::out;
use crate::config::{SHARDS_DEFAULT, Settings, Use};
use crate::runtime::refuse_orphans;

/// Create the log: the topic with the right settings, the tables or the SQLite file
///
/// Creates the log. Its number of shards and its time zone are fixed for its life: one that exists with others is left
/// as it is, and the command fails.
#[derive(Debug, Args)]
pub struct Init {
    /// Shards (= Kafka partitions); fixed for the life of the log
    #[arg(long, default_value_t = SHARDS_DEFAULT)]
    shards: u16,
    /// Brokers that hold each record; 3 in production
    #[arg(long)]
    replication: Option<i32>,
}

impl Init {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let mut settings = settings.clone();
        settings.replication = self.replication.unwrap_or(settings.replication);
        let log = settings.open_log(Use::Write)?;
        if let Err(LogError::NotCreated(_)) = log.open().await
            && let Ok(stores) = settings.open_stores_to_read().await
        {
            refuse_orphans(&settings, &stores).await?;
        }
        let opened = services::log::create(log.as_ref(), &settings.new_log(self.shards), &SystemClock).await?;
        out!(
            "log {} with {} shards and the days of {} is ready at {}",
            opened.log_id,
            opened.shards,
            opened.calendar.time_zone(),
            log.address()
        );
        Ok(ExitCode::SUCCESS)
    }
}
