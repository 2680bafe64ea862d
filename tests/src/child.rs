//! A process that belongs to a test: it writes to a log file, dies with the test, and is signalled by name.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const LOG_TAIL_LINES: usize = 60;
const POLL: Duration = Duration::from_millis(20);

/// A started process, killed on drop.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` (from [`tied_to_us`]) with both its outputs appended to the file `log`.
    pub fn start(name: &'static str, mut command: Command, log: &Path) -> Process {
        let output = append_to(log);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("clone the log's handle"))
            .stderr(output);
        let child = spawn(command).unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Process {
            name,
            child,
            log: log.to_owned(),
        }
    }

    /// Waits until `is_ready` says so. Panics when the process ends or the time is over.
    pub fn wait_until(&mut self, limit: Duration, mut is_ready: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !is_ready() {
            self.assert_running();
            assert!(Instant::now() < deadline, "{} is not ready after {limit:?}", self.name);
            thread::sleep(POLL);
        }
    }

    /// SIGKILL, and waits for the end. Killing what has ended already is no error.
    pub fn kill(&mut self) {
        self.child
            .kill()
            .unwrap_or_else(|error| panic!("{} cannot be killed: {error}", self.name));
        self.child
            .wait()
            .unwrap_or_else(|error| panic!("{} cannot be waited for: {error}", self.name));
    }

    /// SIGSTOP: it keeps its connections and does nothing, as on a machine that hangs.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// SIGSTOP for each process that it has started and that still runs.
    pub fn pause_children(&mut self) {
        self.signal_children(Signal::STOP);
    }

    /// SIGCONT for each of them.
    pub fn resume_children(&mut self) {
        self.signal_children(Signal::CONT);
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end(limit)
    }

    /// SIGQUIT, and waits for the end: for PostgreSQL, a stop without tidying up. It may still run when the time is over.
    pub fn quit(&mut self, limit: Duration) {
        if self.ended().is_none() {
            self.signal(Signal::CONT);
            self.signal(Signal::QUIT);
        }
        let deadline = Instant::now() + limit;
        while self.ended().is_none() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
    }

    /// Waits until it ends by itself.
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} has not ended after {limit:?}", self.name);
            thread::sleep(POLL);
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("{} cannot be asked for its state: {error}", self.name))
    }

    /// Its resident set size: `VmRSS` of `/proc/<pid>/status`, which Linux gives in KiB.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("read /proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        1024 * kib.expect("the process runs").parse::<u64>().expect("a number")
    }

    /// All it has written so far.
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of what it has written, with a heading.
    fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("--- the end of {}'s log ---\n{}", self.name, tail.join("\n"))
    }

    fn signal(&mut self, signal: Signal) {
        // Once its end was seen, the process id may belong to somebody else.
        self.assert_running();
        kill_process(Pid::from_child(&self.child), signal)
            .unwrap_or_else(|error| panic!("{} cannot be sent {signal:?}: {error}", self.name));
    }

    fn signal_children(&mut self, signal: Signal) {
        self.assert_running();
        let children = children_of(self.child.id());
        assert!(!children.is_empty(), "{} has no children", self.name);
        for child in children {
            // It may have ended since it was found.
            kill_process(child, signal).unwrap_or_default();
        }
    }

    fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} has ended: {status}", self.name);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let already_ended = matches!(self.child.try_wait(), Ok(Some(_)));
        if !already_ended {
            // Nobody is left to tell if this fails.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // A test that fails shows what its servers had to say.
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

/// A command whose process the kernel kills when the test run dies, however it dies: statics are never dropped, and
/// a run may be killed itself. Start it through [`Process::start`].
pub fn tied_to_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a process from a thread that lives as long as the test run. The kernel ties a child to the *thread* that
/// started it, and the thread of one test ends long before a server that several tests share.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static ORDERS: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
        let (orders, incoming) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in incoming {
                // The test that asked may be gone; then the child is dropped with the answer.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });

    let (answer, child) = mpsc::channel();
    ORDERS
        .lock()
        .expect("nobody panics with this lock")
        .send((command, answer))
        .expect("the starting thread lives on");
    child.recv().expect("the starting thread answers")
}

fn append_to(log: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap_or_else(|error| panic!("{} cannot be opened: {error}", log.display()))
}

/// The processes whose parent this one is, as Linux tells in `/proc/<pid>/stat`: the parent follows the name, which is in parentheses,
/// and the state.
fn children_of(parent: u32) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").expect("read /proc");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    })
    .filter_map(Pid::from_raw)
    .collect()
}
