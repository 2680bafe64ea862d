//! Clients: each wants one thing after the other, and asks any node, again and again with the same id, until it knows what came of it.

use std::sync::Arc;
use std::time::Duration;

use domain::Actor;

use super::answers::{Outcome, ask, check_peek, hear, hear_reuse};
use super::cluster::{Cluster, Node};
use super::orders::{Order, command_id, order};
use crate::commands::{Accepted, CommandFailure, Terms};
use crate::shard::{Lane, Who};

/// Attempts after which an impatient client walks away.
const PATIENCE: u64 = 3;

pub async fn client(cluster: Arc<Cluster>, number: u64) {
    let world = Arc::clone(&cluster.world);
    for turn in 0..world.weather.commands_per_client {
        if world.is_calm() {
            return;
        }
        world.sleep(world.luck.below(world.weather.think_ms_max + 1)).await;
        let order = order(&world, command_id(&world, number, turn));
        world.count("commands");
        let patience = if world.luck.chance(60) { PATIENCE } else { u64::MAX };
        insist(&cluster, &order, patience).await;
        match world.luck.below(30) {
            0 => send_another_content(&cluster, &order).await,
            1 => look(&cluster, &order).await,
            2 => drop(attempt(&cluster, &order).await),
            _ => {}
        }
    }
}

/// Asks until the answer is final, or patience is at its end.
pub async fn insist(cluster: &Arc<Cluster>, order: &Order, patience: u64) {
    let world = &cluster.world;
    let mut attempts = 0;
    loop {
        let twice = world.strikes("network: sent twice", world.weather.rates.sent_twice);
        let outcome = match twice {
            true => {
                let later_ms = world.luck.below(20);
                let twin = async {
                    world.sleep(later_ms).await;
                    attempt(cluster, order).await
                };
                let (one, two) = futures::join!(attempt(cluster, order), twin);
                if one == Outcome::Final { one } else { two }
            }
            false => attempt(cluster, order).await,
        };
        attempts += 1;
        if outcome == Outcome::Final {
            return;
        }
        if attempts >= patience && !world.is_calm() {
            world.count("commands given up");
            return;
        }
        world.sleep(world.luck.magnitude(1, 200)).await;
    }
}

/// One attempt at a node.
async fn attempt(cluster: &Arc<Cluster>, order: &Order) -> Outcome {
    let world = &cluster.world;
    let question = ask(world, order);
    let answer = send(cluster, order).await;
    hear(world, order, &question, answer.as_ref())
}

/// Sends an order over the network to a node; `None` = no answer came in time.
async fn send(cluster: &Arc<Cluster>, order: &Order) -> Option<Result<Accepted, CommandFailure>> {
    let world = &cluster.world;
    let node = any_node(cluster)?;
    let wait = Duration::from_millis(world.luck.magnitude(1_000, 15_000));
    let terms = Terms {
        command_id: Some(order.given),
        effective_at: None,
        who: Who::new(Actor::system("client")),
        lane: if world.luck.chance(150) {
            Lane::Imports
        } else {
            Lane::People
        },
        strict: false,
        upsert: false,
    };
    let bundle = order.steps.iter().map(super::orders::Wish::incoming).collect();
    let call = async {
        world.latency().await;
        node.process.pass().await;
        let answer = node.door.send_bundle(bundle, terms).await;
        node.process.pass().await;
        world.latency().await;
        answer
    };
    let answer = tokio::time::timeout(wait, call).await.ok();
    match world.strikes("network: answer lost", world.weather.rates.network_lost) {
        true => None,
        false => answer,
    }
}

fn any_node(cluster: &Cluster) -> Option<Arc<Node>> {
    cluster.node(cluster.world.luck.below(cluster.nodes() as u64) as usize)
}

/// The same id with another content: refused, when the first one is known to have been applied.
async fn send_another_content(cluster: &Arc<Cluster>, order: &Order) {
    let world = &cluster.world;
    let applied = {
        let truth = world.truth.lock().expect("no panic under the lock");
        truth.applied(order.shard, order.command_id).is_some()
    };
    if !applied {
        return;
    }
    let mut other = order.clone();
    other.steps.truncate(1);
    other.steps[0].command = match order.steps[0].stream.kind {
        domain::StreamKind::Customer => serde_json::json!({"type": "assign-owner", "owner": "somebody else"}),
        domain::StreamKind::Opportunity => serde_json::json!({"type": "lose", "reason": "another reason"}),
        domain::StreamKind::Case => serde_json::json!({"type": "escalate", "reason": "another reason"}),
        _ => serde_json::json!({"type": "adjust", "points": 7, "reason": "another reason"}),
    };
    let answer = send(cluster, &other).await;
    hear_reuse(world, &other, order.command_id, answer.as_ref());
}

async fn look(cluster: &Arc<Cluster>, order: &Order) {
    let Some(node) = any_node(cluster) else { return };
    let stream = order.steps[0].stream;
    let call = async {
        node.process.pass().await;
        let shown = node.door.peek(stream).await;
        node.process.pass().await;
        shown
    };
    if let Ok(Ok((state, version))) = tokio::time::timeout(Duration::from_secs(5), call).await {
        cluster.world.count("peeks");
        check_peek(&cluster.world, order.shard, stream, &state, version);
    }
}
