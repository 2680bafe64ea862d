//! Commands of an operator who mistakes something, beside a server at work.

use tests::Crm;

use crate::honest::{Honest, Pace};
use crate::stage::Stage;

/// Exit code and words of a command.
fn run(args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let output = Crm::run(args, env);
    let (out, err) = (&output.stdout, &output.stderr);
    let said = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    (output.status.code().unwrap(), said)
}

/// The command is refused for this reason.
async fn is_refused(args: &[&str], env: &[(&str, &str)], code: i32, why: &str) {
    let (found, said) = run(args, env);
    assert!(
        found == code && said.contains(why),
        "{args:?} with {env:?}: {found}: {said}"
    );
    // Others of this test get their turn.
    tokio::task::yield_now().await;
}

/// The read models of this server beside another log, which must not see them, nor fold into them.
pub async fn read_models_beside_another_log(stage: &mut Stage) -> Pace {
    let mut honest = Honest::beside(stage).await;
    let other = stage.env_with_another_log("other", 1);
    let env: Vec<(&str, &str)> = other.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let attack = async || {
        for args in [
            &["query", "customers"][..],
            &["status"],
            &["rebuild"],
            &["project", "--once"],
            &["serve", "--listen", "127.0.0.1:0"],
        ] {
            is_refused(args, &env, 1, "the read models belong to log").await;
        }
    };
    honest.are_served_beside(attack).await;
    honest.end("read models beside another log").await
}

/// Commands with a name, a number or a file that is wrong.
pub async fn commands_that_are_mistyped(stage: &mut Stage) -> Pace {
    let mut honest = Honest::beside(stage).await;
    let (right, wrong) = (stage.env(), stage.env_with_another_log("mistyped", 0));
    let no_log: Vec<(&str, &str)> = wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let views = format!("{}x", right[1].1);
    let mut no_views = right.clone();
    no_views[1].1 = &views;
    let name_of = |url: &str| url.rsplit(['/', ':']).next().unwrap().to_owned();
    let server = stage.crm().url("");
    let folder = stage.folder().display().to_string();
    let attack = async || {
        is_refused(&["query", "customers", "--limit", "0"], &right, 2, "use 1 to 10000").await;
        is_refused(&["query", "customers", "--at-least", "99:1"], &right, 1, "99").await;
        is_refused(
            &["query", "customers", "--where", "colour=red"],
            &right,
            1,
            "there is no column \"colour\"",
        )
        .await;
        is_refused(&["query", "custmers"], &right, 1, "there is no read model \"custmers\"").await;
        for args in [&["status"][..], &["log", "verify"], &["log", "list"]] {
            is_refused(args, &no_log, 1, &name_of(no_log[0].1)).await;
        }
        for args in [&["query", "customers"][..], &["status"], &["rebuild"]] {
            is_refused(args, &no_views, 1, &name_of(&views)).await;
        }
        // A folder in place of a file, and a file that begins and cannot be read on.
        is_refused(&["import", &folder, "--server", &server], &right, 1, &folder).await;
        is_refused(
            &["import", "/proc/self/mem", "--server", &server],
            &right,
            2,
            "cannot be read on from here",
        )
        .await;
    };
    honest.are_served_beside(attack).await;
    honest.end("commands that are mistyped").await
}
