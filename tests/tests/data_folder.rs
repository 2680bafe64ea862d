//! The data folder as its users treat it: they read along, mistype it, delete it, put another one in its place, take the right to write
//! away, and damage what can be made anew. And the passwords of those who have no folder.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Crm, Database, unique_topic};

const PATIENCE: Duration = Duration::from_secs(30);
/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// A data folder in a folder of the test's own.
struct Place {
    outer: TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            outer: tempfile::tempdir().unwrap(),
        }
    }

    fn folder(&self) -> PathBuf {
        self.outer.path().join("data")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.folder().display())
    }

    fn serve(&self) -> Crm {
        let url = self.url();
        Crm::start(
            &["serve", "--command-timeout", "3"],
            &[("CRM_LOG", &url), ("CRM_VIEWS", &url)],
        )
    }

    fn run(&self, args: &[&str]) -> Said {
        let url = self.url();
        run(args, &[("CRM_LOG", &url), ("CRM_VIEWS", &url)])
    }

    /// A log with one customer of this name, and its read models, which nobody has open.
    fn filled(customer: &str) -> Place {
        let place = Place::new();
        let mut crm = place.serve();
        let ack = register(&crm, customer).unwrap();
        let position = ack["position"].as_str().unwrap();
        let listed = get(&crm, &format!("/api/customers?at_least={position}")).1;
        assert!(listed.contains(customer), "{listed}");
        assert_eq!(crm.terminate(), 0);
        place
    }
}

/// What a command came to.
struct Said {
    code: i32,
    text: String,
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Said {
    said(&Crm::run(args, env))
}

fn said(output: &Output) -> Said {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Said {
        code: output.status.code().unwrap(),
        text: format!("{out}{err}"),
    }
}

fn get(crm: &Crm, path: &str) -> (u16, String) {
    answer(reqwest::Client::new().get(crm.url(path)))
}

/// The ack, or the status and the problem.
fn register(crm: &Crm, name: &str) -> Result<Value, (u16, String)> {
    let command = json!({"type": "register", "kind": "organisation", "name": name});
    let request = reqwest::Client::new().post(crm.url("/api/customer"));
    let request = request.header("Idempotency-Key", unique_topic("key")).json(&command);
    let (status, body) = answer(request);
    match status {
        200 | 201 => Ok(serde_json::from_str(&body).unwrap()),
        _ => Err((status, body)),
    }
}

fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let response = request.timeout(PATIENCE).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

// ------------------------------------------------------------------------------------------ who may read it

#[test]
fn nobody_else_may_read_the_data_whatever_the_umask_is() {
    let place = Place::new();
    let url = place.url();
    // Of a command and not of this process: other tests run beside.
    let shell = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask 000; exec \"$CRM\" {command}")]);
        shell
            .env("CRM", Crm::binary())
            .env("CRM_LOG", &url)
            .env("CRM_VIEWS", &url);
        shell.current_dir(place.outer.path()).stdin(Stdio::null());
        said(&shell.output().unwrap())
    };
    let small = shell("demo --once --small");
    assert_eq!(small.code, 0, "{}", small.text);
    let crm = place.serve();
    assert_eq!(mode(&place.folder()), 0o700);
    let names = [
        "log.db",
        "log.db-wal",
        "log.db-shm",
        "log.acked",
        "log.lock",
        "views.db",
        "views.db-wal",
        "views.db-shm",
    ];
    for name in names {
        assert_eq!(mode(&place.file(name)), 0o600, "{name}");
    }
    drop(crm);

    // An older version made them wider.
    std::fs::set_permissions(place.folder(), Permissions::from_mode(0o755)).unwrap();
    for name in ["log.db", "views.db"] {
        std::fs::set_permissions(place.file(name), Permissions::from_mode(0o644)).unwrap();
    }
    let crm = place.serve();
    assert_eq!(mode(&place.folder()), 0o700);
    for name in names {
        assert_eq!(mode(&place.file(name)), 0o600, "{name}");
    }
    assert!(
        crm.log_text().contains("was open to other users of this machine"),
        "{}",
        crm.log_text()
    );
}

// --------------------------------------------------------------------------- what becomes of a folder that goes

#[test]
fn a_folder_that_is_deleted_under_a_server_acks_nothing_more_and_is_said() {
    let place = Place::new();
    let crm = place.serve();
    register(&crm, "Acked").unwrap();
    std::fs::remove_dir_all(place.folder()).unwrap();
    // Before anybody writes.
    until("an idle server is not ready without its log", || !crm.is_ready());
    let refused = register(&crm, "Into nothing").unwrap_err();
    assert_eq!(refused.0, 503, "{refused:?}");
    for path in ["/health/ready", "/api/status"] {
        let (_, text) = get(&crm, path);
        assert!(text.contains("its files are not as they were"), "{path}: {text}");
        assert!(!text.contains("log.db"), "{path}: {text}");
    }
    until("the log says which file, and what to do", || {
        let text = crm.log_text();
        text.contains("log.db was deleted or moved away while the program used it")
            && text.contains("nothing more is acked")
    });
    // Nothing was made anew.
    assert!(!place.folder().exists());
}

#[test]
fn a_folder_that_is_replaced_by_a_copy_under_a_server_acks_nothing_more() {
    let place = Place::new();
    let crm = place.serve();
    register(&crm, "Acked").unwrap();
    let away = place.outer.path().join("away");
    std::fs::rename(place.folder(), &away).unwrap();
    std::fs::create_dir(place.folder()).unwrap();
    for entry in std::fs::read_dir(&away).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), place.file(&entry.file_name().to_string_lossy())).unwrap();
    }
    let refused = register(&crm, "Into the old files").unwrap_err();
    assert_eq!(refused.0, 503, "{refused:?}");
    let (status, text) = get(&crm, "/health/ready");
    assert_eq!(status, 503);
    assert!(text.contains("its files are not as they were"), "{text}");
    assert!(crm.log_text().contains("was replaced by another file"));
    // The folder comes back as it was: all is well again, and nothing was lost.
    std::fs::remove_dir_all(place.folder()).unwrap();
    std::fs::rename(&away, place.folder()).unwrap();
    until("the server is ready again", || crm.is_ready());
    register(&crm, "Acked again").unwrap();
}

#[test]
fn a_log_that_is_gone_is_not_begun_anew_beside_what_came_from_it() {
    let database = Database::create();
    for (views, left) in [("sqlite", "views.db"), ("sqlite", "log.acked"), ("postgres", "")] {
        let place = Place::new();
        let url = place.url();
        let views = if views == "sqlite" {
            url.as_str()
        } else {
            database.url()
        };
        let env = [("CRM_LOG", url.as_str()), ("CRM_VIEWS", views)];
        let mut crm = Crm::start(&["serve"], &env);
        register(&crm, "Kept").unwrap();
        assert_eq!(crm.terminate(), 0);
        for entry in std::fs::read_dir(place.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() != left {
                std::fs::remove_file(path).unwrap();
            }
        }
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["init"]] {
            let said = run(command, &env);
            assert_eq!(said.code, 1, "{command:?} with {left:?}: {}", said.text);
            let why = if left == "log.acked" {
                "had acked"
            } else {
                "there is no log at"
            };
            assert!(said.text.contains(why), "{command:?} with {left:?}: {}", said.text);
            assert!(!place.file("log.db").exists(), "{command:?} with {left:?}");
        }
    }
}

// ------------------------------------------------------------------------------------- whose read models they are

#[test]
fn read_models_of_another_log_are_refused_by_everything_that_reads_them() {
    let (ours, theirs) = (Place::filled("Ours"), Place::filled("Theirs"));
    std::fs::copy(theirs.file("views.db"), ours.file("views.db")).unwrap();
    for command in [
        &["query", "customers"][..],
        &["status"],
        &["status", "--checksums"],
        &["rebuild"],
        &["project", "--once"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let said = ours.run(command);
        assert_eq!(said.code, 1, "{command:?}: {}", said.text);
        assert!(
            said.text.contains("the read models belong to log"),
            "{command:?}: {}",
            said.text
        );
        assert!(!said.text.contains("Theirs"), "{command:?}: {}", said.text);
    }
    // What is said helps.
    for name in ["views.db", "views.db-wal", "views.db-shm"] {
        std::fs::remove_file(ours.file(name)).unwrap_or_default();
    }
    assert_eq!(ours.run(&["rebuild"]).code, 0);
    let said = ours.run(&["query", "customers"]);
    assert!(said.code == 0 && said.text.contains("Ours"), "{}", said.text);
}

// ---------------------------------------------------------------------------------------- those who only look

#[test]
fn a_mistyped_folder_is_refused_by_name_and_not_made() {
    let place = Place::new();
    for command in [
        &["query", "pipeline"][..],
        &["status"],
        &["log", "verify"],
        &["log", "list"],
        &["rebuild"],
    ] {
        let said = place.run(command);
        assert_eq!(said.code, 1, "{command:?}: {}", said.text);
        assert!(
            said.text.contains(&place.folder().display().to_string()),
            "{command:?}: {}",
            said.text
        );
        assert!(!place.folder().exists(), "{command:?}");
    }
    // The log is there, the read models are not.
    let place = Place::filled("Kept");
    let (log, views) = (place.url(), format!("{}x", place.url()));
    for command in [&["query", "pipeline"][..], &["status"], &["rebuild"]] {
        let said = run(command, &[("CRM_LOG", &log), ("CRM_VIEWS", &views)]);
        assert_eq!(said.code, 1, "{command:?}: {}", said.text);
        let name = format!("{}x", place.folder().display());
        assert!(
            said.text.contains(&format!("there is no folder {name}")),
            "{command:?}: {}",
            said.text
        );
        assert!(!Path::new(&name).exists(), "{command:?}");
    }
}

#[test]
fn who_may_not_write_can_look() {
    let place = Place::filled("Seen");
    let open = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let is_root = chown(place.file("log.db"), Some(NOBODY), None).is_ok();
    for name in ["log.db", "log.acked", "log.lock", "views.db"] {
        open(&place.file(name), 0o444);
    }
    open(&place.folder(), 0o555);
    open(place.outer.path(), 0o755);
    let url = place.url();
    for command in [&["query", "customers"][..], &["status"], &["log", "verify"]] {
        // The superuser may write anywhere.
        let mut program = match is_root {
            true => {
                let mut program = Command::new("setpriv");
                program
                    .args(["--reuid", &NOBODY.to_string(), "--clear-groups"])
                    .arg(Crm::binary());
                program
            }
            false => Command::new(Crm::binary()),
        };
        program.args(command).env("CRM_LOG", &url).env("CRM_VIEWS", &url);
        let said = said(&program.current_dir("/").stdin(Stdio::null()).output().unwrap());
        assert_eq!(said.code, 0, "{command:?}: {}", said.text);
        if command[0] == "query" {
            assert!(said.text.contains("Seen"), "{}", said.text);
        }
    }
    open(&place.folder(), 0o700);
}

#[test]
fn damaged_read_models_are_said_with_the_file_and_the_cure_which_works() {
    let place = Place::filled("Kept");
    let file = place.file("views.db");
    std::fs::write(
        &file,
        "this is no database any more, but it is long enough to be looked at",
    )
    .unwrap();
    for command in [
        &["query", "customers"][..],
        &["status"],
        &["rebuild"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let said = place.run(command);
        assert_eq!(said.code, 1, "{command:?}: {}", said.text);
        let name = file.display();
        assert!(
            said.text.contains(&format!("{name} is damaged")),
            "{command:?}: {}",
            said.text
        );
        assert!(
            said.text.contains(&format!("delete {name}")),
            "{command:?}: {}",
            said.text
        );
    }
    std::fs::remove_file(&file).unwrap();
    let crm = place.serve();
    until("the read models come back by replay", || {
        get(&crm, "/api/customers").1.contains("Kept")
    });
}

// ------------------------------------------------------------------------------------------------- passwords

#[test]
fn a_password_is_shown_by_no_message_and_no_help() {
    const SECRET: &str = "hunter2";
    let urls = [
        "postgres://crm:hunter2@127.0.0.1:1/crm",
        "postgres://crm:hunter2@127.0.0.1:port/crm",
        "postgres://crm:a@hunter2@127.0.0.1:1/crm",
        "postgres://crm:a?hunter2=b@127.0.0.1:1/crm",
        "postgres://crm@127.0.0.1:1/crm?password=hunter2",
        "postgres://crm@127.0.0.1:1/crm?hunter2=hunter2",
        "postgresql://hunter2:hunter2@127.0.0.1:1",
        "postgre://crm:hunter2@127.0.0.1:1/crm",
        "kafka://crm:hunter2@127.0.0.1:1/topic",
        "kafka://crm:hunter2@127.0.0.1:1",
        "kafka://127.0.0.1:1/topic?sasl.password=hunter2",
        "mysql://crm:hunter2@127.0.0.1/crm",
        "crm:hunter2@127.0.0.1",
    ];
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite:{}", folder.path().display());
    let place = Place::filled("Kept");
    let known = place.url();
    for url in urls {
        for command in [
            &["init"][..],
            &["serve", "--listen", "127.0.0.1:0"],
            &["project", "--once"],
            &["import", "-"],
            &["query", "pipeline"],
            &["rebuild"],
            &["status"],
            &["status", "--json"],
            &["log", "verify"],
            &["--help"],
            &["serve", "--help"],
        ] {
            let as_views = [("CRM_LOG", known.as_str()), ("CRM_VIEWS", url)];
            let as_log = [("CRM_LOG", url), ("CRM_VIEWS", sqlite.as_str())];
            for env in [as_log, as_views] {
                let mut env = env.to_vec();
                env.push(("RUST_LOG", "debug"));
                let said = run(command, &env);
                assert!(!said.text.contains(SECRET), "{command:?} with {url}: {}", said.text);
            }
        }
    }
    // A settings file that is not right.
    let wrong = [
        "log = \"postgres://crm:hunter2@db/crm\" oops".to_owned(),
        "[kafka]\n\"sasl.password\" = hunter2".to_owned(),
        "[kafka]\n\"sasl.password\" = 2".to_owned(),
        "[kafka]\n\"sasl.password_file\" = \"/nowhere/at/all\"".to_owned(),
    ];
    for text in wrong {
        let file = folder.path().join("crm.toml");
        std::fs::write(&file, &text).unwrap();
        let said = run(&["status", "--config", &file.display().to_string()], &[]);
        assert_eq!(said.code, 1, "{}", said.text);
        assert!(!said.text.contains(SECRET), "{text}: {}", said.text);
    }
}
