//! `crm rebuild`

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use clap::Args;
use projections::{Group, ReadModel};
use services::views::{GenerationStatus, rebuild};

use super::import::progress_bar;
use super::output::out;
use super::project::group;
use crate::config::{Settings, Use};
use crate::runtime::Parts;

/// Build read models anew beside the live ones, and swap them in; or roll back
///
/// Folds the whole log into new tables beside the live ones and swaps them in. Queries go on meanwhile.
#[derive(Debug, Args)]
pub struct Rebuild {
    /// Only these groups; a read model's name stands for its group
    #[arg(value_parser = group_of)]
    groups: Vec<Group>,
    /// Swap back to the generation that was live before
    #[arg(long)]
    rollback: bool,
}

fn group_of(name: &str) -> Result<Group, String> {
    match ReadModel::find(name) {
        Some(model) => Ok(model.group),
        None => group(name),
    }
}

impl Rebuild {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        settings.refuse_new_folder()?;
        let parts = Parts::open_to_project(settings, settings.open_log(Use::Read)?).await?;
        let mut groups = if self.groups.is_empty() {
            Group::ALL.to_vec()
        } else {
            self.groups
        };
        groups.sort_unstable();
        groups.dedup();
        if self.rollback {
            for group in groups {
                roll_back(&parts, group).await?;
            }
        } else {
            build(&parts, &groups).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn build(parts: &Parts, groups: &[Group]) -> anyhow::Result<()> {
    let started = Instant::now();
    let shards = parts.opened.shards;
    let mut total = 0;
    for shard in 0..shards {
        total += parts.log.end(shard).await?;
    }
    let names: Vec<&str> = groups.iter().map(|group| group.name()).collect();
    let bar = progress_bar(total, "{pos}/{len} records");
    bar.set_message(names.join(", "));
    // All groups read the same records.
    let read: Mutex<HashMap<(Group, u16), u64>> = Mutex::default();
    let count = groups.len() as u64;
    let shown = bar.clone();
    let report = move |group, shard, done, _| {
        let mut read = read.lock().expect("no panic under the lock");
        read.insert((group, shard), done);
        shown.set_position(read.values().sum::<u64>() / count);
    };
    let (log, store) = (Arc::clone(&parts.log), Arc::clone(&parts.stores.views));
    let built = rebuild(log, store, groups, shards, report)
        .await
        .map_err(anyhow::Error::msg)?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    for generation in built {
        out!("{}: generation {} is live", generation.group.name(), generation.number);
    }
    out!(
        "{total} records in {seconds:.1} s ({:.0} records/s)",
        total as f64 / seconds.max(0.001)
    );
    Ok(())
}

async fn roll_back(parts: &Parts, group: Group) -> anyhow::Result<()> {
    let generations = parts.stores.views.generations(group).await?;
    let previous = generations
        .into_iter()
        .find(|generation| generation.status == GenerationStatus::Previous);
    let previous = previous.ok_or_else(|| anyhow::anyhow!("{} has no generation to go back to", group.name()))?;
    parts.stores.views.promote(&previous).await?;
    out!("{}: generation {} is live again", group.name(), previous.number);
    Ok(())
}
