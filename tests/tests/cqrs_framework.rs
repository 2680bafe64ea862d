//! A plain `CqrsFramework` on our log in Kafka: code written for `cqrs-es` runs unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;

use cqrs_es::{AggregateError, CqrsFramework, EventStore};
use domain::customer::{Command, Customer, Event, Kind};
use domain::{Actor, Calendar, derived_id};
use infra::log::kafka::KafkaLog;
use services::clock::SystemClock;
use services::commands::Commands;
use services::cqrs::{Adapted, AdaptedEvent, LogStore, Surroundings};
use services::log::{EventLog, NewLog, create};
use services::routing::Routing;
use services::shard::{Assignment, ShardConfig, ShardParts, Who, spawn};
use services::states::MemoryStates;
use tests::{shared_kafka, unique_topic};
use tokio::sync::watch;

#[tokio::test]
async fn a_cqrs_framework_stores_its_events_in_kafka() {
    let log: Arc<dyn EventLog> = Arc::new(KafkaLog::new(&shared_kafka(), &unique_topic("cqrs"), BTreeMap::new()));
    create(log.as_ref(), &NewLog::of(2), &SystemClock).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let parts = ShardParts {
        log: Arc::clone(&log),
        states: Arc::new(MemoryStates::default()),
        clock: Arc::new(SystemClock),
        node: "test".into(),
        address: String::new(),
        source: "/crm/test".into(),
        config: ShardConfig::default(),
    };
    let (handles, tasks): (Vec<_>, Vec<_>) = (0..2)
        .map(|shard| spawn(shard, parts.clone(), Assignment::alone(), stopped.clone()))
        .unzip();
    let commands = Commands::new(Routing::alone(handles), Arc::new(SystemClock), Calendar::taipei());

    let id = derived_id(&["cqrs", "customer"]);
    let store = || LogStore {
        commands: commands.clone(),
        log: Arc::clone(&log),
        who: Who::new(Actor::system("test")),
    };
    let around = Surroundings {
        id,
        clock: Arc::new(SystemClock),
        calendar: Calendar::taipei(),
        commands: Some(commands.clone()),
    };
    let framework: CqrsFramework<Adapted<Customer>, LogStore> = CqrsFramework::new(store(), vec![], around);

    let register = || Command::Register {
        kind: Kind::Person,
        name: "林小姐".into(),
        country: None,
        locale: None,
        external: vec![],
    };
    let name = id.to_string();
    framework.execute(&name, register()).await.unwrap();
    framework.execute(&name, register()).await.unwrap();
    framework
        .execute(&name, Command::AssignOwner { owner: "mei".into() })
        .await
        .unwrap();
    let refused = framework
        .execute(
            &name,
            Command::SetGrade {
                grade: " ".into(),
                reason: None,
            },
        )
        .await
        .unwrap_err();
    assert!(matches!(refused, AggregateError::UserError(_)), "{refused}");

    let events = EventStore::<Adapted<Customer>>::load_events(&store(), &name)
        .await
        .unwrap();
    let payloads: Vec<_> = events.iter().map(|event| event.payload.event.clone()).collect();
    assert_eq!(
        payloads[1],
        Event::OwnerAssigned {
            from: None,
            to: "mei".into()
        }
    );
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2]);

    // Two loaded the same version: the second to commit is in conflict.
    let first = EventStore::<Adapted<Customer>>::load_aggregate(&store(), &name)
        .await
        .unwrap();
    let second = EventStore::<Adapted<Customer>>::load_aggregate(&store(), &name)
        .await
        .unwrap();
    let event = |to: &str| {
        let event = Event::OwnerAssigned {
            from: None,
            to: to.into(),
        };
        vec![AdaptedEvent::new(event, jiff::Timestamp::UNIX_EPOCH)]
    };
    store().commit(event("wei"), first, Default::default()).await.unwrap();
    let conflict = store()
        .commit(event("lin"), second, Default::default())
        .await
        .unwrap_err();
    assert!(matches!(conflict, AggregateError::AggregateConflict), "{conflict}");

    stop.send_replace(true);
    for task in tasks {
        task.await.unwrap();
    }
}
