//! Hostile callers: the server survives them, on SQLite and on Kafka with PostgreSQL, and honest clients beside them
//! are served all the while, about as soon as when all is quiet.
//!
//! An attack is a function of a [`Stage`]; `on_both!` runs it on both. What has no server that must go on meanwhile is
//! shown by other suites, which the table names.
//!
//! | who | tests |
//! |---|---|
//! | forges what processes ask each other | `orders_that_are_forged`, `services::what_no_client_may_send_no_process_may_either` |
//! | gets an event into the wrong shard, or one that no read model can hold | `services::a_stream_in_the_wrong_shard_is_named_with_its_position_and_the_right_shard`, `services::read_models_step_over_an_event_of_ours_when_an_operator_says_so` |
//! | finds a command at which the program panics | `commands_that_the_program_fails_at`, `services::a_command_that_panics_again_and_again_is_refused_and_named` |
//! | comes from the page of another site, or under a wrong name | `requests_of_other_sites` |
//! | sends bodies that do not come | `bodies_that_do_not_come` |
//! | asks for wide answers and does not read them | `answers_that_are_not_read` |
//! | opens connections and asks nothing | `connections_that_ask_nothing` |
//! | reads the files of another user | `data_folder::nobody_else_may_read_the_data_whatever_the_umask_is` |
//! | deletes or replaces the log under the server | `data_folder::a_folder_that_is_deleted_under_a_server_acks_nothing_more_and_is_said`, `data_folder::a_folder_that_is_replaced_by_a_copy_under_a_server_acks_nothing_more`, `outages::a_topic_that_was_made_anew_under_a_running_node_is_refused`, `log_contract::tables_that_are_dropped_under_a_log_are_missed` |
//! | puts the clock back, or far ahead | `clocks_that_are_wrong` |
//! | sends texts that a terminal obeys, or that look like others | `texts_that_deceive` |
//! | registers with thousands of keys | `registrations_with_thousands_of_keys` |
//! | puts the read models of another log in place | `read_models_beside_another_log`, `data_folder::read_models_of_another_log_are_refused_by_everything_that_reads_them` |
//! | asks for positions that are not there, with thousands of filters, or gives commands no time | `questions_for_what_is_not_there`, `questions_with_thousands_of_filters`, `a_time_for_commands_that_is_none_is_refused_at_the_start` |
//! | mistypes a log, a number or a file; may only look; damages the read models | `commands_that_are_mistyped`, `data_folder::a_mistyped_folder_is_refused_by_name_and_not_made`, `data_folder::who_may_not_write_can_look`, `data_folder::damaged_read_models_are_said_with_the_file_and_the_cure_which_works` |
//! | puts a password into a URL | `data_folder::a_password_is_shown_by_no_message_and_no_help`, `log_contract::its_password_is_never_shown` |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod attacks;
mod honest;
mod stage;

use honest::{Honest, Pace};
use stage::Stage;

/// Attempts in which honest clients may be much slower beside the attack. All of them: then it was the attack, and not
/// what else this machine was doing.
const ATTEMPTS: usize = 3;

macro_rules! on_both {
    ($($attack:ident),* $(,)?) => {
        const ON_BOTH: &[&str] = &[$(stringify!($attack)),*];

        mod on_sqlite {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $attack() {
                    is_survived(Stage::on_sqlite().await, attacks::$attack).await;
                }
            )*
        }

        mod on_kafka_and_postgresql {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $attack() {
                    is_survived(Stage::on_kafka_and_postgresql().await, attacks::$attack).await;
                }
            )*
        }
    };
}

on_both!(
    orders_that_are_forged,
    commands_that_the_program_fails_at,
    requests_of_other_sites,
    bodies_that_do_not_come,
    answers_that_are_not_read,
    connections_that_ask_nothing,
    clocks_that_are_wrong,
    texts_that_deceive,
    registrations_with_thousands_of_keys,
    read_models_beside_another_log,
    questions_for_what_is_not_there,
    questions_with_thousands_of_filters,
    commands_that_are_mistyped,
);

async fn is_survived(mut stage: Stage, attack: impl AsyncFn(&mut Stage) -> Pace) {
    let mut paces = Vec::new();
    while paces.len() < ATTEMPTS {
        let pace = attack(&mut stage).await;
        if pace.is_fair() {
            return stage.end();
        }
        paces.push(pace);
    }
    panic!("honest clients are much slower beside it, each time: {paces:?}");
}

#[test]
fn a_time_for_commands_that_is_none_is_refused_at_the_start() {
    for seconds in ["0", "601", "18446744073709551615"] {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().display());
        let args = ["serve", "--listen", "127.0.0.1:0", "--command-timeout", seconds];
        let output = tests::Crm::run(&args, &[("CRM_LOG", &url), ("CRM_VIEWS", &url)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("1..=600"), "{said}");
    }
}

/// A server that answers late beside an attack, for once: it stands still again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_clients_that_are_slowed_down_are_noticed() {
    let mut stage = Stage::on_sqlite().await;
    let mut honest = Honest::beside(&stage).await;
    let late = Duration::from_millis(500).max(honest.quiet() * 12);
    let server = std::sync::Mutex::new(stage.crm_mut());
    let attack = async || {
        server.lock().unwrap().pause();
        tokio::time::sleep(late).await;
        server.lock().unwrap().resume();
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    honest.are_served_beside(attack).await;
    server.into_inner().unwrap().resume();
    let pace = honest.end("a server that stands still again and again").await;
    assert!(!pace.is_fair(), "{pace:?}");
    stage.end();
}

/// The table above: every test that it names is there, and every attack is in it.
#[test]
fn the_table_names_every_attack_and_tests_that_exist() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let rows: Vec<&str> = (include_str!("main.rs").lines())
        .filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"))
        .skip(1)
        .collect();
    assert!(rows.len() >= 16, "{rows:?}");
    let here = sources(&root.join("tests/tests/callers"));
    let mut attacks = BTreeSet::new();
    for row in rows {
        let (_, tests) = row.split_once(" | ").unwrap();
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{row}");
        for name in named {
            let (sources, test) = match name.split_once("::") {
                Some(("services", test)) => (sources(&root.join("services/src")), test),
                Some((suite, test)) => (sources(&root.join(format!("tests/tests/{suite}.rs"))), test),
                None => {
                    attacks.insert(name);
                    (here.clone(), name)
                }
            };
            assert!(sources.contains(&format!("fn {test}(")), "there is no test {name}");
        }
    }
    let missing: Vec<_> = ON_BOTH.iter().filter(|attack| !attacks.contains(**attack)).collect();
    assert_eq!(missing, Vec::<&&str>::new());
}

/// All that is written in this file, or in the files of this folder.
fn sources(path: &Path) -> String {
    if path.is_file() {
        return std::fs::read_to_string(path).unwrap();
    }
    let entries = std::fs::read_dir(path).unwrap();
    entries.map(|entry| sources(&entry.unwrap().path())).collect()
}
