//! `crm demo`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use projections::{Group, LIMIT_MAX, Question, ReadModel};
use services::shard::ShardConfig;
use services::views::Ask;

use super::import::{ends, send_shown, wait_until_read};
use super::output::out;
use super::serve::{Serve, Sharing};
use super::table::Shown;
use crate::config::{Places, Settings, Use};
use crate::demo::{Scale, lines};
use crate::import::Sender;
use crate::runtime::Parts;
use crate::secrets::Url;

/// Where the demo lives when nothing else is said, apart from real data.
const DEMO_DATA: &str = "sqlite:data/demo";

/// Make a believable company of about 100,000 events, show it, and serve it
///
/// Makes a believable Taiwanese equipment and retail company: leads, deals, cases, equipment, inspections, jobs, till
/// sales and points of two years. Every command goes through the same door as anyone's. Run again, it finds all done.
#[derive(Debug, Args)]
pub struct Demo {
    /// Print the summaries and end, instead of serving
    #[arg(long)]
    once: bool,
    /// A small company of a few thousand events
    #[arg(long)]
    small: bool,
    /// Address for HTTP
    #[arg(long, env = "CRM_LISTEN")]
    listen: Option<String>,
}

/// What is shown: title, read model, and how many of its last rows.
const SUMMARIES: [(&str, &str, usize); 6] = [
    ("Open sales pipeline 業務管線", "pipeline", 12),
    ("Forecast by close month 銷售預測", "forecast", 10),
    ("Won and lost, latest months 贏單率", "win_rate", 6),
    ("Open cases by state and age 未結案件", "backlog", 15),
    ("Sales by month and store 每月銷售", "sales_by_month", 9),
    ("Points owed by month of expiry 點數負債", "loyalty_liability", 8),
];

impl Demo {
    pub async fn run(self, places: &Places, mut settings: Settings) -> anyhow::Result<ExitCode> {
        if places.log.is_none() && places.config.is_none() {
            settings.log = Url::new(DEMO_DATA);
        }
        if places.views.is_none() && places.config.is_none() {
            settings.views = Url::new(DEMO_DATA);
        }
        let log = settings.open_log(Use::Write)?;
        let parts = Parts::open(&settings, log).await?;
        let scale = if self.small { Scale::Small } else { Scale::Full };
        self.fill(&settings, &parts, scale).await?;
        self.show(&parts).await?;
        if self.once {
            return Ok(ExitCode::SUCCESS);
        }
        let listen = self.listen.unwrap_or_else(|| settings.listen.clone());
        out!("\nserving on http://{listen}/ — Ctrl-C ends it");
        Serve {
            listen: Some(listen),
            no_projections: false,
            command_timeout: 30,
            advertise: None,
            unread_max: services::watch::UNREAD_FOR_DEFAULT.as_secs(),
            allowed_hosts: vec![],
            sharing: Sharing::default(),
        }
        .serve(&settings, parts.reopened())
        .await
    }

    async fn fill(&self, settings: &Settings, parts: &Parts, scale: Scale) -> anyhow::Result<()> {
        let started = Instant::now();
        let ends = ends(parts.log.as_ref()).await?;
        let writer = parts.start_writer(settings, "", ShardConfig::default());
        let projecting = parts.start_workers(Group::ALL.to_vec());
        out!("making two years of a company in {} …", parts.log.address());
        let commands = Box::new(lines(scale, &parts.opened.calendar).map(Ok));
        let sender = Sender::Local {
            commands: writer.commands.clone(),
            strict: false,
        };
        let report = send_shown(commands, sender, &ends, 0, || 0).await?;
        let made = started.elapsed().as_secs_f64();
        wait_until_read(parts, &Group::ALL).await?;
        let read = started.elapsed().as_secs_f64();
        parts.stop();
        writer.ended().await;
        projecting.ended().await?;
        out!(
            "{} events by {} commands in {made:.1} s, read models after {read:.1} s; {} commands were done before, {} rejected",
            report.events,
            report.applied,
            report.unchanged,
            report.rejected
        );
        for finding in report.findings.iter().take(5) {
            eprintln!("{}, {}: {}", finding.file, finding.line, finding.reason);
        }
        Ok(())
    }

    async fn show(&self, parts: &Parts) -> anyhow::Result<()> {
        let queries = Arc::new(parts.queries());
        let calendar = queries.calendar();
        let today = crate::demo::last_day(calendar);
        for (title, name, last) in SUMMARIES {
            let model = ReadModel::find(name).ok_or_else(|| anyhow::anyhow!("there is no read model {name}"))?;
            let mut question = Question {
                limit: Some(LIMIT_MAX),
                now: Some(today),
                ..queries.question()
            };
            if name == "pipeline" {
                // Of a day it shows sums by stage, of now each deal.
                question.as_of = Some(today);
            }
            let mut answer = queries.ask(model, Ask::of(question)).await?.answer;
            answer.rows.drain(..answer.rows.len().saturating_sub(last));
            out!("\n{title}\n{}", Shown::table(calendar).render(&answer)?);
        }
        Ok(())
    }
}
