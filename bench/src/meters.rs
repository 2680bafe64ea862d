//! What is read beside the clock: processor time of every process involved, the machine's idle share, and how long an fsync takes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Ticks of `/proc` a second: Linux shows 100 to programs on every machine.
const TICKS_PER_SECOND: f64 = 100.0;
const PROBE_WRITES: usize = 64;

/// The processes whose time counts: a name for the report, and the root of a process tree.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    roots: Vec<(String, u32)>,
}

/// What everything stood at.
pub struct Reading {
    at: Instant,
    trees: BTreeMap<String, u64>,
    machine: Machine,
}

/// What one run took.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    pub seconds: f64,
    /// Processor seconds of each process tree.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// Share of the machine's processor time that nobody used, 0 to 1.
    pub idle: f64,
    /// Share that went to processes that are not ours: noise.
    pub others: f64,
}

#[derive(Debug, Clone, Copy)]
struct Machine {
    total: u64,
    idle: u64,
}

impl Meters {
    /// Counts this process, clients and all, under `name`.
    pub fn of_this_process(name: &str) -> Meters {
        Meters::default().and(name, std::process::id())
    }

    /// Counts the tree of another process as well.
    pub fn and(mut self, name: &str, pid: u32) -> Meters {
        self.roots.push((name.to_owned(), pid));
        self
    }

    pub fn read(&self) -> anyhow::Result<Reading> {
        let processes = processes()?;
        let mut counted: Vec<u32> = self.roots.iter().map(|(_, pid)| *pid).collect();
        counted.sort_unstable();
        let mut trees = BTreeMap::new();
        for (name, root) in &self.roots {
            if !processes.contains_key(root) {
                bail!("the process of {name} is gone");
            }
            let ticks = tree(*root, &processes, &counted);
            *trees.entry(name.clone()).or_default() += ticks;
        }
        Ok(Reading {
            at: Instant::now(),
            trees,
            machine: machine()?,
        })
    }

    /// What was used since `start`.
    pub fn since(&self, start: &Reading) -> anyhow::Result<Usage> {
        let end = self.read()?;
        let cpu_seconds: BTreeMap<String, f64> = end
            .trees
            .iter()
            .map(|(name, ticks)| {
                let before = start.trees.get(name).copied().unwrap_or_default();
                (name.clone(), ticks.saturating_sub(before) as f64 / TICKS_PER_SECOND)
            })
            .collect();
        let total = (end.machine.total - start.machine.total).max(1) as f64;
        let idle = end.machine.idle.saturating_sub(start.machine.idle) as f64 / total;
        let ours = cpu_seconds.values().sum::<f64>() * TICKS_PER_SECOND / total;
        Ok(Usage {
            seconds: (end.at - start.at).as_secs_f64(),
            cpu_seconds,
            idle,
            others: (1.0 - idle - ours).max(0.0),
        })
    }
}

struct Process {
    parent: u32,
    /// Of the process and of its children that have ended.
    ticks: u64,
}

fn processes() -> anyhow::Result<HashMap<u32, Process>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").context("there is no /proc: the meters need Linux")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // It may have ended meanwhile; then its parent has its time.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if let Some(process) = process(&stat) {
            found.insert(pid, process);
        }
    }
    Ok(found)
}

/// Reads a line of `/proc/<pid>/stat`. The name stands in brackets and may hold anything.
fn process(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // Counted from the state, the third field of the whole line: utime, stime, cutime, cstime.
    let ticks = [11, 12, 13, 14].into_iter().map(number).sum::<Option<u64>>()?;
    Some(Process {
        parent: u32::try_from(number(1)?).ok()?,
        ticks,
    })
}

/// The time of a process and all below it, but not below another root: that one is counted by itself.
fn tree(root: u32, processes: &HashMap<u32, Process>, roots: &[u32]) -> u64 {
    let mut ticks = 0;
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        ticks += processes.get(&pid).map_or(0, |process| process.ticks);
        let children = processes.iter().filter(|(_, process)| process.parent == pid);
        open.extend(
            children
                .map(|(pid, _)| *pid)
                .filter(|pid| roots.binary_search(pid).is_err()),
        );
    }
    ticks
}

fn machine() -> anyhow::Result<Machine> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    // user nice system idle iowait irq softirq steal; guest time is within user.
    let numbers: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|text| text.parse().ok())
        .collect();
    let [_, _, _, idle, iowait, ..] = numbers[..] else {
        bail!("/proc/stat is not as expected");
    };
    Ok(Machine {
        total: numbers.iter().sum(),
        idle: idle + iowait,
    })
}

/// The median time of a 4 KiB write and its fsync in `folder`.
pub fn fsync_probe(folder: &Path) -> anyhow::Result<Duration> {
    let path = folder.join("fsync-probe");
    let mut file = fs::File::create(&path)?;
    let block = [7_u8; 4096];
    let mut times = Vec::with_capacity(PROBE_WRITES);
    for _ in 0..PROBE_WRITES {
        let started = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times[PROBE_WRITES / 2])
}

/// Memory that a process holds, in bytes.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.context("/proc tells no VmRSS")? * 1024)
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 0 0 11 22 33 44 20 0 1 0 5 6 7";
        let process = process(stat).unwrap();
        assert_eq!((process.parent, process.ticks), (3, 110));
    }

    #[test]
    fn a_root_below_another_is_counted_once() {
        let process = |parent, ticks| Process { parent, ticks };
        let processes = HashMap::from([
            (1, process(0, 1)),
            (2, process(1, 10)),
            (3, process(2, 100)),
            (4, process(1, 1000)),
        ]);
        assert_eq!(tree(1, &processes, &[1, 2]), 1001);
        assert_eq!(tree(2, &processes, &[1, 2]), 110);
    }

    #[test]
    fn this_process_uses_time() {
        let meters = Meters::of_this_process("here");
        let start = meters.read().unwrap();
        let until = Instant::now() + Duration::from_millis(60);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let usage = meters.since(&start).unwrap();
        assert!(usage.cpu_seconds["here"] > 0.0 && usage.seconds >= 0.06, "{usage:?}");
    }
}
