//! The floor that CI keeps: processor time per operation, ours to bare of the same run. A ratio, so that it is the same on every machine.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::results;
use crate::target::{Bound, Figure, Target};

/// How far a run may fall behind.
const ALLOWED: f64 = 4.0 / 3.0;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floors {
    floor: Vec<Floor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floor {
    bench: String,
    cell: String,
    ours: String,
    against: String,
    /// Processor time per operation, ours to theirs, when the floor was set.
    cpu_ratio: f64,
}

/// # Errors
/// When a run fell behind the floor, or was not made.
pub fn check(results: &Path, file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let floors: Floors = toml::from_str(&text).with_context(|| format!("{} is not right", file.display()))?;
    let mut behind = 0;
    for floor in floors.floor {
        let found = results::read(results, &floor.bench)?;
        let (_, lines) = found.with_context(|| format!("{} was not run", floor.bench))?;
        let target = Target {
            cell: floor.cell.clone(),
            ours: floor.ours.leak(),
            against: floor.against.leak(),
            figure: Figure::Cpu,
            bound: Bound::AtMost(floor.cpu_ratio * ALLOWED),
        };
        let ratio = target
            .ratio(&lines)?
            .with_context(|| format!("{}, {} was not run", floor.bench, floor.cell))?;
        let is_kept = target.bound.is_kept(ratio.median) == Some(true);
        let verdict = if is_kept { "kept" } else { "FALLEN BEHIND" };
        println!(
            "{}, {}, {}: {:.2} ({:.2} to {:.2}), floor {:.2}, at most {:.2}: {verdict}",
            floor.bench,
            floor.cell,
            target.sentence(),
            ratio.median,
            ratio.min,
            ratio.max,
            floor.cpu_ratio,
            floor.cpu_ratio * ALLOWED,
        );
        behind += usize::from(!is_kept);
    }
    match behind {
        0 => Ok(()),
        _ => bail!("{behind} ratios of processor time fell behind the floor by more than a third"),
    }
}
