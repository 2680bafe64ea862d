//! What Linux knows of this process, under the names that Prometheus' own libraries use.

use std::fmt::Write;
use std::fs;

/// Of `/proc/self/stat`, counted from the field after the name: time in user mode, in the kernel, start, virtual memory, resident pages.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;
const VIRTUAL_BYTES: usize = 20;
const RESIDENT_PAGES: usize = 21;

/// The measurements as Prometheus text; those that the system does not tell are left out.
pub fn metrics() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name is in parentheses, and may have spaces.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let field = |number: usize| fields.get(number)?.parse::<f64>().ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    let cpu = field(USER_TICKS).zip(field(SYSTEM_TICKS));
    let start = booted_at().zip(field(START_TICKS));
    let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let told = [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            cpu.map(|(user, system)| (user + system) / ticks),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes.",
            field(RESIDENT_PAGES).map(|pages| pages * page),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory size in bytes.",
            field(VIRTUAL_BYTES),
        ),
        ("process_open_fds", "gauge", "Number of open file descriptors.", files),
        (
            "process_max_fds",
            "gauge",
            "Maximum number of open file descriptors.",
            files_max.map(|files| files as f64),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            start.map(|(booted, started)| booted + started / ticks),
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in told {
        if let Some(value) = value {
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}").expect("a string takes it");
        }
    }
    text
}

/// When the machine was started, in seconds since 1970.
fn booted_at() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_process_knows_its_memory_its_time_and_its_files() {
        let text = metrics();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        // After 2020, and not in the future of a machine that was started before.
        assert!(value("process_start_time_seconds") > 1_577_836_800.0);
    }
}
