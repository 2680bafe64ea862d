//! `crm project`

use std::process::ExitCode;

use clap::Args;
use projections::Group;

use crate::config::{Settings, Use};
use crate::runtime::{Parts, stop_asked};

/// Folds events into read models. Several such processes may run at once; a checkpoint moves once.
#[derive(Debug, Args)]
pub struct Project {
    /// Only these groups: sales, service, analytics, journal
    #[arg(long = "group", value_parser = group)]
    pub groups: Vec<Group>,
    /// Read everything there is, then end
    #[arg(long)]
    pub once: bool,
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
        let parts = Parts::open_to_read(settings, log).await?;
        let (_, projecting) = parts.start_workers(groups.clone());
        if self.once {
            super::import::wait_until_read(&parts, &groups).await?;
        } else {
            tracing::info!(
                "projecting {}",
                groups.iter().map(|group| group.name()).collect::<Vec<_>>().join(", ")
            );
            stop_asked().await?;
        }
        parts.stop();
        projecting.await?;
        Ok(ExitCode::SUCCESS)
    }
}
