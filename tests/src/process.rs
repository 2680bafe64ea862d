//! The program `crm` as its users run it: a process with arguments, environment, exit code and HTTP address.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::child::{Process, tied_to_us};
use crate::port::free_port;

// Ready means caught up with the log, which may take a while after a long outage.
const READY_MAX: Duration = Duration::from_secs(60);
const TERMINATE_MAX: Duration = Duration::from_secs(30);
const HTTP_MAX: Duration = Duration::from_secs(2);
const RUN_SECONDS_MAX: &str = "180";
// What coreutils' `timeout --signal=KILL` exits with when it had to.
const RUN_TIMED_OUT: i32 = 137;

/// A running `crm`, dead when dropped.
pub struct Crm {
    /// `None`: it serves nobody.
    address: Option<SocketAddr>,
    process: Process,
    // Its working folder, removed after the process is gone: fields are dropped in order.
    _dir: TempDir,
}

impl Crm {
    /// The program that cargo built beside the running test.
    pub fn binary() -> PathBuf {
        let test = std::env::current_exe().expect("the test knows its own path");
        let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
        let binary = profile.join("crm");
        assert!(
            binary.is_file(),
            "{} is not built: run scripts/test, or `cargo build` first",
            binary.display()
        );
        binary
    }

    /// Starts `crm <args> --listen 127.0.0.1:<a free port>` and waits until `/health/ready` answers 200.
    ///
    /// It sees no `CRM_…` variable but those in `env`, and runs in an empty folder of its own, so that no `crm.toml`
    /// of the developer takes part. Give paths in full.
    pub fn start(args: &[&str], env: &[(&str, &str)]) -> Crm {
        let mut crm = Crm::start_unready(args, env);
        let address = crm.served_at();
        crm.process.wait_until(READY_MAX, || answers_ready(address));
        crm
    }

    /// The same without waiting, for a start that is expected to fail or to take its time.
    pub fn start_unready(args: &[&str], env: &[(&str, &str)]) -> Crm {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listen = address.to_string();
        let mut crm = Crm::start_worker(&[args, &["--listen", &listen]].concat(), env);
        crm.address = Some(address);
        crm
    }

    /// Starts `crm <args>`, one that serves nobody such as `crm project`, in the same surroundings.
    pub fn start_worker(args: &[&str], env: &[(&str, &str)]) -> Crm {
        let dir = tempfile::tempdir().expect("create a working folder");
        let mut command = tied_to_us(Crm::binary());
        command.args(args);
        set_surroundings(&mut command, env, dir.path());
        let process = Process::start("crm", command, &dir.path().join("crm.log"));
        Crm {
            address: None,
            process,
            _dir: dir,
        }
    }

    /// Runs `crm <args>` to its end, in the same surroundings as [`start`](Self::start) and with empty standard input.
    pub fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
        let dir = tempfile::tempdir().expect("create a working folder");
        let mut command = Command::new("timeout");
        command
            .args(["--signal=KILL", RUN_SECONDS_MAX])
            .arg(Crm::binary())
            .args(args)
            .stdin(Stdio::null());
        set_surroundings(&mut command, env, dir.path());

        let output = command.output().expect("crm runs");
        let timed_out = output.status.code() == Some(RUN_TIMED_OUT);
        assert!(
            !timed_out,
            "crm {args:?} has not ended after {RUN_SECONDS_MAX} s: {output:?}"
        );
        output
    }

    /// `127.0.0.1:<port>` it was told to listen on.
    pub fn address(&self) -> String {
        self.served_at().to_string()
    }

    /// The whole URL of a path such as `/api/customer`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.served_at())
    }

    /// Does `/health/ready` answer 200 just now?
    pub fn is_ready(&self) -> bool {
        answers_ready(self.served_at())
    }

    /// Bytes of memory that the process has in use, as Linux tells (its resident set size).
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// SIGKILL: no time to say good-bye to anybody.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: it holds its connections and does nothing, and does not know that time passes.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// SIGTERM, and waits for the end. The exit code; a death by signal is a failure of the test.
    pub fn terminate(&mut self) -> i32 {
        exit_code(self.process.terminate(TERMINATE_MAX))
    }

    /// The exit code, if it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.ended().map(exit_code)
    }

    /// Waits until it ends by itself, as a refused start does. The exit code.
    pub fn wait_for_end(&mut self, limit: Duration) -> i32 {
        exit_code(self.process.wait_for_end(limit))
    }

    fn served_at(&self) -> SocketAddr {
        self.address.expect("it serves nobody")
    }

    /// All it has written to standard output and standard error so far.
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| panic!("crm has ended by a signal: {status}"))
}

fn set_surroundings(command: &mut Command, env: &[(&str, &str)], dir: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CRM_") {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().copied()).current_dir(dir);
}

// Written out, because waiting for a start must work from plain tests and inside any runtime.
fn answers_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut connection = TcpStream::connect_timeout(&address, HTTP_MAX)?;
        connection.set_read_timeout(Some(HTTP_MAX))?;
        connection.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut status_line = vec![0; "HTTP/1.1 200".len()];
        connection.read_exact(&mut status_line)?;
        Ok(status_line)
    };
    ask().is_ok_and(|status_line| status_line.ends_with(b" 200"))
}
