//! A real PostgreSQL: databases on the one shared by all suites, and servers of a test's own that it may kill.

use std::future::Future;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::child::Process;
use crate::port::free_port;
use crate::setting;

// PostgreSQL refuses to run as root; this account comes with Debian's package.
const UNPRIVILEGED_USER: &str = "postgres";

const READY_MAX: Duration = Duration::from_secs(60);
const QUIT_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
// What a new postmaster says while the killed one's children still hold its memory.
const OLD_CHILDREN_LIVE: &str = "pre-existing shared memory block";

/// The URL of the PostgreSQL that all suites share (`CRM_TEST_POSTGRES`). Its user may create databases.
pub fn shared_postgres() -> String {
    setting("CRM_TEST_POSTGRES")
}

/// A fresh, empty database on the shared server, dropped with this value.
pub struct Database {
    name: String,
    url: String,
}

impl Database {
    /// Creates it under a name of its own.
    #[allow(
        clippy::disallowed_methods,
        reason = "a name that must differ from run to run, and decides nothing"
    )]
    pub fn create() -> Database {
        let server = shared_postgres();
        let name = format!("crm_{}", Uuid::now_v7().simple());
        let (address, _) = server
            .rsplit_once('/')
            .expect("CRM_TEST_POSTGRES ends in a database's name");
        let url = format!("{address}/{name}");

        let statement = format!("CREATE DATABASE {name}");
        execute(&server, &statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        Database { name, url }
    }

    /// `postgres://…/<this database>`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Whatever is still connected is thrown out: the test is over.
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        if let Err(error) = execute(&shared_postgres(), &statement) {
            eprintln!("{statement}: {error}");
        }
    }
}

/// A server of a test's own, dead when dropped. Its URL stays the same through kills and restarts.
pub struct Server {
    dir: PathBuf,
    port: u16,
    process: Process,
}

impl Server {
    /// Makes a new cluster in `dir`, starts it and waits until it answers. As root, `dir` must be reachable for other
    /// users, as a folder right under the system's temporary one is: PostgreSQL runs as an unprivileged user.
    pub fn start(dir: &Path) -> Server {
        create_cluster(dir);
        let port = free_port();
        let mut server = Server {
            dir: dir.to_owned(),
            port,
            process: start_process(dir, port),
        };
        server.wait_until_ready();
        server
    }

    /// `postgres://crm@127.0.0.1:<port>/postgres`; the user is a superuser, without a password.
    pub fn url(&self) -> String {
        format!("postgres://crm@127.0.0.1:{}/postgres", self.port)
    }

    /// Kills the postmaster with SIGKILL. Its children notice by themselves and end a moment later.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again in the same folder and on the same port, after killing it if it still runs, and waits until it
    /// has recovered and answers.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = start_process(&self.dir, self.port);
        self.wait_until_ready();
    }

    /// Freezes all of it: the postmaster, so that no new connection is answered and no process comes, then every process that it has,
    /// each connection's among them.
    pub fn pause(&mut self) {
        self.process.pause();
        self.process.pause_children();
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.process.resume_children();
        self.process.resume();
    }

    // The stale postmaster.pid is left in place on purpose: through it a new postmaster finds out that children of the
    // killed one still live, and two generations at work on the same files would ruin them. So it is asked again.
    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + READY_MAX;
        while let Err(error) = execute(&self.url(), "SELECT 1") {
            if let Some(status) = self.process.ended() {
                let is_too_early = self.process.log_text().contains(OLD_CHILDREN_LIVE);
                assert!(is_too_early, "postgres has ended: {status}");
                self.process = start_process(&self.dir, self.port);
            }
            assert!(
                Instant::now() < deadline,
                "postgres is not ready after {READY_MAX:?}: {error}"
            );
            thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Takes its children along, so that nobody writes to the folder any more when the test removes it.
        self.process.quit(QUIT_MAX);
    }
}

fn start_process(dir: &Path, port: u16) -> Process {
    let mut command = unprivileged("postgres");
    command.arg("-D").arg(dir.join("data")).arg("-p").arg(port.to_string());
    for option in include_str!("../../scripts/lib/postgres.options")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        command.args(["-c", option]);
    }
    // One log a start: what an earlier postmaster complained about says nothing about this one.
    let log = dir.join("postgres.log");
    let _ = std::fs::rename(&log, dir.join("postgres.before.log"));
    Process::start("postgres", command, &log)
}

fn create_cluster(dir: &Path) {
    let data = dir.join("data");
    std::fs::create_dir_all(&data).expect("create the data folder");
    if let Some(owner) = unprivileged_user() {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o711)).expect("let other users through");
        chown(&data, Some(owner), None).expect("hand the data folder over");
    }
    let output = unprivileged("initdb")
        .arg("-D")
        .arg(&data)
        .args([
            "-U",
            "crm",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ])
        .output()
        .expect("initdb runs");
    assert!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// One of PostgreSQL's programs, as the unprivileged user when we are root, dead when we die.
fn unprivileged(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if unprivileged_user().is_some() {
        let user = UNPRIVILEGED_USER;
        command.args([
            format!("--reuid={user}"),
            format!("--regid={user}"),
            "--clear-groups".to_owned(),
        ]);
    }
    command
        .arg("--")
        .arg(Path::new(&setting("CRM_POSTGRES_BIN")).join(program));
    command
}

/// The id of the user to run as, or nothing when we are not root ourselves.
fn unprivileged_user() -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let output = Command::new("id")
        .args(["-u", UNPRIVILEGED_USER])
        .output()
        .expect("id runs");
    let id = String::from_utf8_lossy(&output.stdout);
    Some(
        id.trim()
            .parse()
            .unwrap_or_else(|_| panic!("there is no user {UNPRIVILEGED_USER} to run PostgreSQL as")),
    )
}

/// One statement over a connection of its own, from async code as well as from plain.
fn execute(url: &str, statement: &str) -> Result<(), tokio_postgres::Error> {
    on_a_runtime_of_its_own(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let result = client.batch_execute(statement).await;
        drop::<Client>(client);
        let _ = connection.await;
        result
    })
}

fn on_a_runtime_of_its_own<T: Send>(work: impl Future<Output = T> + Send) -> T {
    // A thread of its own as well: a runtime cannot block inside another one's thread.
    thread::scope(|scope| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("build a runtime");
        scope
            .spawn(move || runtime.block_on(work))
            .join()
            .expect("the database call does not panic")
    })
}
