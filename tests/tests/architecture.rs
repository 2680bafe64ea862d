//! The one straight line of dependencies, and what the pure crates must not know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use domain::StreamKind;
use projections::READ_MODELS;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every package that `package` is built with, as cargo says.
fn built_with(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            package,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

fn ours(package: &str) -> Vec<String> {
    let known = ["domain", "projections", "services", "infra", "tests"];
    built_with(package)
        .into_iter()
        .filter(|name| known.contains(&name.as_str()) && name != package)
        .collect()
}

#[test]
fn the_crates_depend_on_each_other_in_one_straight_line() {
    assert_eq!(ours("domain"), Vec::<String>::new());
    assert_eq!(ours("projections"), ["domain"]);
    assert_eq!(ours("services"), ["domain", "projections"]);
    assert_eq!(ours("infra"), ["domain", "projections", "services"]);
}

#[test]
fn the_pure_crates_know_no_runtime_no_driver_and_no_http() {
    let forbidden = [
        "tokio",
        "async-trait",
        "futures",
        "rdkafka",
        "tokio-postgres",
        "rusqlite",
        "cqrs-es",
        "axum",
        "hyper",
        "rand",
        "getrandom",
    ];
    for package in ["domain", "projections"] {
        let found: Vec<_> = built_with(package)
            .into_iter()
            .filter(|name| forbidden.contains(&name.as_str()))
            .collect();
        assert_eq!(found, Vec::<String>::new(), "{package} must not know them");
    }
}

#[test]
fn services_knows_no_driver() {
    let forbidden = [
        "rdkafka",
        "tokio-postgres",
        "deadpool-postgres",
        "rusqlite",
        "clap",
        "toml",
        "reqwest",
    ];
    let found: Vec<_> = built_with("services")
        .into_iter()
        .filter(|name| forbidden.contains(&name.as_str()))
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_pure_crates_are_neither_async_nor_do_they_touch_the_world() {
    let forbidden = [
        "async fn",
        ".await",
        "std::fs",
        "std::net",
        "std::env",
        "std::time",
        "Timestamp::now",
        "Uuid::now",
        "f64",
        "f32",
    ];
    for package in ["domain", "projections"] {
        for file in rust_files(&root().join(package).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            for word in forbidden {
                // The deserializers of serde name every type there is.
                let allowed = file.ends_with("kernel/wire.rs") && word.starts_with('f');
                assert!(allowed || !text.contains(word), "{} says {word}", file.display());
            }
        }
    }
}

#[test]
fn no_code_of_ours_is_unsafe() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    for package in ["domain", "projections", "services", "infra", "tests"] {
        let manifest = std::fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{package} must take the workspace's lints"
        );
    }
}

#[test]
fn the_readme_names_every_stream_and_read_model() {
    let page = std::fs::read_to_string(root().join("README.md")).unwrap();
    let streams = StreamKind::ALL.iter().map(|kind| kind.name());
    let read_models = READ_MODELS.iter().map(|model| model.name);
    let missing: Vec<&str> = streams
        .chain(read_models)
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// The table of limits in ARCHITECTURE.md: no bound of the code is missing, and every test that it names is there.
#[test]
fn every_limit_is_listed_with_a_test_that_exists() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = page.split("## Limits").nth(1).unwrap();
    let sources: Vec<String> = ["domain", "projections", "services", "infra", "tests"]
        .iter()
        .flat_map(|package| rust_files(&root().join(package)))
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let named: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_suffix(" |")?.rsplit(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| name.matches('_').count() >= 3)
        .collect();
    assert!(named.len() >= 30, "{named:?}");
    for name in named {
        let is_there = sources.iter().any(|source| source.contains(&format!("fn {name}(")));
        assert!(is_there, "there is no test {name}");
    }
    let mut bounds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in ["domain", "projections", "services", "infra"]
        .iter()
        .flat_map(|package| rust_files(&root().join(package).join("src")))
    {
        if file.ends_with("demo/words.rs") || file.components().any(|part| part.as_os_str() == "simulation") {
            continue;
        }
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            if let Some(name) = declared_bound(line) {
                bounds.entry(name.to_owned()).or_default().push(file.clone());
            }
        }
    }
    assert!(bounds.len() >= 60, "{bounds:?}");
    // One name may stand for bounds of several files: each is told.
    for (name, files) in bounds {
        let told = table.matches(&format!("`{name}`")).count() + table.matches(&format!("::{name}`")).count();
        assert!(
            told >= files.len(),
            "{name} is {told} times in the table of limits, and declared in {files:?}"
        );
    }
}

/// A constant `…_MAX` of a file, or a setting `…_max`, that this line declares.
fn declared_bound(line: &str) -> Option<&str> {
    let constant = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("const ");
    let (rest, ending) = match constant {
        Some(rest) => (rest, "_MAX"),
        None => (line.trim_start().strip_prefix("pub ")?, "_max"),
    };
    let (name, _) = rest.split_once(':')?;
    (name.ends_with(ending) && !name.contains(' ')).then_some(name)
}

fn rust_files(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}
