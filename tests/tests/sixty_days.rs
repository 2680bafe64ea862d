//! Sixty days of a company whose people write things down late and put them right later. Each night its reports are frozen. Asked for
//! that night later, they are the same byte for byte; asked for that day with all that is known, they differ by the corrections
//! and by nothing else, which a naive fold of plain facts says for itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use domain::{Actor, Calendar, Position, StreamKind, derived_id, derived_in, purchase, slot_of};
use infra::log::sqlite::SqliteLog;
use infra::views::SqliteViews;
use jiff::civil::{Date, date};
use jiff::{Timestamp, ToSpan};
use projections::{Group, Question, ReadModel};
use serde_json::{Value, json};
use services::clock::Clock;
use services::commands::{Commands, Incoming, Reference, Terms};
use services::log::{EventLog, NewLog, create};
use services::routing::Routing;
use services::shard::{Assignment, Lane, ShardConfig, ShardParts, Who, spawn};
use services::views::{Ask, Queries, ReadStore, Workers, rebuild};
use tokio::sync::watch;
use uuid::Uuid;

const DAYS: i64 = 60;
const SHARDS: u16 = 4;
/// The hours of a day at which there is business.
const HOURS: [i64; 6] = [9, 11, 13, 15, 17, 19];
const LATE_DAYS_MAX: i64 = 20;
/// What is frozen each night.
const REPORTS: [&str; 6] = [
    "pipeline",
    "backlog",
    "sales_by_month",
    "sales_by_product",
    "pipeline_daily",
    "forecast",
];
/// Those of them that the naive model knows too.
const CHECKED: [&str; 3] = ["pipeline", "backlog", "sales_by_month"];
/// A test in which hardly a night was corrected would prove nothing.
const CORRECTED_NIGHTS_MIN: usize = 40;

const STAGES: [(&str, i64); 4] = [
    ("prospecting", 10),
    ("qualification", 20),
    ("proposal", 50),
    ("negotiation", 80),
];
const STATES: [&str; 4] = ["new", "open", "pending-customer", "pending-third"];
const PRIORITIES: [&str; 4] = ["urgent", "high", "normal", "low"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_frozen_nights_stay_as_they_were_and_restated_ones_differ_exactly_by_the_corrections() {
    let world = World::start().await;
    let mut company = Company::new();
    let mut frozen: Vec<Night> = Vec::new();
    for day in 0..DAYS {
        for hour in HOURS {
            world.clock.set(moment(day, hour, 0));
            let orders = company.an_hour(moment(day, hour, 0));
            world.carry_out(orders).await;
        }
        let at = moment(day, 23, 30);
        world.clock.set(at);
        frozen.push(world.freeze(at).await);
    }
    company.say_what_it_did();

    world.clock.set(moment(DAYS + 30, 12, 0));
    same_nights(&world, &frozen, "a month later").await;
    let restated = world.restate(&frozen).await;
    agree_with_naive_folds(&company, &frozen, &restated);
    the_present_agrees_with_the_last_restatement(&world).await;

    let (log, store) = (Arc::clone(&world.log), Arc::clone(&world.store));
    rebuild(log, store, &Group::ALL, SHARDS, |_, _, _, _| {}).await.unwrap();
    same_nights(&world, &frozen, "after a rebuild").await;
    assert_eq!(world.restate(&frozen).await, restated, "after a rebuild");
    world.stop().await;
}

/// Asks for each night again: by its time, and by the positions that came with the first answer.
async fn same_nights(world: &World, frozen: &[Night], when: &str) {
    for night in frozen {
        let again = world.freeze(night.at).await;
        for (name, report) in &night.reports {
            assert_eq!(again.reports[name].text, report.text, "{name} of {}, {when}", night.at);
            assert_eq!(
                again.reports[name].known_until, report.known_until,
                "{name} of {}, {when}",
                night.at
            );
            let mut by_positions = Ask::of(question());
            by_positions.question.as_of = Some(night.at);
            by_positions.question.known_until = Some(report.known_until.clone());
            let text = world.ask(name, by_positions).await.text;
            assert_eq!(text, report.text, "{name} of {} by positions, {when}", night.at);
        }
    }
}

/// Every night, in every report that it knows: as reported and as restated.
fn agree_with_naive_folds(company: &Company, frozen: &[Night], restated: &[BTreeMap<&'static str, String>]) {
    let mut corrected: BTreeMap<&str, usize> = BTreeMap::new();
    for (night, restated) in frozen.iter().zip(restated) {
        for name in CHECKED {
            let reported = &night.reports[name].text;
            let naive = |known_at| company.naive(name, night.at, known_at);
            assert_eq!(*reported, naive(night.at), "{name} as reported on {}", night.at);
            assert_eq!(
                restated[name],
                naive(Timestamp::MAX),
                "{name} as restated for {}",
                night.at
            );
            *corrected.entry(name).or_default() += usize::from(*reported != restated[name]);
        }
    }
    println!("nights that were corrected later, of {DAYS}: {corrected:?}");
    for name in CHECKED {
        assert!(
            corrected[name] >= CORRECTED_NIGHTS_MIN,
            "{name} was corrected for {} nights only",
            corrected[name]
        );
    }
}

/// The current rows of deals and cases are what the dated sums say of now.
async fn the_present_agrees_with_the_last_restatement(world: &World) {
    let mut as_of_now = Ask::of(question());
    as_of_now.question.as_of = Some(world.clock.now());

    let mut open_deals: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for card in world.rows("pipeline", only("status=open")).await {
        let sums = open_deals
            .entry(format!("{} {}", card["stage"], card["currency"]))
            .or_default();
        sums.0 += 1;
        sums.1 += card["amount_minor"].as_i64().unwrap_or(0);
    }
    let mut summed = BTreeMap::new();
    for row in world.rows("pipeline", as_of_now.clone()).await {
        let sums = (row["deals"].as_i64().unwrap(), row["amount_minor"].as_i64().unwrap());
        summed.insert(format!("{} {}", row["stage"], row["currency"]), sums);
    }
    assert_eq!(open_deals, summed);

    let mut open_cases: BTreeMap<String, i64> = BTreeMap::new();
    for case in world.rows("cases", only("status!=closed")).await {
        if case["status"] != "resolved" {
            *open_cases.entry(case["status"].to_string()).or_default() += 1;
        }
    }
    let mut backlog: BTreeMap<String, i64> = BTreeMap::new();
    for row in world.rows("backlog", as_of_now).await {
        *backlog.entry(row["state"].to_string()).or_default() += row["cases"].as_i64().unwrap();
    }
    assert_eq!(open_cases, backlog);
}

fn only(filter: &str) -> Ask {
    let question = Question {
        filters: vec![projections::Where::parse(filter).unwrap()],
        limit: Some(projections::LIMIT_MAX),
        ..question()
    };
    Ask::of(question)
}

/// For all that there is. The company is in Taipei.
fn question() -> Question {
    Question::new(Calendar::taipei())
}

/// That many minutes after midnight in Taipei, so many days after the first of March.
fn moment(day: i64, hour: i64, minute: i64) -> Timestamp {
    let midnight = Timestamp::constant(1_772_294_400, 0); // 2026-03-01T00:00:00+08:00
    midnight + ((day * 24 + hour) * 60 + minute).minutes()
}

fn day_of(at: Timestamp) -> Date {
    date(2026, 3, 1) + (at.duration_since(moment(0, 0, 0)).as_hours().div_euclid(24)).days()
}

/// A clock that stands until it is set.
struct SetClock(AtomicI64);

impl SetClock {
    fn set(&self, at: Timestamp) {
        self.0.store(at.as_microsecond(), Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// The core in this process, on SQLite.
struct World {
    clock: Arc<SetClock>,
    log: Arc<dyn EventLog>,
    store: Arc<dyn ReadStore>,
    commands: Commands,
    queries: Queries,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    // Removed after everything else: fields are dropped in order.
    _dir: tempfile::TempDir,
}

/// An answer as text, and what it rests on.
struct Report {
    text: String,
    known_until: Vec<(u16, u64)>,
}

struct Night {
    at: Timestamp,
    reports: HashMap<&'static str, Report>,
}

impl World {
    async fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock(AtomicI64::new(moment(0, 0, 0).as_microsecond())));
        let log: Arc<dyn EventLog> = Arc::new(SqliteLog::new(dir.path()));
        create(log.as_ref(), &NewLog::of(SHARDS), clock.as_ref()).await.unwrap();
        let views = Arc::new(SqliteViews::open(dir.path()).await.unwrap());
        let store: Arc<dyn ReadStore> = views.clone();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        let mut handles = Vec::new();
        for shard in 0..SHARDS {
            let parts = ShardParts {
                log: Arc::clone(&log),
                states: views.clone(),
                clock: clock.clone(),
                node: "sixty-days".into(),
                address: String::new(),
                source: "/crm/sixty-days".into(),
                config: ShardConfig::default(),
            };
            let (handle, task) = spawn(shard, parts, Assignment::alone(), stopped.clone());
            handles.push(handle);
            tasks.push(task);
        }
        let words = vec![Assignment::alone(); usize::from(SHARDS)];
        let words = Group::ALL.into_iter().map(|group| (group, words.clone())).collect();
        let workers = Workers::new(Arc::clone(&log), Arc::clone(&store), SHARDS, words);
        for group in Group::ALL {
            store.create(group, SHARDS).await.unwrap();
        }
        tasks.push(tokio::spawn(workers.run(stopped)));
        World {
            commands: Commands::new(Routing::alone(handles), clock.clone(), Calendar::taipei()),
            queries: Queries::new(Arc::clone(&store), clock.clone(), Calendar::taipei()),
            clock,
            log,
            store,
            stop,
            tasks,
            _dir: dir,
        }
    }

    /// Sends orders for different streams at once; each one writes one event.
    async fn carry_out(&self, orders: Vec<Order>) {
        let sent = orders.into_iter().map(|order| async move {
            let terms = Terms {
                command_id: Some(derived_id(&["sixty days", &order.number.to_string()])),
                effective_at: order.effective_at,
                who: Who::new(Actor::parse("user:mei").unwrap()),
                lane: Lane::People,
                strict: false,
                upsert: false,
            };
            let shown = format!("{} {:?} {}", order.stream.name(), order.id, order.command);
            let incoming = Incoming {
                stream: order.stream,
                id: Some(Reference::Id(order.id)),
                customer: None,
                command: order.command,
                expected_version: None,
            };
            let accepted = self.commands.send(incoming, terms).await;
            let accepted = accepted.unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(accepted.ack.events, 1, "{shown}");
        });
        futures::future::join_all(sent).await;
    }

    /// Tonight's reports, when the read models have seen all of today.
    async fn freeze(&self, at: Timestamp) -> Night {
        let mut reports = HashMap::new();
        for name in REPORTS {
            let ask = Ask {
                known_at: Some(at),
                at_least: self.ends().await,
                ..Ask::of(question())
            };
            reports.insert(name, self.ask(name, ask).await);
        }
        Night { at, reports }
    }

    /// Each night as all that is known now tells it.
    async fn restate(&self, frozen: &[Night]) -> Vec<BTreeMap<&'static str, String>> {
        let mut nights = Vec::new();
        for night in frozen {
            let mut restated = BTreeMap::new();
            for name in REPORTS {
                let mut ask = Ask::of(question());
                ask.question.as_of = Some(night.at);
                restated.insert(name, self.ask(name, ask).await.text);
            }
            nights.push(restated);
        }
        nights
    }

    /// The last position of each shard.
    async fn ends(&self) -> Vec<Position> {
        let mut ends = Vec::new();
        for shard in 0..SHARDS {
            let offset = self.log.end(shard).await.unwrap() - 1;
            ends.push(Position { shard, offset });
        }
        ends
    }

    async fn ask(&self, name: &str, mut ask: Ask) -> Report {
        ask.question.limit = Some(projections::LIMIT_MAX);
        let answered = self.queries.ask(ReadModel::find(name).unwrap(), ask).await.unwrap();
        assert_eq!(
            answered.answer.cursor, None,
            "{name} has more rows than one answer holds"
        );
        let rows = answered.answer.rows.iter();
        let rows: Vec<Vec<Value>> = rows
            .map(|row| row.iter().map(|value| value.to_json()).collect())
            .collect();
        Report {
            text: text_of(&answered.answer.columns, &rows),
            known_until: answered.known_until.unwrap_or_default(),
        }
    }

    /// The rows as objects.
    async fn rows(&self, name: &str, mut ask: Ask) -> Vec<Value> {
        ask.question.limit = Some(projections::LIMIT_MAX);
        let answer = self
            .queries
            .ask(ReadModel::find(name).unwrap(), ask)
            .await
            .unwrap()
            .answer;
        let object = |row: &Vec<projections::Value>| {
            let cells = answer.columns.iter().zip(row);
            cells
                .map(|(name, value)| ((*name).to_owned(), value.to_json()))
                .collect()
        };
        answer.rows.iter().map(object).map(Value::Object).collect()
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn text_of(columns: &[&str], rows: &[Vec<Value>]) -> String {
    json!({"columns": columns, "rows": rows}).to_string()
}

/// A command on its way, which writes one event.
struct Order {
    number: usize,
    stream: StreamKind,
    id: Uuid,
    command: Value,
    effective_at: Option<Timestamp>,
}

/// Something that is so from `effective_at` on, and that is known since `recorded_at`.
struct Entry {
    recorded_at: Timestamp,
    effective_at: Timestamp,
    fact: Fact,
}

enum Fact {
    Deal { deal: usize, became: Deal },
    Case { case: usize, became: Case },
    Sold(Receipt),
    Void(String),
}

#[derive(Clone)]
enum Deal {
    Opened {
        stage: usize,
        amount: Option<i64>,
        currency: &'static str,
    },
    InStage(usize),
    Amount(i64),
    Won(i64),
    Lost,
    Reopened {
        stage: usize,
    },
}

#[derive(Clone, Copy)]
enum Case {
    Opened { priority: usize },
    State(Option<usize>),
    Priority(usize),
}

/// What a receipt brought.
#[derive(Clone)]
struct Receipt {
    number: String,
    store: Option<&'static str>,
    currency: &'static str,
    day: Date,
    quantity: i64,
    amount_minor: i64,
    is_return: bool,
}

/// What the people know of a deal when they write the next thing down.
struct DealCard {
    id: Uuid,
    is_open: bool,
    amount: Option<i64>,
    currency: &'static str,
    /// When it was last opened or closed.
    turned_at: Timestamp,
    closes_on: Date,
}

struct CaseCard {
    id: Uuid,
    state: Option<usize>,
    is_closed: bool,
    priority: usize,
    /// The last thing that happened to its state.
    turned_at: Timestamp,
    opened_at: Timestamp,
    replies: usize,
}

/// The people, and everything that they have written down.
struct Company {
    dice: Dice,
    now: Timestamp,
    customers: Vec<Uuid>,
    deals: Vec<DealCard>,
    cases: Vec<CaseCard>,
    /// Those that are not void.
    receipts: Vec<Receipt>,
    receipts_count: usize,
    entries: Vec<Entry>,
    orders: Vec<Order>,
    orders_count: usize,
    /// Streams that have an order in this hour.
    busy: HashSet<Uuid>,
}

impl Company {
    fn new() -> Company {
        Company {
            dice: Dice(tests::Dice::seeded(20_260_301)),
            now: moment(0, 0, 0),
            customers: vec![],
            deals: vec![],
            cases: vec![],
            receipts: vec![],
            receipts_count: 0,
            entries: vec![],
            orders: vec![],
            orders_count: 0,
            busy: HashSet::new(),
        }
    }

    /// What is done in one hour, each stream once.
    fn an_hour(&mut self, now: Timestamp) -> Vec<Order> {
        self.now = now;
        self.busy.clear();
        if self.customers.len() < 3 || self.dice.chance(20) {
            self.register_a_customer();
            if self.customers.len() <= 3 {
                return std::mem::take(&mut self.orders);
            }
        }
        for _ in 0..1 + self.dice.below(2) {
            self.open_a_deal();
        }
        for _ in 0..2 {
            self.work_on_a_deal();
        }
        self.open_a_case();
        for _ in 0..3 {
            self.work_on_a_case();
        }
        for _ in 0..3 {
            self.sell();
        }
        if self.dice.chance(40) {
            self.void_a_receipt();
        }
        std::mem::take(&mut self.orders)
    }

    fn say_what_it_did(&self) {
        let is_late = |entry: &&Entry| entry.recorded_at.duration_since(entry.effective_at).as_hours() >= 24;
        println!(
            "{} customers, {} deals, {} cases, {} receipts; {} entries, {} of them a day late or more",
            self.customers.len(),
            self.deals.len(),
            self.cases.len(),
            self.receipts_count,
            self.entries.len(),
            self.entries.iter().filter(is_late).count()
        );
    }

    fn order(&mut self, stream: StreamKind, id: Uuid, command: Value, effective_at: Option<Timestamp>) {
        self.busy.insert(id);
        self.orders_count += 1;
        self.orders.push(Order {
            number: self.orders_count,
            stream,
            id,
            command,
            effective_at,
        });
    }

    fn note(&mut self, effective_at: Timestamp, fact: Fact) {
        self.entries.push(Entry {
            recorded_at: self.now,
            effective_at,
            fact,
        });
    }

    /// Now, or one time in four up to 20 days ago, but not before `earliest`.
    fn when(&mut self, earliest: Timestamp) -> Timestamp {
        if !self.dice.chance(25) {
            return self.now;
        }
        let late_minutes = 60 * 24 * (1 + self.dice.below(LATE_DAYS_MAX)) - self.dice.below(600);
        (self.now - late_minutes.minutes()).max(earliest)
    }

    fn register_a_customer(&mut self) {
        let name = format!("Customer {}", self.customers.len());
        let id = derived_id(&["sixty days", &name]);
        let command = json!({"type": "register", "kind": "organisation", "name": name});
        self.order(StreamKind::Customer, id, command, None);
        self.customers.push(id);
    }

    /// An id in the slot of some customer, whom it is for.
    fn for_a_customer(&mut self, what: &str, number: usize) -> (Uuid, Uuid) {
        // Not the last one: they may be registered in this very hour.
        let customer = self.customers[self.dice.index(self.customers.len() - 1)];
        let id = derived_in(slot_of(customer), &["sixty days", what, &number.to_string()]);
        (id, customer)
    }

    fn open_a_deal(&mut self) {
        let deal = self.deals.len();
        let (id, customer) = self.for_a_customer("deal", deal);
        let currency = ["TWD", "USD"][self.dice.index(2)];
        let amount = self.dice.chance(80).then(|| self.dice.amount());
        let stage = self.dice.index(2);
        let at = self.when(moment(-LATE_DAYS_MAX, 0, 0));
        let closes_on = day_of(self.now) + (10 + self.dice.below(60)).days();
        let mut command = json!({"type": "open", "customer": customer, "name": format!("Deal {deal}"),
                                 "stage": STAGES[stage].0, "close_date": closes_on, "owner": "mei"});
        if let Some(minor) = amount {
            command["amount"] = json!({"minor": minor, "currency": currency});
        }
        self.order(StreamKind::Opportunity, id, command, Some(at));
        self.deals.push(DealCard {
            id,
            is_open: true,
            amount,
            currency,
            turned_at: at,
            closes_on,
        });
        let became = Deal::Opened {
            stage,
            amount,
            currency,
        };
        self.note(at, Fact::Deal { deal, became });
    }

    fn work_on_a_deal(&mut self) {
        let deal = self.dice.index(self.deals.len());
        let card = &self.deals[deal];
        if self.busy.contains(&card.id) {
            return;
        }
        let (id, turned_at, currency) = (card.id, card.turned_at, card.currency);
        if !card.is_open && !self.dice.chance(40) {
            return;
        }
        if !card.is_open {
            let at = self.when(turned_at);
            let stage = self.stage_at(deal, at);
            let command = json!({"type": "reopen", "reason": "they called back"});
            self.order(StreamKind::Opportunity, id, command, Some(at));
            self.deals[deal].is_open = true;
            self.deals[deal].turned_at = at;
            return self.note(
                at,
                Fact::Deal {
                    deal,
                    became: Deal::Reopened { stage },
                },
            );
        }
        let (command, at, became) = match self.dice.below(10) {
            0..=3 => {
                let at = self.when(turned_at);
                let stage = (self.stage_at(deal, at) + 1 + self.dice.index(3)) % STAGES.len();
                let command = json!({"type": "change-stage", "to": STAGES[stage].0});
                (command, at, Some(Deal::InStage(stage)))
            }
            4..=6 => {
                let minor = self.dice.amount();
                if self.deals[deal].amount.replace(minor) == Some(minor) {
                    return;
                }
                let command = json!({"type": "set-amount", "amount": {"minor": minor, "currency": currency}});
                (command, self.when(turned_at), Some(Deal::Amount(minor)))
            }
            7 => {
                let minor = self.dice.amount();
                self.deals[deal].amount = Some(minor);
                self.deals[deal].is_open = false;
                let command = json!({"type": "win", "amount": {"minor": minor, "currency": currency}});
                let at = self.when(turned_at);
                self.deals[deal].turned_at = at;
                (command, at, Some(Deal::Won(minor)))
            }
            8 => {
                self.deals[deal].is_open = false;
                let at = self.when(turned_at);
                self.deals[deal].turned_at = at;
                (json!({"type": "lose", "reason": "price"}), at, Some(Deal::Lost))
            }
            _ => {
                let closes_on = card.closes_on + (1 + self.dice.below(40)).days();
                self.deals[deal].closes_on = closes_on;
                let command = json!({"type": "set-close-date", "close_date": closes_on});
                (command, self.when(turned_at), None)
            }
        };
        self.order(StreamKind::Opportunity, id, command, Some(at));
        if let Some(became) = became {
            self.note(at, Fact::Deal { deal, became });
        }
    }

    /// The stage in which the deal was at that time, by all that is known today.
    fn stage_at(&self, deal: usize, at: Timestamp) -> usize {
        let mut entries: Vec<&Entry> = self.entries.iter().filter(|entry| entry.effective_at <= at).collect();
        entries.sort_by_key(|entry| entry.effective_at);
        let (mut stage_then, mut is_open) = (None, false);
        for entry in entries {
            match &entry.fact {
                Fact::Deal { deal: of, became } if *of == deal => match became {
                    Deal::Opened { stage, .. } | Deal::Reopened { stage } => {
                        (stage_then, is_open) = (Some(*stage), true);
                    }
                    Deal::InStage(stage) if is_open => stage_then = Some(*stage),
                    Deal::Won(_) | Deal::Lost => is_open = false,
                    Deal::InStage(_) | Deal::Amount(_) => {}
                },
                _ => {}
            }
        }
        stage_then.expect("a deal is opened in a stage")
    }

    fn open_a_case(&mut self) {
        let case = self.cases.len();
        let (id, customer) = self.for_a_customer("case", case);
        let priority = self.dice.index(PRIORITIES.len());
        let at = self.when(moment(-LATE_DAYS_MAX, 0, 0));
        let command = json!({"type": "open", "customer": customer, "subject": format!("Case {case}"), "kind": "incident",
                             "priority": PRIORITIES[priority], "channel": "phone"});
        self.order(StreamKind::Case, id, command, Some(at));
        self.cases.push(CaseCard {
            id,
            state: Some(0),
            is_closed: false,
            priority,
            turned_at: at,
            opened_at: at,
            replies: 0,
        });
        self.note(
            at,
            Fact::Case {
                case,
                became: Case::Opened { priority },
            },
        );
    }

    fn work_on_a_case(&mut self) {
        let case = self.dice.index(self.cases.len());
        let card = &self.cases[case];
        if self.busy.contains(&card.id) {
            return;
        }
        let (id, turned_at, opened_at) = (card.id, card.turned_at, card.opened_at);
        let (was, is_closed, priority) = (card.state, card.is_closed, card.priority);
        let roll = self.dice.below(10);
        if was.is_some() && roll == 0 {
            // How urgent it is has a history of its own.
            let priority = (priority + 1 + self.dice.index(3)) % PRIORITIES.len();
            let at = self.when(opened_at);
            let command = json!({"type": "classify", "category": "spindle", "priority": PRIORITIES[priority],
                                 "reason": "the line stands"});
            self.order(StreamKind::Case, id, command, Some(at));
            self.cases[case].priority = priority;
            return self.note(
                at,
                Fact::Case {
                    case,
                    became: Case::Priority(priority),
                },
            );
        }
        let (command, state) = match (was, roll) {
            (None, 0..=3) if !is_closed => (json!({"type": "close"}), None),
            (None, 4) => (json!({"type": "reopen", "reason": "it came back"}), Some(1)),
            (None, _) => return,
            (Some(0), 1..=6) => {
                let agent = format!("agent {}", self.dice.below(5));
                (json!({"type": "assign", "agent": agent}), Some(1))
            }
            (Some(2 | 3), 1..=3) => (json!({"type": "resume"}), Some(1)),
            (Some(1), 1..=3) => (json!({"type": "set-pending", "on": "customer"}), Some(2)),
            (Some(1), 4) => (json!({"type": "set-pending", "on": "third-party"}), Some(3)),
            (Some(_), 5..=8) => (json!({"type": "resolve", "code": "repaired"}), None),
            (Some(_), _) => {
                self.cases[case].replies += 1;
                let text = format!("reply {}", self.cases[case].replies);
                let command = json!({"type": "reply", "author": "bot", "public": true, "text": text});
                return self.order(StreamKind::Case, id, command, None);
            }
        };
        let at = self.when(turned_at);
        if was.is_none() && state.is_some() && at.duration_since(turned_at).as_hours() > 24 * 29 {
            return;
        }
        self.cases[case].is_closed = command["type"] == "close";
        self.order(StreamKind::Case, id, command, Some(at));
        self.cases[case].turned_at = at;
        self.cases[case].state = state;
        self.note(
            at,
            Fact::Case {
                case,
                became: Case::State(state),
            },
        );
    }

    fn sell(&mut self) {
        let (store, currency) = [
            (Some("taipei"), "TWD"),
            (Some("hsinchu"), "TWD"),
            (Some("country:Japan"), "JPY"),
            (None, "TWD"),
        ][self.dice.index(4)];
        let day = day_of(self.when(moment(-LATE_DAYS_MAX, 0, 0)));
        let is_return = self.dice.chance(10);
        let sign = if is_return { -1 } else { 1 };
        let mut lines: Vec<Value> = Vec::new();
        let (mut total, mut total_quantity) = (0, 0);
        for _ in 0..1 + self.dice.below(3) {
            let sku = format!("sku {}", self.dice.below(6));
            let (quantity, price) = (sign * (1 + self.dice.below(4)), 10 * (1 + self.dice.below(200)));
            let minor_units = if currency == "JPY" { 1 } else { 100 };
            total += quantity * price * minor_units;
            total_quantity += quantity;
            lines.push(json!({"sku": sku, "quantity": quantity, "unit_price": price.to_string()}));
        }
        let number = format!("R-{}", self.receipts_count);
        self.receipts_count += 1;
        let mut command = json!({"type": "record", "kind": if is_return { "return" } else { "sale" }, "source": "till",
                                 "receipt": number, "business_date": day, "currency": currency, "lines": lines});
        if let Some(store) = store {
            command["store"] = store.into();
        }
        let receipt = Receipt {
            number,
            store,
            currency,
            day,
            quantity: total_quantity,
            amount_minor: total,
            is_return,
        };
        self.order(StreamKind::Purchase, receipt.id(), command, None);
        self.receipts.push(receipt.clone());
        let opening = moment((day - date(2026, 3, 1)).get_days().into(), 0, 0);
        self.note(opening, Fact::Sold(receipt));
    }

    fn void_a_receipt(&mut self) {
        let place = self.dice.index(self.receipts.len());
        let receipt = self.receipts[place].clone();
        if self.busy.contains(&receipt.id()) {
            return;
        }
        self.receipts.remove(place);
        let command = json!({"type": "void", "reason": "a training receipt"});
        self.order(StreamKind::Purchase, receipt.id(), command, None);
        self.note(self.now, Fact::Void(receipt.number));
    }

    /// A report as it must be, folded from the entries that were known by `known_at`.
    fn naive(&self, report: &str, as_of: Timestamp, known_at: Timestamp) -> String {
        let mut known: Vec<&Entry> = self.entries.iter().filter(|it| it.recorded_at <= known_at).collect();
        // Stable: of two that are true from the same time on, what was written down later counts.
        known.sort_by_key(|entry| entry.effective_at);
        match report {
            "pipeline" => naive_pipeline(&known, as_of),
            "backlog" => naive_backlog(&known, as_of),
            "sales_by_month" => naive_sales(&known, as_of),
            other => panic!("nobody computed {other} by hand"),
        }
    }
}

impl Receipt {
    fn id(&self) -> Uuid {
        purchase::purchase_id("till", self.store, None, self.day, &self.number).uuid()
    }
}

fn naive_pipeline(known: &[&Entry], as_of: Timestamp) -> String {
    #[derive(Clone, Copy)]
    struct Standing {
        is_open: bool,
        stage: usize,
        amount: Option<i64>,
        currency: &'static str,
    }
    let mut deals: BTreeMap<usize, Standing> = BTreeMap::new();
    for entry in known.iter().filter(|entry| entry.effective_at <= as_of) {
        let Fact::Deal { deal, became } = &entry.fact else {
            continue;
        };
        if let Deal::Opened {
            stage,
            amount,
            currency,
        } = became
        {
            let (is_open, stage, amount) = (true, *stage, *amount);
            deals.insert(
                *deal,
                Standing {
                    is_open,
                    stage,
                    amount,
                    currency,
                },
            );
            continue;
        }
        let standing = deals
            .get_mut(deal)
            .expect("nothing is true of a deal before it is opened");
        match became {
            Deal::Opened { .. } => unreachable!("taken above"),
            // What has ended stands still, whatever was said of it later.
            Deal::InStage(_) | Deal::Amount(_) if !standing.is_open => {}
            Deal::InStage(stage) => standing.stage = *stage,
            Deal::Amount(minor) => standing.amount = Some(*minor),
            Deal::Won(minor) => {
                standing.is_open = false;
                standing.amount = Some(*minor);
            }
            Deal::Lost => standing.is_open = false,
            Deal::Reopened { stage } => {
                standing.is_open = true;
                standing.stage = *stage;
            }
        }
    }
    let mut sums: BTreeMap<(usize, Option<&str>), [i64; 3]> = BTreeMap::new();
    for deal in deals.values().filter(|deal| deal.is_open) {
        let sum = sums
            .entry((deal.stage, deal.amount.map(|_| deal.currency)))
            .or_default();
        let minor = deal.amount.unwrap_or(0);
        // Amounts are whole hundreds, so that no percentage of them needs rounding.
        for (sum, more) in sum.iter_mut().zip([1, minor, minor / 100 * STAGES[deal.stage].1]) {
            *sum += more;
        }
    }
    let rows = sums.into_iter().map(|((stage, currency), [deals, amount, weighted])| {
        vec![
            json!(STAGES[stage].0),
            json!(currency),
            json!(deals),
            json!(amount),
            json!(weighted),
        ]
    });
    let columns = ["stage", "currency", "deals", "amount_minor", "weighted_minor"];
    text_of(&columns, &rows.collect::<Vec<_>>())
}

fn naive_backlog(known: &[&Entry], as_of: Timestamp) -> String {
    const AGES: [(&str, i64); 5] = [("0-1", 1), ("1-3", 3), ("3-7", 7), ("7-30", 30), ("30+", i64::MAX)];
    struct Standing {
        state: Option<usize>,
        priority: usize,
        opened_at: Timestamp,
    }
    let mut cases: BTreeMap<usize, Standing> = BTreeMap::new();
    for entry in known.iter().filter(|entry| entry.effective_at <= as_of) {
        let Fact::Case { case, became } = &entry.fact else {
            continue;
        };
        if let Case::Opened { priority } = became {
            let opened_at = entry.effective_at;
            cases.insert(
                *case,
                Standing {
                    state: Some(0),
                    priority: *priority,
                    opened_at,
                },
            );
            continue;
        }
        let standing = cases
            .get_mut(case)
            .expect("nothing is true of a case before it is opened");
        match became {
            Case::Opened { .. } => unreachable!("taken above"),
            Case::State(state) => standing.state = *state,
            Case::Priority(priority) => standing.priority = *priority,
        }
    }
    let mut sums: BTreeMap<(usize, usize, usize), i64> = BTreeMap::new();
    for case in cases.values() {
        let Some(state) = case.state else { continue };
        let days = as_of.duration_since(case.opened_at).as_hours() / 24;
        let age = AGES.iter().position(|(_, below)| days < *below).unwrap();
        *sums.entry((state, case.priority, age)).or_default() += 1;
    }
    let rows = sums.into_iter().map(|((state, priority, age), cases)| {
        vec![
            json!(STATES[state]),
            json!(PRIORITIES[priority]),
            json!(AGES[age].0),
            json!(cases),
        ]
    });
    text_of(&["state", "priority", "age_days", "cases"], &rows.collect::<Vec<_>>())
}

fn naive_sales(known: &[&Entry], as_of: Timestamp) -> String {
    let void: HashSet<&str> = known
        .iter()
        .filter_map(|entry| match &entry.fact {
            Fact::Void(number) => Some(number.as_str()),
            _ => None,
        })
        .collect();
    let mut sums: BTreeMap<(String, &str, &str, &str), [i64; 4]> = BTreeMap::new();
    for entry in known.iter().filter(|entry| entry.effective_at <= as_of) {
        let Fact::Sold(receipt) = &entry.fact else { continue };
        if void.contains(receipt.number.as_str()) {
            continue;
        }
        let month = format!("{}-{:02}", receipt.day.year(), receipt.day.month());
        let store = receipt.store.unwrap_or_default();
        let country = store.strip_prefix("country:").unwrap_or_default();
        let sum = sums.entry((month, country, store, receipt.currency)).or_default();
        let more = [
            receipt.quantity * 1_000,
            receipt.amount_minor,
            1,
            i64::from(receipt.is_return),
        ];
        for (sum, more) in sum.iter_mut().zip(more) {
            *sum += more;
        }
    }
    let rows = sums.into_iter().map(|((month, country, store, currency), figures)| {
        let names = [json!(month), json!(country), json!(store), json!(currency)];
        names.into_iter().chain(figures.map(|figure| json!(figure))).collect()
    });
    let columns = [
        "month",
        "country",
        "store",
        "currency",
        "quantity_milli",
        "amount_minor",
        "receipts",
        "returns",
    ];
    text_of(&columns, &rows.collect::<Vec<_>>())
}

struct Dice(tests::Dice);

impl Dice {
    fn below(&mut self, end: i64) -> i64 {
        (self.0.number() % end as u64) as i64
    }

    fn index(&mut self, len: usize) -> usize {
        self.below(len as i64) as usize
    }

    fn chance(&mut self, percent: i64) -> bool {
        self.below(100) < percent
    }

    /// A deal's, in minor units: whole hundreds.
    fn amount(&mut self) -> i64 {
        100 * (1 + self.below(50_000))
    }
}
