//! What every state store keeps to: one suite, bound to SQLite and to PostgreSQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{AnyState, Fact, StreamKind, StreamRef, customer};
use infra::views::{PostgresViews, SqliteViews};
use jiff::Timestamp;
use services::log::Checkpoint;
use services::states::{Held, Loaded, SavedCommand, SavedState, StateError, StateStore, Watermark};
use tests::Database;
use tokio_postgres::NoTls;
use uuid::Uuid;

/// Each of these functions runs on both stores.
macro_rules! on_both_stores {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                let store = super::SqliteViews::open(folder.path()).await.unwrap();
                super::$name(std::sync::Arc::new(store)).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let database = super::Database::create();
                let store = super::PostgresViews::connect(database.url()).await.unwrap();
                super::$name(std::sync::Arc::new(store)).await;
            })+
        }
    };
}

on_both_stores! {
    a_claim_fences_the_owners_before,
    states_of_another_log_are_not_taken_over,
    states_and_commands_come_back_as_saved,
    what_is_stored_is_listed_page_by_page,
    stored_states_that_fell_back_are_not_relied_on,
    only_old_ids_of_clients_are_forgotten,
}

fn log_id() -> Uuid {
    Uuid::from_u128(77)
}

fn held(owner_epoch: u64, next: u64) -> Held {
    Held { owner_epoch, next }
}

fn watermark(owner_epoch: u64, next: u64) -> Watermark {
    Watermark {
        shard: 2,
        owner_epoch,
        checkpoint: Checkpoint {
            log_id: log_id(),
            next,
            epoch: 1,
            n: next,
            fingerprint: next,
        },
        last_time: Timestamp::from_microsecond(1_760_000_000_123_456).unwrap(),
    }
}

fn saved(number: u128, version: u64, facts: &[Fact]) -> SavedState {
    let initial = AnyState::initial(StreamKind::Customer);
    SavedState {
        stream: StreamRef {
            kind: StreamKind::Customer,
            id: Uuid::from_u128(number),
        },
        version,
        state: facts
            .iter()
            .fold(initial, |state, fact| state.evolve(fact, Timestamp::UNIX_EPOCH))
            .into(),
    }
}

fn registered(name: &str) -> Fact {
    Fact::from(customer::Event::Registered {
        kind: customer::Kind::Organisation,
        name: domain::Personal::new(name.to_owned()),
        country: Some("TW".to_owned()),
        locale: None,
        external: vec![],
    })
}

/// A version 7 id of a client, or a version 8 id of our own.
fn command(number: u128, id_version: u128, at_second: i64) -> SavedCommand {
    SavedCommand {
        id: Uuid::from_u128(number | id_version << 76 | 0b10 << 62),
        hash: "0123456789abcdef".to_owned(),
        streams: vec![
            (saved(number, 1, &[]).stream, 3),
            (saved(number + 1, 1, &[]).stream, u64::from(u32::MAX)),
        ],
        offset: 4711,
        events: 2,
        at: Timestamp::from_second(at_second).unwrap(),
    }
}

async fn a_claim_fences_the_owners_before(states: Arc<dyn StateStore>) {
    assert_eq!(states.watermark(2, log_id()).await.unwrap(), None);
    assert_eq!(states.claim(2, log_id(), 5, "127.0.0.1:7070").await.unwrap(), None);
    assert_eq!(states.watermark(2, log_id()).await.unwrap(), None);
    // A retry, and a claim without any save between.
    assert_eq!(states.claim(2, log_id(), 5, "127.0.0.1:7070").await.unwrap(), None);
    states
        .save(held(5, 0), &watermark(5, 10), &[saved(1, 1, &[])], &[])
        .await
        .unwrap();
    assert_eq!(
        states.claim(2, log_id(), 5, "127.0.0.1:7070").await.unwrap(),
        Some(watermark(5, 10))
    );

    assert_eq!(states.watermark(2, log_id()).await.unwrap(), Some(watermark(5, 10)));

    assert_eq!(
        states.claim(2, log_id(), 7, "127.0.0.1:7070").await.unwrap(),
        Some(watermark(7, 10))
    );
    let late = states
        .save(held(5, 10), &watermark(5, 20), &[saved(1, 2, &[])], &[command(1, 7, 0)])
        .await;
    assert!(matches!(late, Err(StateError::Fenced)), "{late:?}");
    let late = states.claim(2, log_id(), 6, "127.0.0.1:7070").await;
    assert!(matches!(late, Err(StateError::Fenced)), "{late:?}");
    let early = states.save(held(8, 10), &watermark(8, 20), &[], &[]).await;
    assert!(matches!(early, Err(StateError::Fenced)), "{early:?}");

    let streams = [saved(1, 1, &[]).stream];
    let kept = states
        .load(2, held(7, 10), &streams, &[command(1, 7, 0).id])
        .await
        .unwrap();
    assert_eq!((kept.states, kept.commands), (vec![saved(1, 1, &[])], vec![]));
    assert_eq!(
        states.claim(2, log_id(), 7, "127.0.0.1:7070").await.unwrap(),
        Some(watermark(7, 10))
    );

    // A shard that nobody claimed has no owner who could save, and shards have owners of their own.
    let mut elsewhere = watermark(7, 1);
    elsewhere.shard = 3;
    let unclaimed = states.save(held(7, 0), &elsewhere, &[], &[]).await;
    assert!(matches!(unclaimed, Err(StateError::Fenced)), "{unclaimed:?}");
    assert_eq!(states.claim(3, log_id(), 1, "127.0.0.1:7070").await.unwrap(), None);

    // Of claims at once the last epoch owns it, whoever comes first.
    let claims: Vec<_> = (1..=8_u64)
        .map(|epoch| {
            let states = states.clone();
            tokio::spawn(async move { states.claim(4, log_id(), epoch, "127.0.0.1:7070").await })
        })
        .collect();
    for (epoch, claim) in (1..).zip(claims) {
        let claim = claim.await.unwrap();
        let is_fenced = matches!(claim, Err(StateError::Fenced));
        assert!(claim.is_ok() || (is_fenced && epoch < 8), "{epoch}: {claim:?}");
    }
    let mut last = watermark(8, 1);
    last.shard = 4;
    states.save(held(8, 0), &last, &[], &[]).await.unwrap();
}

async fn states_of_another_log_are_not_taken_over(states: Arc<dyn StateStore>) {
    let other_log = Uuid::from_u128(78);
    states.claim(2, log_id(), 5, "127.0.0.1:7070").await.unwrap();
    for answer in [
        states.claim(2, other_log, 9, "127.0.0.1:7070").await,
        states.watermark(2, other_log).await,
    ] {
        match answer {
            Err(StateError::OtherLog { stored, wanted }) => assert_eq!((stored, wanted), (log_id(), other_log)),
            other => panic!("{other:?}"),
        }
    }
    // The owner there was is still the owner.
    states.save(held(5, 0), &watermark(5, 10), &[], &[]).await.unwrap();
}

async fn states_and_commands_come_back_as_saved(states: Arc<dyn StateStore>) {
    states.claim(2, log_id(), 1, "127.0.0.1:7070").await.unwrap();
    let first = saved(1, 1, &[registered("臺灣電機 \0 \"股份\" 😀")]);
    let second = saved(2, 1, &[registered("Ann")]);
    let commands = [command(1, 7, 1_760_000_000), command(2, 8, 1_760_000_000)];
    let all = [first.clone(), second.clone()];
    states
        .save(held(1, 0), &watermark(1, 10), &all, &commands)
        .await
        .unwrap();

    let later = saved(2, 2, &[registered("Ann"), Fact::from(customer::Event::Closed)]);
    let mut answered_again = commands[1].clone();
    answered_again.offset = u64::MAX - 1;
    states
        .save(
            held(1, 10),
            &watermark(1, 20),
            std::slice::from_ref(&later),
            std::slice::from_ref(&answered_again),
        )
        .await
        .unwrap();

    let streams: Vec<StreamRef> = (1..=3).map(|number| saved(number, 1, &[]).stream).collect();
    let ids: Vec<Uuid> = (1..=3)
        .map(|number| command(number, 7, 0).id)
        .chain([commands[1].id])
        .collect();
    let Loaded {
        states: mut found,
        mut commands,
    } = states.load(2, held(1, 20), &streams, &ids).await.unwrap();
    found.sort_by_key(|saved| saved.stream);
    commands.sort_by_key(|saved| saved.id);
    assert_eq!(found, vec![first, later]);
    assert_eq!(commands, vec![command(1, 7, 1_760_000_000), answered_again]);

    // A command id counts in its own shard only.
    states.claim(3, log_id(), 1, "127.0.0.1:7070").await.unwrap();
    let elsewhere = states.load(3, held(1, 0), &[], &ids).await.unwrap();
    assert_eq!(elsewhere.commands, vec![]);
}

/// A crash may take the last saves back, and somebody may delete the views: absence means nothing then.
async fn stored_states_that_fell_back_are_not_relied_on(states: Arc<dyn StateStore>) {
    states.claim(2, log_id(), 3, "127.0.0.1:7070").await.unwrap();
    let first = saved(1, 1, &[]);
    states
        .save(held(3, 0), &watermark(3, 20), std::slice::from_ref(&first), &[])
        .await
        .unwrap();
    let fell_back = states.load(2, held(3, 30), &[first.stream], &[]).await;
    assert!(
        matches!(fell_back, Err(StateError::FellBack { known: 30, next: 20 })),
        "{fell_back:?}"
    );
    let deleted = states.load(3, held(3, 0), &[first.stream], &[]).await;
    assert!(matches!(deleted, Err(StateError::FellBack { .. })), "{deleted:?}");
    // What was taken back must not be covered by a later watermark.
    let covered = states.save(held(3, 30), &watermark(3, 40), &[], &[]).await;
    assert!(
        matches!(covered, Err(StateError::Fenced | StateError::FellBack { .. })),
        "{covered:?}"
    );
    assert_eq!(states.watermark(2, log_id()).await.unwrap(), Some(watermark(3, 20)));

    states.claim(2, log_id(), 4, "127.0.0.1:7070").await.unwrap();
    let fenced = states.load(2, held(3, 20), &[first.stream], &[]).await;
    assert!(matches!(fenced, Err(StateError::Fenced)), "{fenced:?}");
    let kept = states.load(2, held(4, 20), &[first.stream], &[]).await.unwrap();
    assert_eq!(kept.states, vec![first]);
}

async fn what_is_stored_is_listed_page_by_page(states: Arc<dyn StateStore>) {
    states.claim(2, log_id(), 1, "127.0.0.1:7070").await.unwrap();
    assert_eq!(states.streams(2, held(1, 0), None, 10).await.unwrap(), vec![]);
    assert_eq!(
        states.derived_commands(2, held(1, 0), None, 10).await.unwrap(),
        Vec::<Uuid>::new()
    );
    let mut rows: Vec<SavedState> = (0..25).map(|number| saved(number, 1, &[])).collect();
    for kind in StreamKind::ALL.iter().copied() {
        let stream = StreamRef {
            kind,
            id: Uuid::from_u128(107),
        };
        rows.push(SavedState {
            stream,
            version: 1,
            state: AnyState::initial(kind).into(),
        });
    }
    let commands: Vec<SavedCommand> = (0..25)
        .map(|number| command(number, 7 + number % 2, 1_760_000_000))
        .collect();
    states
        .save(held(1, 0), &watermark(1, 10), &rows, &commands)
        .await
        .unwrap();
    // Another shard's are its own.
    states.claim(3, log_id(), 1, "127.0.0.1:7070").await.unwrap();
    let mut elsewhere = watermark(1, 10);
    elsewhere.shard = 3;
    let (row, id) = (saved(99, 1, &[]), command(99, 7, 1_760_000_000));
    states.save(held(1, 0), &elsewhere, &[row], &[id]).await.unwrap();

    let mut streams: Vec<StreamRef> = Vec::new();
    loop {
        let page = states
            .streams(2, held(1, 10), streams.last().copied(), 4)
            .await
            .unwrap();
        assert!(page.len() <= 4);
        if page.is_empty() {
            break;
        }
        streams.extend(page);
    }
    streams.sort_unstable();
    let mut due: Vec<StreamRef> = rows.iter().map(|row| row.stream).collect();
    due.sort_unstable();
    assert_eq!(streams, due);

    let mut ids: Vec<Uuid> = Vec::new();
    loop {
        let page = states
            .derived_commands(2, held(1, 10), ids.last().copied(), 4)
            .await
            .unwrap();
        assert!(page.len() <= 4);
        if page.is_empty() {
            break;
        }
        ids.extend(page);
    }
    ids.sort_unstable();
    let derived = commands.iter().filter(|command| command.id.get_version_num() == 8);
    let mut due: Vec<Uuid> = derived.map(|command| command.id).collect();
    due.sort_unstable();
    assert_eq!(ids, due);

    // Less is stored than the owner knows of, and somebody else's: no list can be relied on.
    let fell_back = states.streams(2, held(1, 11), None, 4).await;
    assert!(matches!(fell_back, Err(StateError::FellBack { .. })), "{fell_back:?}");
    states.claim(2, log_id(), 2, "127.0.0.1:7070").await.unwrap();
    let fenced = states.streams(2, held(1, 10), None, 4).await;
    assert!(matches!(fenced, Err(StateError::Fenced)), "{fenced:?}");
    let fenced = states.derived_commands(2, held(1, 10), None, 4).await;
    assert!(matches!(fenced, Err(StateError::Fenced)), "{fenced:?}");
}

async fn only_old_ids_of_clients_are_forgotten(states: Arc<dyn StateStore>) {
    states.claim(2, log_id(), 1, "127.0.0.1:7070").await.unwrap();
    let commands = [command(1, 7, 100), command(2, 7, 200), command(3, 8, 100)];
    states
        .save(held(1, 0), &watermark(1, 10), &[], &commands)
        .await
        .unwrap();
    let many: Vec<SavedCommand> = (1000..21_500).map(|number| command(number, 7, 50)).collect();
    states.save(held(1, 10), &watermark(1, 11), &[], &many).await.unwrap();

    let before = Timestamp::from_second(200).unwrap();
    assert_eq!(states.forget_commands(before).await.unwrap(), 20_501);
    assert_eq!(states.forget_commands(before).await.unwrap(), 0);

    let ids: Vec<Uuid> = commands.iter().chain(&many).map(|saved| saved.id).collect();
    let mut kept = states.load(2, held(1, 11), &[], &ids).await.unwrap().commands;
    kept.sort_by_key(|saved| saved.streams.clone());
    assert_eq!(kept, commands[1..]);
}
/// A server that was told of a table when it was small may read it from end to end for each look-up, and goes on so while it grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_are_found_by_their_key_whatever_the_server_believes_of_their_number() {
    const LOOKS: u64 = 50;
    let database = Database::create();
    let (client, connection) = tokio_postgres::connect(database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let store: Box<dyn StateStore> = Box::new(PostgresViews::connect(database.url()).await.unwrap());
    store.claim(2, log_id(), 1, "127.0.0.1:7070").await.unwrap();
    let saved_states = |numbers: std::ops::Range<u128>| -> Vec<SavedState> {
        numbers.map(|number| saved(number, 1, &[registered("mei")])).collect()
    };
    let (few, many) = (saved_states(0..10), saved_states(10..3_000));
    store.save(held(1, 0), &watermark(1, 10), &few, &[]).await.unwrap();
    client.batch_execute("ANALYZE").await.unwrap();
    store.load(2, held(1, 10), &[few[0].stream], &[]).await.unwrap();
    store.save(held(1, 10), &watermark(1, 20), &many, &[]).await.unwrap();
    for saved in &many[..LOOKS as usize] {
        let found = store.load(2, held(1, 20), &[saved.stream], &[]).await.unwrap();
        assert_eq!(found.states, std::slice::from_ref(saved));
    }
    // What its connections did is counted when they end.
    drop(store);

    let counts = "SELECT coalesce(sum(idx_scan), 0)::bigint, coalesce(sum(seq_tup_read), 0)::bigint \
         FROM pg_stat_user_tables WHERE relname LIKE 'states\\_%'";
    let deadline = Instant::now() + Duration::from_secs(30);
    let (by_key, read_through) = loop {
        let row = client.query_one(counts, &[]).await.unwrap();
        let (by_key, read_through): (i64, i64) = (row.get(0), row.get(1));
        if by_key.cast_unsigned() >= LOOKS || Instant::now() >= deadline {
            break (by_key, read_through);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(
        by_key.cast_unsigned() >= LOOKS,
        "{by_key} look-ups by key, {read_through} rows read through"
    );
    assert_eq!(read_through, 0, "rows that were read through");
}
