//! One input, four sets of backends: SQLite alone, Kafka with PostgreSQL, Kafka with SQLite, PostgreSQL alone. Every read model has
//! the same rows on all of them, and has them again after a rebuild and after the way back; questions have the same answers.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use domain::{derived_in, id_from_key, inspection, slot_of};
use jiff::civil::{Date, date};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use tests::{Crm, Database, shared_kafka, unique_topic};

/// Day files of the shop that are read.
const SHOP_DAYS: usize = 5;
/// Read models that must have rows, for equal emptiness proves nothing.
const MODELS_WITH_ROWS_MIN: usize = 20;
/// Columns that say when and where something was recorded, which no two logs have in common.
const RECORDED: [&str; 2] = ["recorded_at", "recorded_until"];

const QUESTIONS: &[&[&str]] = &[
    &["pipeline", "--as-of", "2025-04-30"],
    &["pipeline", "--as-of", "2025-04-30", "--where", "amount_minor>0"],
    &["pipeline", "--where", "status=open", "--limit", "1000"],
    &["pipeline_daily", "--as-of", "2025-05-31", "--limit", "1000"],
    &["pipeline_flow", "--as-of", "2025-05-31", "--limit", "1000"],
    &["forecast", "--as-of", "2025-04-30"],
    &["win_loss", "--limit", "1000"],
    &["stage_visits", "--where", "left_at!=null", "--limit", "1000"],
    &["backlog", "--as-of", "2025-05-15"],
    &["case_intervals", "--where", "to_at!=null", "--limit", "2000"],
    &["rfm", "--as-of", "2025-06-30", "--limit", "1000"],
    &["cohort_retention", "--as-of", "2025-06-30", "--limit", "1000"],
    &["sales_by_month", "--as-of", "2025-06-30", "--limit", "1000"],
    &["sales_by_product", "--where", "month=2025-03", "--limit", "1000"],
    &["customers", "--where", "grade is not null", "--limit", "1000"],
    &["purchases", "--where", "customer=null", "--limit", "1000"],
    &["jobs", "--limit", "1000"],
    &["equipment_history", "--limit", "1000"],
    &["loyalty_balance", "--limit", "1000"],
    &["loyalty_liability", "--limit", "1000"],
    &["timeline", "--limit", "50"],
    &["timeline", "--as-of", "2025-05-15", "--limit", "50"],
];

#[test]
fn every_backend_gives_the_same_rows_and_gives_them_again_after_a_rebuild_and_a_rollback() {
    let folder = tempfile::tempdir().unwrap();
    let commands = folder.path().join("commands.jsonl");
    let lines = business();
    std::fs::write(&commands, lines.join("\n")).unwrap();
    let input = Input {
        commands,
        lines: lines.len(),
        shop: shop_days(folder.path()),
    };

    let (database, alone) = (Database::create(), Database::create());
    let (embedded, beside_kafka) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sqlite = |folder: &Path| format!("sqlite:{}", folder.display());
    let kafka = |name| format!("kafka://{}/{}", shared_kafka(), unique_topic(name));
    let places = [
        Backends::new("SQLite and SQLite", sqlite(embedded.path()), sqlite(embedded.path())),
        Backends::new(
            "Kafka and PostgreSQL",
            kafka("agree.postgres"),
            database.url().to_owned(),
        ),
        Backends::new("Kafka and SQLite", kafka("agree.sqlite"), sqlite(beside_kafka.path())),
        // Both in one database.
        Backends::new(
            "PostgreSQL and PostgreSQL",
            alone.url().to_owned(),
            alone.url().to_owned(),
        ),
    ];
    let found: Vec<Found> = places.iter().map(|place| place.take_in(&input)).collect();

    let with_rows = found[0].checksums.values().filter(|(_, rows)| *rows > 0).count();
    println!(
        "{} commands; {with_rows} of {} read models have rows",
        input.lines,
        found[0].checksums.len()
    );
    assert!(with_rows >= MODELS_WITH_ROWS_MIN, "{:?}", found[0].checksums);
    for (place, other) in places.iter().zip(&found).skip(1) {
        for (model, checksum) in &found[0].checksums {
            assert_eq!(other.checksums.get(model), Some(checksum), "{model} on {}", place.name);
        }
        assert_eq!(other.checksums.len(), found[0].checksums.len());
        for (question, answer) in &found[0].answers {
            assert_eq!(
                other.answers[question], *answer,
                "crm query {question} on {}",
                place.name
            );
        }
    }
}

/// What every one of them is given.
struct Input {
    commands: PathBuf,
    lines: usize,
    /// A folder with the shop's first days.
    shop: Option<PathBuf>,
}

struct Backends {
    name: &'static str,
    log: String,
    views: String,
}

struct Found {
    /// Checksum and rows of each read model.
    checksums: BTreeMap<String, (String, u64)>,
    /// By question.
    answers: BTreeMap<String, String>,
}

impl Backends {
    fn new(name: &'static str, log: String, views: String) -> Backends {
        Backends { name, log, views }
    }

    /// Reads the input in, and looks at it from all sides.
    fn take_in(&self, input: &Input) -> Found {
        // Another number of shards than the eight of a log that nobody made before: rows do not depend on it.
        if self.log.starts_with("kafka:") {
            self.run(&["init", "--shards", "3"]);
        }
        let said = self.run(&["import", input.commands.to_str().unwrap()]);
        let count = input.lines;
        assert!(
            said.starts_with(&format!("{count} commands applied ("))
                && said.contains(", 0 unchanged, 0 rejected, 0 lines"),
            "{}: {said}",
            self.name
        );
        if let Some(folder) = &input.shop {
            self.run(&["ingest", "online-retail", folder.to_str().unwrap()]);
        }
        let checksums = self.checksums();
        let answers: BTreeMap<String, String> = QUESTIONS.iter().map(|question| self.answer(question)).collect();

        self.run(&["rebuild"]);
        assert_eq!(self.checksums(), checksums, "{}, rebuilt", self.name);
        self.run(&["rebuild", "--rollback"]);
        assert_eq!(self.checksums(), checksums, "{}, rolled back", self.name);
        self.run(&["log", "verify"]);
        Found { checksums, answers }
    }

    fn checksums(&self) -> BTreeMap<String, (String, u64)> {
        let found = tests::traffic::checksums(&[("CRM_LOG", &self.log), ("CRM_VIEWS", &self.views)]);
        let by_name = found
            .into_iter()
            .map(|(model, checksum, rows)| (model, (checksum, rows)));
        by_name.collect()
    }

    /// The question and its answer: JSON without the columns about the recording, a row a line.
    fn answer(&self, question: &[&str]) -> (String, String) {
        let text = self.run(&[&["query"], question, &["--format", "json"]].concat());
        let mut rows: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&text).unwrap();
        assert!(!rows.is_empty(), "crm query {question:?} on {} has no rows", self.name);
        for row in &mut rows {
            row.retain(|column, _| !RECORDED.contains(&column.as_str()));
        }
        let lines: Vec<String> = rows.iter().map(|row| json!(row).to_string()).collect();
        (question.join(" "), lines.join("\n"))
    }

    /// What it said. It ends with exit code 0.
    fn run(&self, args: &[&str]) -> String {
        let output = Crm::run(args, &[("CRM_LOG", &self.log), ("CRM_VIEWS", &self.views)]);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(0),
            "crm {args:?} on {}: {complaint}",
            self.name
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The shop's first days in a folder of their own, or a line that says that they are not there: the other commands are enough for rows
/// in all read models.
fn shop_days(folder: &Path) -> Option<PathBuf> {
    let root = match std::env::var_os("CRM_DATA_DIR") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    let Ok(entries) = std::fs::read_dir(root.join("online-retail")) else {
        // Not `eprintln!`: what a test that passes prints is not shown.
        let line = format!(
            "SKIPPED: real input {} is not there, set CRM_DATA_DIR\n",
            root.join("online-retail").display()
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    };
    let mut days: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    days.retain(|path| path.extension().is_some_and(|it| it == "csv"));
    days.sort();
    let shop = folder.join("shop");
    std::fs::create_dir(&shop).unwrap();
    for day in days.iter().take(SHOP_DAYS) {
        std::fs::copy(day, shop.join(day.file_name().unwrap())).unwrap();
    }
    Some(shop)
}

/// Half a year of a company's business on all streams: commands that are all accepted and each say something new.
fn business() -> Vec<String> {
    let mut book = Book { lines: vec![] };
    for n in 0..150 {
        customer(&mut book, n);
    }
    for n in 0..100 {
        lead(&mut book, n);
        deal(&mut book, n);
        interaction(&mut book, n);
        case(&mut book, n);
        till(&mut book, n);
    }
    for n in 0..60 {
        machine(&mut book, n);
        visit(&mut book, n);
        points(&mut book, n);
    }
    book.lines
}

/// The lines, each at a second of its own: an order by time has no ties.
struct Book {
    lines: Vec<String>,
}

impl Book {
    /// `day` counts from the first of January.
    fn write(&mut self, stream: &str, id: Value, day: usize, command: Value) {
        let opening = Timestamp::constant(1_735_689_600, 0); // 2025-01-01T00:00:00Z
        let at = opening + ((day * 86_400 + self.lines.len()) as i64).seconds();
        let line = json!({"stream": stream, "id": id, "command": command, "effective_at": at.to_string(), "actor": "user:mei"});
        self.lines.push(line.to_string());
    }
}

fn key(what: &str, n: usize) -> Value {
    json!({"key": ["book", format!("{what}-{n}")]})
}

fn day(n: usize) -> Date {
    date(2025, 1, 1) + (n as i64).days()
}

/// Each in its turn.
fn one_of<T: Copy, const N: usize>(all: [T; N], n: usize) -> T {
    all[n % N]
}

fn customer(book: &mut Book, n: usize) {
    let mut line = |day, command| book.write("customer", key("customer", n), day, command);
    let country = one_of([Some("TW"), Some("JP"), None], n);
    // Texts that sort, fold and compare differently from place to place.
    let names = [
        "台灣精密機械",
        "Ångström & Söhne",
        "o'Neill, \"Bros\"",
        "zeta",
        "Zeta",
        "林小姐 🌸",
    ];
    let name = one_of(names, n);
    line(
        n % 20,
        json!({"type": "register", "kind": if n.is_multiple_of(2) { "organisation" } else { "person" }, "name": format!("{name} {n}"),
               "country": country, "external": [{"source": "book", "key": format!("customer-{n}")}]}),
    );
    if n.is_multiple_of(2) {
        line(
            20,
            json!({"type": "assign-owner", "owner": one_of(["mei", "Ben", "安娜"], n)}),
        );
    }
    if n.is_multiple_of(3) {
        line(
            21,
            json!({"type": "set-contact-point", "kind": "email", "value": format!("c{n}@example.com"), "primary": true}),
        );
    }
    if n.is_multiple_of(4) {
        line(
            22,
            json!({"type": "set-grade", "grade": one_of(["A", "B", "c"], n), "reason": "turnover"}),
        );
    }
    if n == 119 || n == 149 {
        line(170, json!({"type": "close"}));
    }
    if n == 119 {
        line(175, json!({"type": "reopen"}));
    }
}

fn lead(book: &mut Book, n: usize) {
    let mut line = |day, command| book.write("lead", key("lead", n), day, command);
    let start = 5 + n % 90;
    line(
        start,
        json!({"type": "capture", "source": one_of(["fair", "web", "referral"], n), "name": format!("Lead {n}"),
               "company": (n.is_multiple_of(2)).then(|| format!("Company {n}")), "campaign": (n.is_multiple_of(5)).then_some("spring")}),
    );
    line(start + 1, json!({"type": "assign", "owner": one_of(["mei", "Ben"], n)}));
    line(
        start + 2,
        json!({"type": "log-attempt", "channel": "phone", "outcome": "no answer"}),
    );
    match n % 4 {
        0 => {
            line(start + 4, json!({"type": "qualify"}));
            line(
                start + 6,
                json!({"type": "convert", "customer": key("customer", n), "opportunity": key("deal", n)}),
            );
        }
        1 => line(start + 4, json!({"type": "disqualify", "reason": "no budget"})),
        2 => line(start + 4, json!({"type": "recycle"})),
        _ => {}
    }
}

fn deal(book: &mut Book, n: usize) {
    let mut line = |day, command| book.write("opportunity", key("deal", n), day, command);
    let start = 20 + n % 90;
    let currency = one_of(["TWD", "USD", "JPY"], n);
    let amount = |minor: usize| json!({"minor": minor, "currency": currency});
    line(
        start,
        json!({"type": "open", "customer": key("customer", n), "name": format!("Deal {n}"), "owner": one_of(["mei", "Ben", "安娜"], n),
               "close_date": day(start + 40), "amount": (!n.is_multiple_of(4)).then(|| amount(1_000_003 + n * 77)),
               "source": (n.is_multiple_of(5)).then_some("fair")}),
    );
    line(start + 3, json!({"type": "change-stage", "to": "qualification"}));
    // Written down after the next stage, and true before it.
    line(
        start + 12,
        json!({"type": "change-stage", "to": "proposal", "reason": "visited"}),
    );
    line(
        start + 7,
        json!({"type": "set-amount", "amount": amount(2_000_001 + n * 131)}),
    );
    match n % 6 {
        0 => line(start + 20, json!({"type": "win", "reason": "price"})),
        1 => line(
            start + 21,
            json!({"type": "lose", "reason": "lead time", "competitor": one_of(["Alpha", "beta"], n)}),
        ),
        2 => {
            line(start + 22, json!({"type": "lose", "reason": "price"}));
            line(start + 30, json!({"type": "reopen", "reason": "new budget"}));
        }
        3 => line(
            start + 15,
            json!({"type": "override-probability", "basis_points": 3_333, "reason": "a feeling"}),
        ),
        4 => line(
            start + 16,
            json!({"type": "set-close-date", "close_date": day(start + 80)}),
        ),
        _ => line(
            start + 17,
            json!({"type": "set-forecast-category", "category": one_of(["commit", "best-case", "omitted"], n)}),
        ),
    }
}

fn interaction(book: &mut Book, n: usize) {
    let mut line = |day, command| book.write("interaction", key("contact", n), day, command);
    let channel = one_of(["phone", "email", "line", "face"], n);
    line(
        30 + n,
        json!({"type": "record", "customer": key("customer", n), "channel": channel, "direction": if n.is_multiple_of(2) { "in" } else { "out" },
               "subject": format!("About {n}"), "body": (n.is_multiple_of(3)).then_some("第一行\n第二行")}),
    );
    if n.is_multiple_of(5) {
        line(
            31 + n,
            json!({"type": "correct", "fields": {"subject": format!("About deal {n}")}, "reason": "typing error"}),
        );
    }
}

fn case(book: &mut Book, n: usize) {
    let mut line = |day, command| book.write("case", key("case", n), day, command);
    let start = 25 + n;
    line(
        start,
        json!({"type": "open", "customer": key("customer", n), "subject": format!("Noise {n}"),
               "kind": one_of(["incident", "question", "complaint"], n), "priority": one_of(["low", "normal", "high", "urgent"], n),
               "channel": "phone"}),
    );
    line(
        start,
        json!({"type": "assign", "agent": one_of(["Ann", "bob"], n), "group": "hotline"}),
    );
    if n.is_multiple_of(4) {
        line(
            start + 1,
            json!({"type": "classify", "category": "spindle", "priority": "normal", "reason": "not so bad"}),
        );
    }
    if n.is_multiple_of(3) {
        line(
            start + 1,
            json!({"type": "reply", "author": "agent", "public": true, "text": "我們來看看"}),
        );
    }
    if n.is_multiple_of(2) {
        line(
            start + 2,
            json!({"type": "set-pending", "on": if n.is_multiple_of(4) { "customer" } else { "third-party" }}),
        );
        line(start + 5, json!({"type": "resume"}));
    }
    if n.is_multiple_of(7) {
        line(start + 6, json!({"type": "escalate", "reason": "the line stands"}));
    }
    if !n.is_multiple_of(5) {
        line(
            start + 8,
            json!({"type": "resolve", "code": "repaired", "note": (n.is_multiple_of(2)).then_some("bearing")}),
        );
    }
    match n % 5 {
        1 => line(start + 10, json!({"type": "close"})),
        2 => line(start + 11, json!({"type": "reopen", "reason": "it came back"})),
        _ => {}
    }
}

fn till(book: &mut Book, n: usize) {
    let business_day = day(40 + n);
    let store = one_of([Some("taipei"), Some("country:Japan"), None], n);
    let receipt = format!("R-{n}");
    let id = domain::purchase::purchase_id("till", store, None, business_day, &receipt).uuid();
    let mut line = |day, command| book.write("purchase", json!(id), day, command);
    let is_return = n % 9 == 8;
    let quantity = if is_return { "-1.5" } else { "2.25" };
    let mut command = json!({
        "type": "record", "kind": if is_return { "return" } else { "sale" }, "source": "till", "receipt": receipt,
        "business_date": business_day, "currency": if n % 3 == 1 { "JPY" } else { "TWD" },
        "lines": [{"sku": format!("SKU-{}", n % 7), "name": "軸承", "quantity": quantity, "unit_price": format!("{}.125", 10 + n)},
                  {"sku": "sku-0", "quantity": if is_return { -1 } else { 3 }, "unit_price": "0.5"}],
    });
    if let Some(store) = store {
        command["store"] = store.into();
    }
    if n % 4 != 3 {
        command["customer"] = key("customer", n % 40);
    }
    line(40 + n, command);
    if n % 8 == 3 {
        line(
            42 + n,
            json!({"type": "attach-customer", "customer": key("customer", n % 40)}),
        );
    }
    if n % 10 == 7 {
        line(43 + n, json!({"type": "void", "reason": "a slip"}));
    }
}

fn machine(book: &mut Book, n: usize) {
    let serial = format!("S-{n}");
    let reference = json!({"key": ["Maker", serial]});
    let retired = reference.clone();
    let mut line = |day, command| book.write("equipment", reference.clone(), day, command);
    line(
        30 + n % 10,
        json!({"type": "install", "customer": key("customer", n), "maker": "Maker", "serial": serial, "model": one_of(["X1", "x2"], n),
               "site": format!("Hall {}", n % 4), "warranty_until": (n.is_multiple_of(2)).then(|| day(300 + n))}),
    );
    line(
        41,
        json!({"type": "plan-inspections", "checklist": "yearly", "every_days": 90, "first_due": day(60 + n)}),
    );
    if n.is_multiple_of(2) {
        line(70 + n, json!({"type": "report-down", "symptom": "noise"}));
        line(72 + n, json!({"type": "restore"}));
    }
    if n.is_multiple_of(5) {
        line(140, json!({"type": "move", "site": "Hall 9"}));
    }
    if n % 10 == 1 {
        line(
            141,
            json!({"type": "transfer-owner", "to": key("customer", n + 1), "reason": "sold"}),
        );
    }

    let equipment = domain::Id::new(id_from_key("equipment", "Maker", &serial));
    let due = day(60 + n);
    let id = inspection::inspection_id(equipment, "yearly", due).uuid();
    let mut line = |day, command| book.write("inspection", json!(id), day, command);
    line(
        45,
        json!({"type": "schedule", "equipment": reference, "due": due, "checklist": "yearly"}),
    );
    if !n.is_multiple_of(4) {
        line(58 + n, json!({"type": "start"}));
        line(
            59 + n,
            json!({"type": "record-reading", "item": "runout", "value": "0.003", "unit": "mm", "pass": !n.is_multiple_of(3)}),
        );
        line(60 + n, json!({"type": "finish"}));
    }
    if n % 12 == 5 {
        line(100 + n, json!({"type": "void", "reason": "wrong machine"}));
    }
    if n % 20 == 3 {
        // After the last visit.
        book.write("equipment", retired, 400, json!({"type": "retire"}));
    }
}

fn visit(book: &mut Book, n: usize) {
    let mut line = |day, command| book.write("job", key("job", n), day, command);
    let start = 72 + n;
    let from = Timestamp::constant(1_735_689_600, 0) + ((start as i64 + 1) * 24 + 1).hours();
    line(
        start,
        json!({"type": "create", "customer": key("customer", n), "summary": format!("Repair {n}"),
               "equipment": {"stream": "equipment", "key": ["Maker", format!("S-{n}")]}, "origin": (n.is_multiple_of(2)).then_some("case/17")}),
    );
    line(
        start,
        json!({"type": "schedule", "start": from.to_string(), "end": (from + 2.hours()).to_string(), "technician": one_of(["Li", "王"], n)}),
    );
    if n % 6 == 5 {
        return line(start + 1, json!({"type": "cancel", "reason": "the customer"}));
    }
    line(start + 1, json!({"type": "dispatch"}));
    line(start + 1, json!({"type": "start"}));
    if n.is_multiple_of(4) {
        line(start + 1, json!({"type": "hold", "reason": "a part is missing"}));
        line(start + 4, json!({"type": "start"}));
    }
    if !n.is_multiple_of(3) {
        let parts = json!([{"sku": "bearing", "quantity": 2}]);
        line(
            start + 5,
            json!({"type": "complete", "resolution": "replaced", "parts": parts, "labour_minutes": 45 + n}),
        );
        line(start + 5, json!({"type": "sign-off", "by": "Mr. Wu"}));
        line(start + 6, json!({"type": "close"}));
    }
}

fn points(book: &mut Book, n: usize) {
    let customer = id_from_key("customer", "book", &format!("customer-{n}"));
    let account = derived_in(slot_of(customer), &["loyalty", &customer.to_string(), "club"]);
    let mut line = |day, command| book.write("loyalty", json!(account), day, command);
    line(
        31,
        json!({"type": "enrol", "customer": key("customer", n), "program": "club"}),
    );
    line(
        50 + n,
        json!({"type": "earn", "points": 100 + n, "source": format!("R-{n}"), "expires_on": day(120 + n)}),
    );
    line(
        60 + n,
        json!({"type": "earn", "points": 40, "source": format!("bonus-{n}")}),
    );
    if n.is_multiple_of(2) {
        line(
            70 + n,
            json!({"type": "redeem", "points": 30, "for": format!("gift-{n}")}),
        );
    }
    if n.is_multiple_of(6) {
        line(
            75 + n,
            json!({"type": "reverse", "of": format!("gift-{n}"), "reason": "sold out"}),
        );
    }
    if n.is_multiple_of(5) {
        line(80 + n, json!({"type": "adjust", "points": 7, "reason": "goodwill"}));
    }
    if n.is_multiple_of(7) {
        line(121 + n, json!({"type": "expire", "on": day(121 + n)}));
    }
}
