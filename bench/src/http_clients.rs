//! Clients of a server, each with a connection that it keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use async_trait::async_trait;
use services::log::EventLog;
use tokio::sync::Mutex;

use crate::http::{HttpConnection, Server};
use crate::load::{Load, Measured, closed_loop};
use crate::meters::Meters;
use crate::ours;
use crate::session::{Class, Contender};

/// They post receipts.
pub struct HttpClients {
    name: &'static str,
    class: Class,
    server: Server,
    next: Arc<AtomicU64>,
    acked: Arc<AtomicU64>,
    /// The log of the server, if it has one.
    log: Option<Arc<dyn EventLog>>,
    connections: Vec<Arc<Mutex<HttpConnection>>>,
}

impl HttpClients {
    pub fn new(name: &'static str, class: Class, server: Server) -> HttpClients {
        HttpClients {
            name,
            class,
            server,
            next: Arc::new(AtomicU64::new(1)),
            acked: Arc::default(),
            log: None,
            connections: vec![],
        }
    }

    /// What is acked is looked for in this log.
    pub fn with_log(mut self, log: Arc<dyn EventLog>) -> HttpClients {
        self.log = Some(log);
        self
    }
}

#[async_trait]
impl Contender for HttpClients {
    fn name(&self) -> String {
        self.name.into()
    }

    fn class(&self) -> Class {
        self.class
    }

    async fn run(&mut self, load: Load, meters: &Meters) -> anyhow::Result<Measured> {
        while self.connections.len() < load.clients {
            let connection = HttpConnection::open(&self.server.address).await?;
            self.connections.push(Arc::new(Mutex::new(connection)));
        }
        let meters = meters.clone().and("server", self.server.pid());
        let (connections, next, acked) = (
            self.connections.clone(),
            Arc::clone(&self.next),
            Arc::clone(&self.acked),
        );
        closed_loop(load, &meters, move |client| {
            let (connection, acked) = (Arc::clone(&connections[client]), Arc::clone(&acked));
            let n = next.fetch_add(1, Ordering::Relaxed);
            let body = ours::receipt("h", n).1.to_json().to_string();
            async move {
                let answer = connection.lock().await.post("/api/purchase", body.as_bytes()).await?;
                let text = String::from_utf8_lossy(&answer.body);
                ensure!(answer.status == 201, "the answer was {}: {text}", answer.status);
                acked.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .await
    }

    async fn check(&mut self) -> anyhow::Result<()> {
        match &self.log {
            Some(log) => ours::compare(
                self.acked.load(Ordering::Relaxed),
                ours::audited_events(log.as_ref()).await?,
            ),
            None => Ok(()),
        }
    }
}
