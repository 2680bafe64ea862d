//! A lean HTTP client: one connection, one request at a time, nothing parsed but status and length. And programs that serve HTTP.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Bytes of an answer's head at most.
const HEAD_MAX: usize = 16 * 1024;

pub struct HttpConnection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl HttpConnection {
    pub async fn open(address: &str) -> anyhow::Result<HttpConnection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(HttpConnection {
            stream,
            buffer: Vec::with_capacity(4_096),
        })
    }

    pub async fn post(&mut self, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
        let mut request = Vec::with_capacity(body.len() + 160);
        request.extend_from_slice(b"POST ");
        request.extend_from_slice(path.as_bytes());
        request
            .extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ");
        request.extend_from_slice(body.len().to_string().as_bytes());
        request.extend_from_slice(b"\r\n\r\n");
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        self.answer().await
    }

    pub async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> anyhow::Result<Answer> {
        self.buffer.clear();
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(self.buffer.len() < HEAD_MAX, "the head of an answer has no end");
            ensure!(
                self.stream.read_buf(&mut self.buffer).await? > 0,
                "the connection was closed"
            );
        };
        let head = std::str::from_utf8(&self.buffer[..head_end])?;
        let status = head.get(9..12).and_then(|text| text.parse().ok());
        let status = status.context("the answer has no status")?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        let end = head_end + length.context("the answer does not say how long it is")?;
        while self.buffer.len() < end {
            ensure!(
                self.stream.read_buf(&mut self.buffer).await? > 0,
                "the connection was closed"
            );
        }
        Ok(Answer {
            status,
            body: self.buffer[head_end..end].to_vec(),
        })
    }
}

/// A program that serves HTTP, ended with its value.
pub struct Server {
    pub address: String,
    child: Child,
}

impl Server {
    /// Starts `program` and waits until it takes connections at `address`.
    pub async fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        address: &str,
        log_file: Option<&Path>,
    ) -> anyhow::Result<Server> {
        let said = match log_file {
            Some(path) => Stdio::from(std::fs::File::create(path)?),
            None => Stdio::inherit(),
        };
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let mut server = Server {
            address: address.to_owned(),
            child,
        };
        for _ in 0..600 {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{} has ended while starting: {status}", program.display());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("{} does not listen on {address}", program.display())
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// As an operator ends it: SIGTERM, and what it has accepted is answered and saved.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.pid().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().await?;
        ensure!(asked.success(), "the server could not be asked to end");
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        ended.context("the server does not end")??;
        Ok(())
    }

    /// As a crash: SIGKILL.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }
}

/// `crm serve` of these places; what it says goes into `log_file`, if any.
pub async fn crm_serve(
    program: &Path,
    log: &str,
    views: &str,
    more: &[&str],
    log_file: Option<&Path>,
) -> anyhow::Result<Server> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut arguments = vec!["serve", "--listen", &address];
    arguments.extend(more);
    let level = if log_file.is_some() {
        "info,rdkafka=off"
    } else {
        "warn,rdkafka=off"
    };
    let environment = [("CRM_LOG", log), ("CRM_VIEWS", views), ("RUST_LOG", level)];
    Server::start(program, &arguments, &environment, &address, log_file).await
}

/// The shards that this process owns.
pub async fn owned_shards(address: &str) -> anyhow::Result<Vec<u64>> {
    let answer = HttpConnection::open(address).await?.get("/api/status").await?;
    let status: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let shards = status["shards"].as_array().context("the status tells of shards")?;
    let owned = shards.iter().filter(|shard| shard["owned"] == true);
    Ok(owned.filter_map(|shard| shard["shard"].as_u64()).collect())
}

/// Waits until these processes own all shards, one each at least if there are as many.
pub async fn wait_until_owned(addresses: &[&str], shards: u16, within: Duration) -> anyhow::Result<()> {
    let wait = async {
        loop {
            let mut owned = vec![];
            let mut least = usize::MAX;
            for address in addresses {
                let own = owned_shards(address).await?;
                least = least.min(own.len());
                owned.extend(own);
            }
            owned.sort_unstable();
            owned.dedup();
            let is_spread = least > 0 || usize::from(shards) < addresses.len();
            if owned.len() == usize::from(shards) && is_spread {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(within, wait)
        .await
        .context("not all shards are owned in time")?
}

/// A port on loopback that nobody listens on.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
