//! The same business facts, sent again and again by every way in, in any order, doubled and split, while the server is killed: each is
//! counted once. All read models equal those of an installation to which each fact was sent once.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infra::sources;
use serde_json::{Value, json};
use services::commands::Reference;
use tempfile::TempDir;
use tests::traffic::{checksums, run_well};
use tests::{Crm, Dice};

/// How often all facts are sent, on average, besides the first time.
const TIMES: usize = 6;
const KILLS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that happened in the business.
struct Fact {
    stream: &'static str,
    command: Value,
    at: String,
    /// What another system calls the stream itself, if it has such a name.
    key: Option<(String, String)>,
    /// Is the identity in the command, so that another id contradicts it?
    is_exact: bool,
}

/// A way into the system.
#[derive(Debug, Clone, Copy)]
enum Way {
    Post,
    Keyed,
    MadeUp,
    Bundle,
    Import,
    Ingest,
}

const WAYS: [Way; 6] = [
    Way::Post,
    Way::Keyed,
    Way::MadeUp,
    Way::Bundle,
    Way::Import,
    Way::Ingest,
];

struct Installation {
    dir: TempDir,
    place: String,
    server: Option<Crm>,
    http: reqwest::Client,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_facts_however_they_come_are_counted_once() {
    let once = Installation::new();
    let shop = shop_file(once.dir.path(), "shop.csv");
    let facts = facts(&shop);
    for fact in &facts {
        once.post(fact, "", None).await;
    }
    let expected = once.stop();

    let mut dice = Dice::seeded(20_261_101);
    let mut again = Installation::new();
    // What is about a customer or a machine needs it first, as everywhere.
    for fact in facts
        .iter()
        .filter(|fact| ["customer", "equipment"].contains(&fact.stream))
    {
        again.post(fact, "", None).await;
    }
    let sendings = facts.len() * TIMES;
    for n in 0..sendings {
        let fact = &facts[dice.below(facts.len())];
        match WAYS[dice.below(WAYS.len())] {
            Way::Post => again.post(fact, "", idempotency_key(&mut dice)).await,
            Way::Keyed => again.keyed(fact, &mut dice).await,
            Way::MadeUp => again.made_up(fact, &mut dice).await,
            Way::Bundle => again.bundle(fact, &mut dice).await,
            // Files are slower: one in ten.
            Way::Import if dice.below(10) == 0 => again.import(&facts, &mut dice),
            Way::Ingest if dice.below(10) == 0 => again.ingest(&mut dice),
            Way::Import | Way::Ingest => again.twice_at_once(fact).await,
        }
        if n % (sendings / KILLS) == sendings / KILLS - 1 {
            again.kill_and_start();
        }
    }
    for fact in &facts {
        again.post(fact, "", None).await;
    }
    assert_eq!(again.stop(), expected);
}

/// The timeline tells by whom and under which command id each event came, which differs from way to way: its rows are counted.
fn but_who(checksums: Vec<(String, String, u64)>) -> Vec<(String, String, u64)> {
    let of_timeline = |(model, checksum, rows): (String, String, u64)| match model.as_str() {
        "timeline" => (model, String::new(), rows),
        _ => (model, checksum, rows),
    };
    checksums.into_iter().map(of_timeline).collect()
}

impl Installation {
    fn new() -> Installation {
        let dir = tempfile::tempdir().unwrap();
        let place = format!("sqlite:{}", dir.path().join("data").display());
        let mut new = Installation {
            dir,
            place,
            server: None,
            http: reqwest::Client::new(),
        };
        run_well(&["init", "--shards", "4"], &new.env());
        new.server = Some(Crm::start(&["serve"], &new.env()));
        new
    }

    fn env(&self) -> [(&str, &str); 2] {
        [("CRM_LOG", self.place.as_str()), ("CRM_VIEWS", self.place.as_str())]
    }

    fn kill_and_start(&mut self) {
        self.server.as_mut().expect("it runs").kill();
        self.server = None;
        self.server = Some(Crm::start(&["serve"], &self.env()));
    }

    /// What all read models hold in the end.
    fn stop(mut self) -> Vec<(String, String, u64)> {
        self.server = None;
        run_well(&["project", "--once"], &self.env());
        but_who(checksums(&self.env()))
    }

    /// Sends until it is answered: the status, and the answer.
    async fn send(&self, path: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let url = self.server.as_ref().expect("it runs").url(path);
            let mut request = self.http.post(url).header("Content-Type", "application/json");
            if let Some(key) = key {
                request = request.header("Idempotency-Key", key);
            }
            match request.body(body.to_string()).send().await {
                Ok(answer) if answer.status().as_u16() != 503 => {
                    let status = answer.status().as_u16();
                    return (status, answer.json().await.unwrap());
                }
                Ok(_) | Err(_) => assert!(Instant::now() < deadline, "{path} is not answered"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn post(&self, fact: &Fact, below: &str, key: Option<String>) {
        // A customer has no other name than its key.
        let below = match &fact.key {
            Some(own) if !fact.is_exact && below.is_empty() => in_path(own),
            _ => below.to_owned(),
        };
        let path = format!("/api/{}{below}?effective_at={}", fact.stream, fact.at);
        let (status, answer) = self.send(&path, key.as_deref(), &fact.command).await;
        assert!([200, 201].contains(&status), "{path}: {answer}");
    }

    async fn keyed(&self, fact: &Fact, dice: &mut Dice) {
        let below = fact.key.as_ref().map(in_path).unwrap_or_default();
        self.post(fact, &below, idempotency_key(dice)).await;
    }

    /// Under an id that somebody made up: refused when the command says who the thing is.
    async fn made_up(&self, fact: &Fact, dice: &mut Dice) {
        if !fact.is_exact {
            return self.post(fact, "", None).await;
        }
        let made_up = domain::derived_id(&["made up", &dice.number().to_string()]);
        for below in [format!("/{made_up}"), "/key:elsewhere:77".to_owned()] {
            let path = format!("/api/{}{below}?effective_at={}", fact.stream, fact.at);
            let (status, answer) = self.send(&path, idempotency_key(dice).as_deref(), &fact.command).await;
            assert_eq!((status, &answer["at"]), (400, &json!("id")), "{path}: {answer}");
        }
    }

    async fn bundle(&self, fact: &Fact, dice: &mut Dice) {
        let path = format!("/api/bundle?effective_at={}", fact.at);
        let twice = json!({"commands": [line(fact, dice), line(fact, dice)]});
        // A bundle is another content than its command alone, and must not share that one's key.
        let key = idempotency_key(dice).map(|key| format!("{key} bundle {}", dice.number()));
        let (status, answer) = self.send(&path, key.as_deref(), &twice).await;
        assert_eq!(status, 200, "{answer}");
    }

    async fn twice_at_once(&self, fact: &Fact) {
        tokio::join!(self.post(fact, "", None), self.post(fact, "", None));
    }

    /// A file with some of the facts, in any order, some of them twice, under any name.
    fn import(&self, facts: &[Fact], dice: &mut Dice) {
        let mut file = String::new();
        for _ in 0..facts.len() {
            let fact = &facts[dice.below(facts.len())];
            let mut line = line(fact, dice);
            line["effective_at"] = json!(fact.at);
            writeln!(file, "{line}").unwrap();
        }
        let path = self.dir.path().join(format!("{:016x}.jsonl", dice.number()));
        std::fs::write(&path, file).unwrap();
        run_well(&["import", path.to_str().unwrap()], &self.env());
    }

    fn ingest(&self, dice: &mut Dice) {
        let path = shop_file(self.dir.path(), &format!("{:016x}.csv", dice.number()));
        run_well(&["ingest", "online-retail", path.to_str().unwrap()], &self.env());
    }
}

/// A client's key: none, a UUID of any version, any text, or the same one for everything.
fn idempotency_key(dice: &mut Dice) -> Option<String> {
    match dice.below(4) {
        0 => None,
        1 => Some(format!("order {}", dice.number())),
        2 => Some(
            domain::derived_id(&[&dice.number().to_string()])
                .to_string()
                .replacen("-8", "-4", 1),
        ),
        _ => Some("the same key for everything".to_owned()),
    }
}

/// `/key:<source>:<key>`, percent-encoded.
fn in_path((source, key): &(String, String)) -> String {
    let encoded = |part: &str| {
        part.bytes().fold(String::new(), |mut text, byte| {
            write!(text, "%{byte:02X}").unwrap();
            text
        })
    };
    format!("/key:{}:{}", encoded(source), encoded(key))
}

/// The fact as a line of an import or an item of a bundle, with its key or without.
fn line(fact: &Fact, dice: &mut Dice) -> Value {
    let mut line = json!({"stream": fact.stream, "command": fact.command});
    if let Some((source, key)) = &fact.key
        && (!fact.is_exact || dice.below(2) == 0)
    {
        line["id"] = json!({"key": [source, key]});
    }
    line
}

/// A day of a shop's tills, as its publisher writes it.
fn shop_file(folder: &Path, name: &str) -> std::path::PathBuf {
    let mut rows = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n".to_owned();
    for invoice in 0..4 {
        for line in 0..=invoice {
            let (quantity, minute) = (line + 1, invoice * 7);
            writeln!(
                rows,
                "53990{invoice},SKU{line},THING {line},{quantity},2010-12-01 08:{minute:02}:00,2.5{line},1785{invoice},France"
            )
            .unwrap();
        }
    }
    let path = folder.join(name);
    std::fs::write(&path, rows).unwrap();
    path
}

fn facts(shop: &Path) -> Vec<Fact> {
    let mut facts = Vec::new();
    let at = |n: usize| format!("2026-11-{:02}T09:00:00Z", n % 28 + 1);
    let exact = |stream, command, n: usize, key: Option<(String, String)>| Fact {
        stream,
        command,
        at: at(n),
        key,
        is_exact: true,
    };
    for n in 0..6 {
        let key = ("erp".to_owned(), format!("C-{n}"));
        let command = json!({"type": "register", "kind": "person", "name": format!("c{n}")});
        facts.push(Fact {
            stream: "customer",
            command,
            at: at(n),
            key: Some(key),
            is_exact: false,
        });
    }
    let customer = |n: usize| json!({"key": ["erp", format!("C-{}", n % 6)]});
    for n in 0..5 {
        let (maker, serial) = ("M/1".to_owned(), format!("S-{n}"));
        let command = json!({"type": "install", "customer": customer(n), "maker": maker, "serial": serial,
            "model": "X", "site": "hall"});
        facts.push(exact("equipment", command, n, Some((maker, serial))));
    }
    // Names of stores and tills with the separator in them, and the same receipt number everywhere.
    let tills = [("S2", "T1"), ("A/B", "C"), ("A", "B/C"), ("A", "B"), ("S2", "T2")];
    for (n, (store, till)) in tills.into_iter().enumerate() {
        for day in ["2026-11-01", "2026-11-02"] {
            let mut command = json!({"type": "record", "kind": "sale", "source": "pos", "store": store, "till": till,
                "receipt": "77", "business_date": day, "currency": "TWD",
                "lines": [{"sku": "A", "quantity": n + 1, "unit_price": "100"}]});
            if n % 2 == 0 {
                command["customer"] = customer(n);
            }
            let is_plain = !store.contains('/') && !till.contains('/');
            let key = is_plain.then(|| ("pos".to_owned(), format!("{store}/{till}/{day}/77")));
            facts.push(exact("purchase", command, n, key));
        }
    }
    for n in 0..6 {
        // One mail to all of them.
        let command = json!({"type": "record", "customer": customer(n), "channel": "email", "direction": "in",
            "subject": "offer", "provider_id": "<msg-1@mail>"});
        facts.push(exact("interaction", command, n, None));
        let command = json!({"type": "enrol", "customer": customer(n), "program": "gold"});
        facts.push(exact("loyalty", command, n, None));
    }
    // What the source reads from a file, by the other ways too.
    let source = sources::find("online-retail").unwrap();
    let reading = sources::Reading {
        corrections: sources::Corrections::Apply,
        run: "facts".into(),
    };
    for line in source.lines(shop, &reading, Arc::default()).unwrap() {
        let line = line.unwrap();
        let key = match line.incoming.id {
            Some(Reference::Key { source, key }) => Some((source, key)),
            Some(Reference::Id(_)) | None => None,
        };
        let stream = line.incoming.stream.name();
        facts.push(Fact {
            stream,
            command: line.incoming.command,
            at: line.effective_at.map_or_else(|| at(0), |at| at.to_string()),
            key,
            is_exact: stream == "purchase",
        });
    }
    facts
}
