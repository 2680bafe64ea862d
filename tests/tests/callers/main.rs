//! Hostile callers: each attack runs against `crm serve`, with honest clients beside it who must be served all the while.
//!
//! An attack is a function of a [`Stage`]; `on_both!` runs it on SQLite, and on Kafka with PostgreSQL.

mod attacks;
mod stage;

use stage::Stage;

macro_rules! on_both {
    ($($attack:ident),* $(,)?) => {
        mod on_sqlite {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $attack() {
                    attacks::$attack(Stage::on_sqlite()).await;
                }
            )*
        }

        mod on_kafka_and_postgresql {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $attack() {
                    attacks::$attack(Stage::on_kafka_and_postgresql()).await;
                }
            )*
        }
    };
}

on_both!(
    bodies_that_do_not_come,
    answers_that_are_not_read,
    connections_that_ask_nothing,
    requests_of_other_sites,
    questions_for_what_is_not_there,
    registrations_with_thousands_of_keys,
);

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
