//! `crm project`

use std::process::ExitCode;

use clap::Args;
use projections::Group;

use super::serve::Sharing;
use crate::config::{Settings, Use};
use crate::runtime::{Parts, stop_asked};

/// Run projection workers as a process of their own
///
/// Folds events into read models. On a Kafka log, several such processes share the shards; elsewhere only the first of them has work, for a
/// checkpoint moves once.
#[derive(Debug, Args)]
pub struct Project {
    /// Only these groups: sales, service, analytics, journal
    #[arg(long = "group", value_parser = group)]
    pub groups: Vec<Group>,
    /// Read everything there is, then end
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub sharing: Sharing,
}

/// Reads the name of a group.
pub fn group(name: &str) -> Result<Group, String> {
    Group::parse(name)
        .ok_or_else(|| format!("there is no group {name:?}; there are sales, service, analytics, journal"))
}

impl Project {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let groups = if self.groups.is_empty() {
            Group::ALL.to_vec()
        } else {
            self.groups
        };
        let log = settings.open_log(Use::Read)?;
        let parts = Parts::open_to_project(settings, log).await?;
        if self.once {
            let projecting = parts.start_workers(groups.clone());
            super::import::wait_until_read(&parts, &groups).await?;
            parts.stop();
            projecting.ended().await?;
            return Ok(ExitCode::SUCCESS);
        }
        tracing::info!(
            "projecting {}",
            groups.iter().map(|group| group.name()).collect::<Vec<_>>().join(", ")
        );
        let settings = self.sharing.apply(settings);
        let mut projecting = parts.share_workers(&settings, groups).await?;
        stop_asked().await?;
        projecting.leave().await;
        parts.stop();
        projecting.ended().await?;
        Ok(ExitCode::SUCCESS)
    }
}
