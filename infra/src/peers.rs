//! Other processes of the installation, over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use domain::StreamRef;
use serde::Serialize;
use services::routing::{Answer, Asked, Order, PeerSecret, Peers, SECRET_HEADER};
use services::shard::{Ack, Failure, Lane, Peeked, Request};
use services::why::Why;

/// How long a connection may take to come about: nodes are near each other.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// So much longer than its time the answer may take on its way.
const ON_THE_WAY: Duration = Duration::from_millis(200);

/// Asks other processes; connections are kept.
pub struct HttpPeers {
    http: reqwest::Client,
    secret: PeerSecret,
}

/// Why no answer came.
enum Silence {
    /// The request did not leave this process.
    NotSent(String),
    /// It arrived, and was not taken.
    Refused(String),
    /// It may have arrived.
    Broken(String),
}

impl HttpPeers {
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(secret: PeerSecret) -> anyhow::Result<HttpPeers> {
        // No proxy, no redirect: the secret goes to the address of the claim, and nowhere else.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let http = http.build()?;
        Ok(HttpPeers { http, secret })
    }

    async fn ask(&self, url: String, question: &impl Serialize, within: Duration) -> Result<Answer, Silence> {
        let asked = self.http.post(url).json(question).timeout(within + ON_THE_WAY);
        let asked = asked.header(SECRET_HEADER, self.secret.expose());
        let answer = asked.send().await.map_err(|error| {
            let why = error.is_connect();
            let text = error.without_url().to_string();
            match why {
                true => Silence::NotSent(text),
                false => Silence::Broken(text),
            }
        })?;
        let broken = |error: reqwest::Error| Silence::Broken(error.without_url().to_string());
        match answer.status().as_u16() {
            404 => {
                return Err(Silence::Refused(
                    "it does not know this process; all of one log need the same secret".into(),
                ));
            }
            status @ 400..500 => return Err(Silence::Refused(format!("it answered {status}"))),
            _ => {}
        }
        answer.error_for_status().map_err(broken)?.json().await.map_err(broken)
    }
}

#[async_trait]
impl Peers for HttpPeers {
    async fn execute(
        &self,
        address: &str,
        shard: u16,
        request: &Request,
        lane: Lane,
        within: Duration,
    ) -> Result<Ack, Failure> {
        let url = format!("http://{address}/internal/shards/{shard}/commands");
        let Some(order) = Order::of(request, lane, within.as_millis() as u64) else {
            return Err(Failure::NotAccepted(
                "events that were decided already are sent to no other process".into(),
            ));
        };
        match self.ask(url, &order, within).await {
            Ok(answer) => answer.command(),
            Err(Silence::NotSent(why)) => Err(Failure::Elsewhere(Why::hiding(
                format!("the process that serves shard {shard} cannot be reached"),
                format!("{address}: {why}"),
            ))),
            Err(Silence::Refused(why)) => Err(Failure::Elsewhere(Why::hiding(
                format!("the process that serves shard {shard} took nothing"),
                format!("{address}: {why}"),
            ))),
            Err(Silence::Broken(why)) => Err(Failure::OutcomeUnknown(Why::hiding(
                format!("the process that serves shard {shard} gave no answer"),
                format!("{address}: {why}"),
            ))),
        }
    }

    async fn peek(&self, address: &str, shard: u16, stream: StreamRef, within: Duration) -> Result<Peeked, Failure> {
        let url = format!("http://{address}/internal/shards/{shard}/states");
        let asked = Asked {
            stream: stream.to_string(),
            within_ms: within.as_millis() as u64,
        };
        match self.ask(url, &asked, within).await {
            Ok(answer) => answer.peeked(stream.kind),
            Err(Silence::NotSent(why) | Silence::Refused(why) | Silence::Broken(why)) => {
                Err(Failure::Elsewhere(Why::hiding(
                    format!("the process that serves shard {shard} gave no answer"),
                    format!("{address}: {why}"),
                )))
            }
        }
    }

    async fn serves(&self, address: &str, shard: u16, within: Duration) -> bool {
        let url = format!("http://{address}/internal/shards/{shard}/served");
        let asked = self
            .http
            .get(url)
            .timeout(within)
            .header(SECRET_HEADER, self.secret.expose());
        let Ok(answer) = asked.send().await else { return false };
        answer.status().is_success() && answer.json().await.unwrap_or(false)
    }
}
