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

#[cfg(test)]
mod specs {
    use std::collections::BTreeMap;

    use super::*;
    use crate::results::{Head, Line, Sink};

    /// One round, in which ours took so many times the processor time of theirs.
    fn measure(folder: &Path, ratio: f64) {
        let mut sink = Sink::new(folder, "B1");
        for (contender, cpu) in [("bare", 100.0), ("ours", 100.0 * ratio)] {
            let line = Line {
                cell: "c".into(),
                round: 1,
                contender: contender.into(),
                class: "D0".into(),
                cpu_us: BTreeMap::from([("all".to_owned(), cpu)]),
                ..Line::default()
            };
            sink.add(&line).unwrap();
        }
        let head = Head {
            bench: "B1".into(),
            at: String::new(),
            commit: String::new(),
            machine: String::new(),
            short: true,
            rounds: 1,
            notes: BTreeMap::new(),
        };
        sink.finish(&head).unwrap();
    }

    #[test]
    fn a_run_that_fell_behind_by_more_than_a_third_fails() {
        let folder = std::env::temp_dir().join(format!("crm-bench-floor-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("floor.toml");
        let floor = "[[floor]]\nbench = \"B1\"\ncell = \"c\"\nours = \"ours\"\nagainst = \"bare\"\ncpu_ratio = 2.0\n";
        std::fs::write(&file, floor).unwrap();
        let verdict = || check(&folder, &file);
        assert!(verdict().unwrap_err().to_string().contains("was not run"));
        for kept in [1.0, 2.0, 2.6] {
            measure(&folder, kept);
            verdict().unwrap();
        }
        for behind in [2.7, 9.0] {
            measure(&folder, behind);
            assert!(verdict().unwrap_err().to_string().contains("fell behind"));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
