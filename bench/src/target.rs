//! Targets: a ratio of two contenders of a cell, taken inside each round, and the bound that its median should keep.

use anyhow::ensure;

use crate::results::Line;
use crate::session::NO_CLASS;

/// In the place of a contender to compare with: the figure is what counts.
pub const ALONE: &str = "";

#[derive(Debug, Clone)]
pub struct Target {
    pub cell: String,
    pub ours: &'static str,
    pub against: &'static str,
    pub figure: Figure,
    pub bound: Bound,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Operations a second.
    Rate,
    /// Processor time of all processes per operation.
    Cpu,
    P50,
    P99,
    /// The p99 of ours, against the p50 of theirs.
    P99ToP50,
    /// One of the further figures.
    Extra(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Measured and shown.
    Shown,
}

/// The median of a ratio over the rounds, with its extremes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: usize,
}

impl Target {
    /// `None` when the cell was not measured.
    ///
    /// # Errors
    /// When one acks before the disk has it and the other after: they are not compared.
    pub fn ratio(&self, lines: &[Line]) -> anyhow::Result<Option<Ratio>> {
        let class = |contender: &str| {
            let mut own = lines
                .iter()
                .filter(|line| line.cell == self.cell && line.contender == contender);
            own.find(|line| line.class != NO_CLASS).map(|line| line.class.as_str())
        };
        if let (Some(ours), Some(theirs)) = (class(self.ours), class(self.against)) {
            ensure!(
                ours == theirs,
                "{}: {} is {ours}, {} is {theirs}: not to be compared",
                self.cell,
                self.ours,
                self.against
            );
        }
        Ok(self.ratio_within_rounds(lines))
    }

    fn ratio_within_rounds(&self, lines: &[Line]) -> Option<Ratio> {
        let of = |contender: &str, round: u32| {
            lines
                .iter()
                .find(|line| line.cell == self.cell && line.contender == contender && line.round == round)
        };
        let rounds = lines.iter().map(|line| line.round).max()?;
        let ratios = (1..=rounds).filter_map(|round| {
            let ours = self.figure.of(of(self.ours, round)?)?;
            if self.against == ALONE {
                return Some(ours);
            }
            let theirs = self.figure.against().of(of(self.against, round)?)?;
            (theirs > 0.0).then_some(ours / theirs)
        });
        Ratio::of(ratios.collect())
    }

    pub fn sentence(&self) -> String {
        let figure = self.figure.name();
        match self.against == ALONE {
            true => format!("{figure}: {}", self.ours),
            false => format!("{figure}: {} / {}", self.ours, self.against),
        }
    }
}

impl Figure {
    pub fn of(self, line: &Line) -> Option<f64> {
        match self {
            Figure::Rate => Some(line.per_second),
            Figure::Cpu => Some(line.cpu_total_us()),
            Figure::P50 => line.p50_us.map(|us| us as f64),
            Figure::P99 | Figure::P99ToP50 => line.p99_us.map(|us| us as f64),
            Figure::Extra(name) => line.extra.get(name).copied(),
        }
    }

    /// What it is compared with.
    fn against(self) -> Figure {
        match self {
            Figure::P99ToP50 => Figure::P50,
            same => same,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Figure::Rate => "rate",
            Figure::Cpu => "CPU per operation",
            Figure::P50 => "p50",
            Figure::P99 => "p99",
            Figure::P99ToP50 => "p99 to p50",
            Figure::Extra(name) => name,
        }
    }
}

impl Bound {
    pub fn sentence(self) -> String {
        match self {
            Bound::AtLeast(bound) => format!("≥ {}", trimmed(bound)),
            Bound::AtMost(bound) => format!("≤ {}", trimmed(bound)),
            Bound::Shown => "shown".into(),
        }
    }

    /// `None` when there is nothing to keep.
    pub fn is_kept(self, by: f64) -> Option<bool> {
        match self {
            Bound::AtLeast(bound) => Some(by >= bound),
            Bound::AtMost(bound) => Some(by <= bound),
            Bound::Shown => None,
        }
    }
}

fn trimmed(bound: f64) -> String {
    let text = format!("{bound:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Ratio {
    pub fn of(mut ratios: Vec<f64>) -> Option<Ratio> {
        ratios.sort_by(f64::total_cmp);
        Some(Ratio {
            median: median(&ratios)?,
            min: *ratios.first()?,
            max: *ratios.last()?,
            rounds: ratios.len(),
        })
    }
}

/// Of sorted figures.
pub fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(match sorted.len() % 2 {
        1 => upper,
        _ => (sorted[middle - 1] + upper) / 2.0,
    })
}

#[cfg(test)]
mod specs {
    use super::*;

    fn line(round: u32, contender: &str, per_second: f64) -> Line {
        Line {
            cell: "64 clients".into(),
            round,
            contender: contender.into(),
            class: "D0".into(),
            per_second,
            ..Line::default()
        }
    }

    fn to_bare() -> Target {
        Target {
            cell: "64 clients".into(),
            ours: "ours",
            against: "bare",
            figure: Figure::Rate,
            bound: Bound::AtLeast(0.85),
        }
    }

    #[test]
    fn ratios_are_taken_inside_a_round() {
        let lines = [
            line(1, "ours", 10.0),
            line(1, "bare", 20.0),
            line(2, "ours", 30.0),
            line(2, "bare", 30.0),
            line(3, "bare", 1.0),
        ];
        let target = to_bare();
        let expected = Ratio {
            median: 0.75,
            min: 0.5,
            max: 1.0,
            rounds: 2,
        };
        assert_eq!(target.ratio(&lines).unwrap(), Some(expected));
        assert_eq!(target.bound.is_kept(expected.median), Some(false));
    }

    #[test]
    fn who_acks_before_the_disk_is_not_compared_with_who_acks_after_it() {
        let compared = |class: &str| {
            let bare = Line {
                class: class.into(),
                ..line(1, "bare", 20.0)
            };
            to_bare().ratio(&[line(1, "ours", 10.0), bare])
        };
        assert!(compared("D0").is_ok());
        assert!(compared("-").is_ok());
        let refused = compared("D1").unwrap_err().to_string();
        assert_eq!(refused, "64 clients: ours is D0, bare is D1: not to be compared");
    }
}
