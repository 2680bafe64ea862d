//! `docs/BENCHMARKS.md`, written from the raw rounds.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::benches::{ALL, Bench};
use crate::results::{self, Head, Line};
use crate::target::median;

/// A share of the machine that others may take before a run counts as disturbed.
const OTHERS_MAX: f64 = 0.05;

const PREFACE: &str = "# Benchmarks

Written by `scripts/bench` from the raw rounds in `bench/results/`; do not edit. Contenders run side by side: in each round all take their
turn, and the order moves by one from round to round (not in B12, whose second one needs the first one's rate). A ratio is taken inside a
round; shown are its median and its extremes. The first round and the first moments of each run are dropped. CPU is the processor time of all
processes that take part (the clients with the core in one process, the broker, all processes of PostgreSQL), divided by the operations; B11
measures memory and B13 waiting, and neither shows it. Only contenders of the same durability class are compared: D0 survives the death of its
process, D1 a power cut (fsync before the ack). Where acks are measured the stored is compared with the acked in the end, and where read models
are written their rows with each other's; a difference is an error, not a result. Latencies are from HDR histograms.
";

/// What people found out about the figures: stands behind the targets.
const FINDINGS: &str = "../findings.md";

pub fn write(folder: &Path, to: &Path) -> anyhow::Result<()> {
    let mut text = PREFACE.to_owned();
    let mut measured = vec![];
    for bench in ALL {
        if let Some((head, lines)) = results::read(folder, bench.id())? {
            measured.push((*bench, head, lines));
        }
    }
    summary(&mut text, &measured)?;
    let findings = folder.join(FINDINGS);
    if findings.exists() {
        writeln!(text, "\n{}", std::fs::read_to_string(&findings)?.trim_end())?;
    }
    for (bench, head, lines) in &measured {
        section(&mut text, *bench, head, lines)?;
    }
    std::fs::write(to, text)?;
    Ok(())
}

/// The targets of all benchmarks in one table.
fn summary(text: &mut String, measured: &[(&dyn Bench, Head, Vec<Line>)]) -> anyhow::Result<()> {
    writeln!(text, "\n## Targets\n")?;
    writeln!(text, "| # | where | what | target | median | min – max | |")?;
    writeln!(text, "|---|---|---|---|---|---|---|")?;
    for (bench, head, lines) in measured {
        for target in bench.targets() {
            let Some(ratio) = target.ratio(lines)? else { continue };
            let verdict = match target.bound.is_kept(ratio.median) {
                Some(true) => "reached",
                Some(false) => "**not reached**",
                None => "",
            };
            let short = if head.short { " (short form)" } else { "" };
            writeln!(
                text,
                "| {} | {} | {}{short} | {} | {} | {} – {} | {verdict} |",
                bench.id(),
                target.cell,
                target.sentence(),
                target.bound.sentence(),
                figure(ratio.median),
                figure(ratio.min),
                figure(ratio.max),
            )?;
        }
    }
    Ok(())
}

fn section(text: &mut String, bench: &dyn Bench, head: &Head, lines: &[Line]) -> anyhow::Result<()> {
    writeln!(text, "\n## {}: {}\n\n{}\n", bench.id(), bench.title(), bench.how())?;
    writeln!(
        text,
        "{} UTC, commit {}, {}; {} {}{}.",
        head.at,
        head.commit,
        head.machine,
        head.rounds,
        if head.rounds == 1 { "round" } else { "rounds" },
        if head.short { ", short form" } else { "" }
    )?;
    writeln!(text, "{}", conditions(lines))?;
    for (what, is) in &head.notes {
        writeln!(text, "{what}: {is}.")?;
    }
    let mut cells: Vec<&str> = vec![];
    for line in lines {
        if !cells.contains(&line.cell.as_str()) {
            cells.push(&line.cell);
        }
    }
    for cell in cells {
        table(text, cell, lines)?;
    }
    Ok(())
}

fn conditions(lines: &[Line]) -> String {
    let fsync = middle(lines.iter().map(|line| line.fsync_us as f64)).unwrap_or_default();
    let metered: Vec<&Line> = lines.iter().filter(|line| is_metered(line)).collect();
    let mut text = format!("An fsync took {:.2} ms (median); ", fsync / 1e3);
    let Some(idle) = middle(metered.iter().map(|line| line.idle)) else {
        return text + "processor time was not measured.";
    };
    let others = metered.iter().map(|line| line.others).fold(0.0, f64::max);
    text += &format!(
        "the machine was {:.0} % idle (median), others took {:.0} % at most",
        idle * 100.0,
        others * 100.0
    );
    let disturbed = metered.iter().filter(|line| line.others > OTHERS_MAX).count();
    if disturbed > 0 {
        text += &format!(
            "; **{disturbed} of {} runs were disturbed** (others above {:.0} %)",
            metered.len(),
            OTHERS_MAX * 100.0
        );
    }
    text + "."
}

/// Was the processor time of its processes taken? Not where what counts is the time until something happens, or memory.
fn is_metered(line: &Line) -> bool {
    !line.cpu_us.is_empty()
}

fn table(text: &mut String, cell: &str, lines: &[Line]) -> anyhow::Result<()> {
    writeln!(text, "\n### {cell}\n")?;
    writeln!(
        text,
        "| contender | class | per second | p50 | p95 | p99 | CPU | of it | further |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
    let mut contenders: Vec<&str> = vec![];
    for line in lines.iter().filter(|line| line.cell == cell) {
        if !contenders.contains(&line.contender.as_str()) {
            contenders.push(&line.contender);
        }
    }
    contenders.sort_unstable();
    for contender in contenders {
        let own: Vec<&Line> = lines
            .iter()
            .filter(|line| line.cell == cell && line.contender == contender)
            .collect();
        let of = |read: fn(&Line) -> Option<f64>| middle(own.iter().filter_map(|line| read(line)));
        let latency =
            |read: fn(&Line) -> Option<f64>| of(read).map_or("".to_owned(), |us| format!("{} ms", figure(us / 1e3)));
        writeln!(
            text,
            "| {contender} | {} | {} | {} | {} | {} | {} | {} | {} |",
            own[0].class,
            figure(of(|line| Some(line.per_second)).unwrap_or_default()),
            latency(|line| line.p50_us.map(|us| us as f64)),
            latency(|line| line.p95_us.map(|us| us as f64)),
            latency(|line| line.p99_us.map(|us| us as f64)),
            of(|line| is_metered(line).then(|| line.cpu_total_us()))
                .map_or(String::new(), |us| format!("{} µs", figure(us))),
            parts(own.iter().map(|line| &line.cpu_us)),
            parts(own.iter().map(|line| &line.extra)),
        )?;
    }
    Ok(())
}

/// The medians of figures by name.
fn parts<'a>(lines: impl Iterator<Item = &'a BTreeMap<String, f64>>) -> String {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in lines.flatten() {
        all.entry(name).or_default().push(*value);
    }
    let parts: Vec<String> = all
        .into_iter()
        .filter_map(|(name, values)| Some(format!("{name} {}", figure(middle(values.into_iter())?))))
        .collect();
    parts.join(", ")
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    median(&values)
}

/// Three digits that matter, thousands apart.
fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place).is_multiple_of(3) && digit.is_ascii_digit() {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        hundreds if hundreds >= 100.0 => format!("{value:.0}"),
        tens if tens >= 10.0 => format!("{value:.1}"),
        ones if ones >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn figures_read_well() {
        let read: Vec<String> = [0.0437, 1.5, 63.27, 640.2, 1_000.0, 123_456.7].map(figure).to_vec();
        assert_eq!(read, ["0.044", "1.50", "63.3", "640", "1,000", "123,457"]);
    }
}
