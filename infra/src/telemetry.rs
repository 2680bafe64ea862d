//! Logs to standard error, metrics for Prometheus.

mod process;

pub use process::metrics as process_metrics;

use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// How often measurements are counted into their buckets. Until then each one is kept.
const COUNTED_EVERY: Duration = Duration::from_secs(5);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging: `RUST_LOG` says how much. Otherwise librdkafka's own lines are left out: it calls the end of a partition an error, and
/// what really goes wrong is logged by those who meet it.
pub fn start_logging(format: LogFormat, default_level: &str) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("{default_level},librdkafka=off")));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => logs.with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
}

/// Collects metrics; the handle renders them as Prometheus text.
///
/// # Errors
/// When metrics are collected already.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let seconds = [
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
    ];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("seconds".into()), &seconds)?
        .install_recorder()?;
    services::http::describe_metrics();
    Ok(handle)
}

/// Keeps the memory of measurements bounded, whether anybody asks for them or not.
pub async fn count_measurements(handle: PrometheusHandle, mut stop: tokio::sync::watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(COUNTED_EVERY) => handle.run_upkeep(),
            _ = stop.changed() => return,
        }
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    fn resident_bytes() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
    }

    #[tokio::test(start_paused = true)]
    async fn measurements_that_nobody_asks_for_take_no_memory() {
        const ROUNDS: usize = 100;
        const MEASUREMENTS: usize = 200_000;
        let handle = start_metrics().unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let counting = tokio::spawn(count_measurements(handle.clone(), stopped));
        let before = resident_bytes();
        for _ in 0..ROUNDS {
            let measured = metrics::histogram!("spec_seconds");
            (0..MEASUREMENTS).for_each(|_| measured.record(0.003));
            tokio::time::sleep(2 * COUNTED_EVERY).await;
        }
        // Each takes eight bytes while it is kept.
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 8 * MEASUREMENTS * ROUNDS / 2, "{grown} bytes");
        let told = handle.render();
        assert!(
            told.contains(&format!("spec_seconds_count {}", ROUNDS * MEASUREMENTS)),
            "{told}"
        );
        stop.send_replace(true);
        counting.await.unwrap();
    }
}
