//! Peer P2: UmaDB. `umadb-peer server <folder> <host:port> pipelined|plain` is the database, `umadb-peer clients <URL>` sends events to it.
//!
//! An event has the domain's body of a receipt, with the receipt as its tag, and is appended on condition that no event with that tag is
//! there: what a new stream is in a store without streams.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use domain::{AnyCommand, AnyState, Calendar, Companions, Home, Moment, StreamKind, StreamRef};
use jiff::Timestamp;
use umadb_client::AsyncUmaDbClient;
use umadb_dcb::{DcbAppendCondition, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem};
use umadb_server::{ServerOptions, StorageOptions};
use uuid::Uuid;

#[path = "../../../src/workload.rs"]
#[allow(dead_code, reason = "the peer sends receipts only")]
mod workload;

/// Connections, shared by the clients: one is the bottleneck of many.
const CONNECTIONS: usize = 8;

struct Nobody;

impl Companions for Nobody {
    fn find(&self, _: StreamRef) -> Option<&dyn std::any::Any> {
        None
    }
}

/// The event that the domain decides for receipt `n`, and the condition that it is the first of its stream.
fn event(n: u64) -> anyhow::Result<(DcbEvent, DcbAppendCondition)> {
    let command = AnyCommand::from(workload::receipt("p2", n, None));
    let Home::Exactly(id) = command.home() else {
        bail!("a receipt is its stream's identity")
    };
    let now = Timestamp::now();
    let decided = AnyState::initial(StreamKind::Purchase)
        .decide(command, &Moment::new(id, now, now, &Calendar::taipei(), &Nobody))
        .map_err(|rejection| anyhow::anyhow!("{rejection}"))?;
    let (event_type, body) = decided.first().context("a receipt is recorded")?.encode();
    let tag = format!("purchase/{id}");
    let query = DcbQuery::with_items([DcbQueryItem {
        types: vec![],
        tags: vec![tag.clone()],
    }]);
    let event = DcbEvent {
        event_type: event_type.to_string(),
        tags: vec![tag],
        data: body,
        uuid: Some(Uuid::now_v7()),
        metadata: vec![],
    };
    Ok((event, DcbAppendCondition::new(query)))
}

async fn clients(url: String) -> anyhow::Result<()> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Arc::new(
            AsyncUmaDbClient::connect(url.clone(), None, None, None).await?,
        ));
    }
    let counting = Arc::clone(&connections[0]);
    let count = || async { Ok(counting.head().await?.unwrap_or_default()) };
    let next = Arc::new(AtomicU64::new(1));
    let prepare = async |_: protocol::Run| {
        let (connections, next) = (connections.clone(), Arc::clone(&next));
        Ok(move || {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let connection = Arc::clone(&connections[n as usize % CONNECTIONS]);
            async move {
                let (event, condition) = event(n)?;
                connection.append(vec![event], Some(condition), None).await?;
                Ok(())
            }
        })
    };
    protocol::serve(prepare, count).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", folder, address, writer] => {
            // It ends with the process: nobody sends a word on this channel.
            let (_alive, shutdown) = tokio::sync::oneshot::channel();
            let options = ServerOptions {
                listen_addr: address.to_owned(),
                tls: None,
                api_key: None,
                storage: StorageOptions::default()
                    .db_path(Path::new(folder))
                    .pipelined_writer(writer == "pipelined"),
            };
            let served = umadb_server::start_server_with_options(options, shutdown).await;
            served.map_err(|error| anyhow::anyhow!("{error}"))
        }
        ["clients", url] => clients(url.to_owned()).await,
        _ => bail!("usage: umadb-peer server <folder> <host:port> pipelined|plain | clients <URL>"),
    }
}
