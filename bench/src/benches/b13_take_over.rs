//! B13: from the death of a process to the first acks on another node; and from the start of one to its first ack.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use domain::slot_of;
use jiff::Timestamp;

use super::Bench;
use crate::history::{self, Kind};
use crate::http::{HttpConnection, Server, crm_serve, owned_shards, wait_until_owned};
use crate::load::{Load, Measured};
use crate::meters::{Meters, Usage};
use crate::ours;
use crate::places::Places;
use crate::session::{Class, Contender, Session};
use crate::target::{ALONE, Bound, Figure, Target};

pub struct TakeOver;

const SHARDS: [u16; 2] = [1, 8];
const CELL: &str = "two nodes, one killed";
const RESTART: &str = "one node, started again, 8 shards";
const LONG: &str = "long history";
const SHORT: &str = "a hundredth of it";
/// Without a sign of life for so long, the group takes a node's shards away: what a broker allows at least by default.
const SESSION_TIMEOUT: &str = "6";
/// The first start after a history was written replays it into states.
const FIRST_START_WITHIN: Duration = Duration::from_secs(3_600);
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(120);

fn name(shards: u16) -> &'static str {
    match shards {
        1 => "1 shard",
        _ => "8 shards",
    }
}

#[async_trait]
impl Bench for TakeOver {
    fn id(&self) -> &'static str {
        "B13"
    }

    fn title(&self) -> &'static str {
        "Take-over"
    }

    fn how(&self) -> &'static str {
        "Two `crm serve --no-projections --session-timeout 6` share a Kafka log with a long history, states in PostgreSQL. The one with more \
         shards gets SIGKILL; receipts for each of its shards are posted to the other, one at a time per shard, until one is acked. \
         `first_ack_s` and `last_ack_s` count from the kill to the first ack of the first and of the last shard. The parts are from the \
         survivor's log: `detected_s` until the group assigns the dead node's shards to it; `taken_s` from there until it has taken over \
         the last (read to the end, claim, read back, load the watermark); `acked_s` from there to the last first ack. Then one node is stopped and started again, on that history and on one of a hundredth \
         of its length: `first_ack_s` counts from the start of the process."
    }

    fn targets(&self) -> Vec<Target> {
        let figures = ["first_ack_s", "last_ack_s", "detected_s", "taken_s", "acked_s"];
        let of = |shards| {
            figures.map(|figure| Target {
                cell: CELL.into(),
                ours: name(shards),
                against: ALONE,
                figure: Figure::Extra(figure),
                bound: Bound::Shown,
            })
        };
        let restart = Target {
            cell: RESTART.into(),
            ours: LONG,
            against: SHORT,
            figure: Figure::Extra("first_ack_s"),
            bound: Bound::AtMost(2.0),
        };
        SHARDS.into_iter().flat_map(of).chain([restart]).collect()
    }

    async fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let events = session.extent.events();
        session.note("events of the history", events);
        session.extent.rounds = session.extent.rounds.min(5);
        let one = nodes(session, 1, events).await?;
        let eight = nodes(session, 8, events).await?;
        let short = nodes(session, 8, events / 100).await?;
        // Those that are started again have the same log and states, and receipts of their own.
        let long = Nodes {
            next: 1_000_000,
            ..eight.clone()
        };
        let load = session.extent.load(1);
        let mut killed: Vec<Box<dyn Contender>> = vec![Box::new(one), Box::new(eight)];
        session.cell(CELL, load, &mut killed).await?;
        let restart = |name, nodes| -> Box<dyn Contender> { Box::new(Restart { nodes, name }) };
        let mut restarted = vec![restart(SHORT, short), restart(LONG, long)];
        session.cell(RESTART, load, &mut restarted).await
    }
}

/// Nodes on a history that was replayed into states once, so that what is measured is a take-over and not that.
async fn nodes(session: &mut Session, shards: u16, events: u64) -> anyhow::Result<Nodes> {
    let places = session.places.clone();
    let (log, _) = history::shared(&places, shards, Kind::Mixed, events).await?;
    let views = places.database("b13").await?;
    let nodes = Nodes {
        places,
        log,
        views,
        shards,
        next: 1,
    };
    let started = Instant::now();
    let first = nodes.serve("first").await?;
    wait_until_owned(&[&first.address], shards, FIRST_START_WITHIN).await?;
    session.note(
        &format!("seconds to replay {events} events, {}", name(shards)),
        started.elapsed().as_secs(),
    );
    first.stop().await?;
    Ok(nodes)
}

/// One node that is started again, from its start to its first ack.
struct Restart {
    nodes: Nodes,
    name: &'static str,
}

#[async_trait]
impl Contender for Restart {
    fn name(&self) -> String {
        self.name.into()
    }

    fn class(&self) -> Class {
        Class::D0
    }

    async fn run(&mut self, _: Load, _: &Meters) -> anyhow::Result<Measured> {
        let body = self.nodes.receipt_in(0);
        let started = Instant::now();
        let node = self.nodes.serve("again").await?;
        let seconds = first_ack(&node.address, &body, started).await?.as_secs_f64();
        node.stop().await?;
        let usage = Usage {
            seconds,
            ..Usage::default()
        };
        Ok(Measured::job(1, usage).with("first_ack_s", seconds))
    }
}

#[derive(Clone)]
struct Nodes {
    places: Places,
    log: String,
    views: String,
    shards: u16,
    next: u64,
}

impl Nodes {
    async fn serve(&self, name: &str) -> anyhow::Result<Server> {
        let said = self.places.folder.join(format!("b13-{name}.log"));
        let more = ["--no-projections", "--session-timeout", SESSION_TIMEOUT];
        crm_serve(&self.places.crm, &self.log, &self.views, &more, Some(&said)).await
    }

    /// A receipt whose stream is in this shard.
    fn receipt_in(&mut self, shard: u64) -> String {
        loop {
            let (stream, command) = ours::receipt("t", self.next);
            self.next += 1;
            if u64::from(slot_of(stream.id).shard(self.shards)) == shard {
                return command.to_json().to_string();
            }
        }
    }
}

#[async_trait]
impl Contender for Nodes {
    fn name(&self) -> String {
        name(self.shards).into()
    }

    fn class(&self) -> Class {
        Class::D0
    }

    async fn run(&mut self, _: Load, _: &Meters) -> anyhow::Result<Measured> {
        let said = self.places.folder.join("b13-one.log");
        let mut one = self.serve("one").await?;
        let mut other = self.serve("other").await?;
        wait_until_owned(&[&one.address, &other.address], self.shards, TAKEN_OVER_WITHIN).await?;
        let mut said_by_survivor = self.places.folder.join("b13-other.log");
        let mut shards = owned_shards(&one.address).await?;
        let others = owned_shards(&other.address).await?;
        if others.len() > shards.len() {
            std::mem::swap(&mut one, &mut other);
            (shards, said_by_survivor) = (others, said);
        }
        let bodies: Vec<String> = shards.iter().map(|shard| self.receipt_in(*shard)).collect();
        let killed_at = Timestamp::now();
        let killed = Instant::now();
        one.kill().await?;
        let posts = bodies.into_iter().map(|body| {
            let address = other.address.clone();
            tokio::spawn(async move { first_ack(&address, &body, killed).await })
        });
        let mut acked: Vec<f64> = vec![];
        for post in futures::future::join_all(posts).await {
            acked.push(post??.as_secs_f64());
        }
        acked.sort_by(f64::total_cmp);
        let (first, last) = (acked[0], acked[acked.len() - 1]);
        let (assigned, taken) = parts(&said_by_survivor, killed_at)?;
        other.stop().await?;
        let usage = Usage {
            seconds: last,
            ..Usage::default()
        };
        Ok(Measured::job(acked.len() as u64, usage)
            .with("first_ack_s", first)
            .with("last_ack_s", last)
            .with("detected_s", assigned)
            .with("taken_s", taken - assigned)
            .with("acked_s", last - taken))
    }
}

/// Posts until it is acked, and answers how long after `since` that was.
async fn first_ack(address: &str, body: &str, since: Instant) -> anyhow::Result<Duration> {
    loop {
        ensure!(since.elapsed() < TAKEN_OVER_WITHIN, "the shard was not taken over");
        let mut connection = HttpConnection::open(address).await?;
        let answer = tokio::time::timeout(
            Duration::from_millis(500),
            connection.post("/api/purchase", body.as_bytes()),
        )
        .await;
        match answer {
            Ok(Ok(answer)) if matches!(answer.status, 200 | 201) => return Ok(since.elapsed()),
            Ok(Ok(answer)) => ensure!(answer.status >= 500, "the answer was {}", answer.status),
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Seconds from the kill until the survivor said that it was assigned shards last, and until it said that it took one over last.
fn parts(said: &Path, killed: Timestamp) -> anyhow::Result<(f64, f64)> {
    let text = std::fs::read_to_string(said)?;
    let last = |what: &str| -> anyhow::Result<f64> {
        let lines = text.lines().filter(|line| line.contains(what));
        let times = lines.filter_map(|line| line.split_ascii_whitespace().next()?.parse::<Timestamp>().ok());
        let after = times.filter(|time| *time > killed);
        let time = after
            .max()
            .with_context(|| format!("the survivor's log does not say {what:?}"))?;
        Ok((time - killed).total(jiff::Unit::Second)?)
    };
    Ok((last("is assigned shards by the group")?, last("took over the shard")?))
}
