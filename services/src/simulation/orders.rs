//! What clients want: commands of the real domain on few streams, so that they meet, repeat each other, and are refused now and then.

use domain::{AnyCommand, Slot, StreamKind, StreamRef, command_id_within, derived_id, derived_in};
use serde_json::{Value, json};
use uuid::Uuid;

use super::world::World;
use crate::commands::{Incoming, Reference};

/// A command, or a bundle of them, that a client wants done.
#[derive(Debug, Clone)]
pub struct Order {
    /// As the client gives it.
    pub given: Uuid,
    /// As it is recorded.
    pub command_id: Uuid,
    pub shard: u16,
    pub steps: Vec<Wish>,
}

#[derive(Debug, Clone)]
pub struct Wish {
    pub stream: StreamRef,
    pub command: Value,
    pub expected_version: Option<u64>,
}

impl Order {
    fn new(given: Uuid, shard: u16, steps: Vec<Wish>) -> Order {
        Order {
            given,
            command_id: command_id_within(given, steps[0].stream),
            shard,
            steps,
        }
    }
}

impl Wish {
    pub fn incoming(&self) -> Incoming {
        Incoming {
            stream: self.stream.kind,
            id: Some(Reference::Id(self.stream.id)),
            customer: None,
            command: self.command.clone(),
            expected_version: self.expected_version,
        }
    }

    pub fn parsed(&self) -> AnyCommand {
        AnyCommand::from_json(self.stream.kind, self.command.clone())
            .expect("a command of the simulation is well formed")
    }
}

/// A customer and all that belongs to it.
struct Customer {
    id: Uuid,
    slot: Slot,
}

impl Customer {
    fn any(world: &World) -> Customer {
        let number = world.luck.below(world.weather.customers);
        let slot = Slot::new(number as u16);
        Customer {
            id: derived_in(slot, &["customer", &number.to_string()]),
            slot,
        }
    }

    fn stream(&self) -> StreamRef {
        self.of(StreamKind::Customer, 0)
    }

    fn of(&self, kind: StreamKind, number: u64) -> StreamRef {
        let id = match kind {
            StreamKind::Customer => self.id,
            StreamKind::Loyalty => derived_in(self.slot, &["loyalty", &self.id.to_string(), "points"]),
            _ => derived_in(self.slot, &[kind.name(), &self.id.to_string(), &number.to_string()]),
        };
        StreamRef { kind, id }
    }
}

/// What a client could want next.
pub fn order(world: &World, given: Uuid) -> Order {
    let customer = Customer::any(world);
    let shard = customer.slot.shard(world.weather.shards);
    let mut wishes = match world.luck.below(20) {
        // What is not there yet is begun more often than not, else most of the rest were refused.
        _ if !exists(world, customer.stream()) && world.luck.chance(600) => vec![register(&customer)],
        0 => bundle(world, &customer),
        1..=7 => vec![about_customer(world, &customer)],
        8..=13 => vec![about_opportunity(world, &customer)],
        14..=16 => vec![about_case(world, &customer)],
        _ => vec![about_loyalty(world, &customer)],
    };
    if world.luck.chance(150) {
        let truth = world.truth.lock().expect("no panic under the lock");
        let known = truth.version(shard, wishes[0].stream, truth.told(shard));
        wishes[0].expected_version = Some(known.saturating_sub(world.luck.below(2)));
    }
    Order::new(given, shard, wishes)
}

fn exists(world: &World, stream: StreamRef) -> bool {
    let truth = world.truth.lock().expect("no panic under the lock");
    let shard = stream.slot().shard(world.weather.shards);
    truth.version(shard, stream, truth.end(shard)) > 0
}

fn wish(stream: StreamRef, command: Value) -> Wish {
    Wish {
        stream,
        command,
        expected_version: None,
    }
}

fn register(customer: &Customer) -> Wish {
    let name = format!("Customer {}", customer.slot.number());
    wish(
        customer.stream(),
        json!({"type": "register", "kind": "organisation", "name": name}),
    )
}

fn open(customer: &Customer, number: u64) -> Wish {
    let command = json!({
        "type": "open", "customer": customer.id, "name": format!("Deal {number}"), "close_date": "2026-06-30", "owner": "mei",
    });
    wish(customer.of(StreamKind::Opportunity, number), command)
}

fn bundle(world: &World, customer: &Customer) -> Vec<Wish> {
    let number = world.luck.below(3);
    let deal = customer.of(StreamKind::Opportunity, number);
    let mut wishes = vec![
        register(customer),
        open(customer, number),
        wish(deal, json!({"type": "change-stage", "to": stage(world)})),
        wish(deal, json!({"type": "set-amount", "amount": amount(world)})),
        wish(
            customer.stream(),
            json!({"type": "assign-owner", "owner": owner(world)}),
        ),
    ];
    let from = world.luck.below(2) as usize;
    wishes.drain(..from);
    wishes
}

fn about_customer(world: &World, customer: &Customer) -> Wish {
    let command = match world.luck.below(12) {
        0..=2 => return register(customer),
        3..=6 => json!({"type": "assign-owner", "owner": owner(world)}),
        7 | 8 => json!({"type": "set-grade", "grade": *world.luck.pick(&["A", "B"])}),
        9 => json!({"type": "rename", "name": format!("Customer {}", world.luck.below(3))}),
        10 => json!({"type": "close"}),
        _ => json!({"type": "reopen"}),
    };
    wish(customer.stream(), command)
}

fn about_opportunity(world: &World, customer: &Customer) -> Wish {
    let number = world.luck.below(3);
    let command = match world.luck.below(14) {
        _ if !exists(world, customer.of(StreamKind::Opportunity, number)) && world.luck.chance(600) => {
            return open(customer, number);
        }
        0..=2 => return open(customer, number),
        3..=7 => json!({"type": "change-stage", "to": stage(world)}),
        8 | 9 => json!({"type": "set-amount", "amount": amount(world)}),
        10 => json!({"type": "win"}),
        11 => json!({"type": "lose", "reason": "price"}),
        12 => json!({"type": "reopen", "reason": "second thoughts"}),
        _ => json!({"type": "set-close-date", "close_date": *world.luck.pick(&["2026-06-30", "2026-07-31"])}),
    };
    wish(customer.of(StreamKind::Opportunity, number), command)
}

fn about_case(world: &World, customer: &Customer) -> Wish {
    let number = world.luck.below(2);
    let exists = exists(world, customer.of(StreamKind::Case, number));
    let command = match world.luck.below(if exists { 9 } else { 4 }) {
        0..=2 => json!({
            "type": "open", "customer": customer.id, "subject": format!("Case {number}"), "kind": "question",
            "priority": "normal", "channel": "email",
        }),
        3 | 4 => json!({"type": "assign", "agent": owner(world)}),
        5 => json!({"type": "reply", "author": "agent", "public": true}),
        6 => json!({"type": "resolve", "code": "answered"}),
        7 => json!({"type": "reopen", "reason": "not solved"}),
        _ => json!({"type": "classify", "category": *world.luck.pick(&["billing", "delivery"])}),
    };
    wish(customer.of(StreamKind::Case, number), command)
}

fn about_loyalty(world: &World, customer: &Customer) -> Wish {
    let number = world.luck.below(6);
    let exists = exists(world, customer.of(StreamKind::Loyalty, 0));
    let command = match world.luck.below(if exists { 8 } else { 3 }) {
        0 | 1 => json!({"type": "enrol", "customer": customer.id, "program": "points"}),
        2..=4 => json!({"type": "earn", "points": 100, "source": format!("receipt-{number}")}),
        5 | 6 => json!({"type": "redeem", "points": 50, "for": format!("voucher-{number}")}),
        _ => json!({"type": "reverse", "of": format!("receipt-{number}"), "reason": "returned"}),
    };
    wish(customer.of(StreamKind::Loyalty, 0), command)
}

fn stage(world: &World) -> &'static str {
    world.luck.pick(&domain::pipeline::STAGES).name
}

fn owner(world: &World) -> &'static str {
    world.luck.pick::<&'static str>(&["mei", "wei", "lin"])
}

fn amount(world: &World) -> Value {
    json!({"minor": world.luck.between(1, 3) * 100_000, "currency": "TWD"})
}

/// A command id: most are made by the client's clock, some are derived.
pub fn command_id(world: &World, client: u64, number: u64) -> Uuid {
    if world.luck.chance(250) {
        return derived_id(&["order", &client.to_string(), &number.to_string()]);
    }
    let now_ms = world.time().as_millisecond().cast_unsigned();
    let mut random = [0; 10];
    random[..8].copy_from_slice(&world.luck.number().to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid()
}

/// A command that any shard that is served must answer.
pub fn probe(world: &World, shard: u16) -> Order {
    let slot = Slot::new(shard);
    let customer = Customer {
        id: derived_in(slot, &["customer", "probe"]),
        slot,
    };
    let given = derived_id(&["probe", &shard.to_string(), &world.age().as_micros().to_string()]);
    Order::new(given, shard, vec![register(&customer)])
}
