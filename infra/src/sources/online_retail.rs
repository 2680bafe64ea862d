//! A shop's tills, one file a day (UCI Online Retail): lines of invoices; invoices that begin with C are returns.
//!
//! An invoice is a purchase whose identity is its number, and a customer is known by number only. Neither depends on which file came
//! first: a day that comes twice, or the days in another order, change nothing.
//!
//! An invoice is taken whole or not at all. The files of a run are read twice. The first reading finds where each invoice begins and
//! ends, and which ones have a line that makes no sense: those are held back, and the report says why. The second reading gives an
//! invoice out where its last line stands, so that only the invoices that are not complete yet are in memory.
//!
//! An invoice may stand in several files of a run. With the same lines it is a double. With lines of other products the files have
//! parts of it, which are put together. Else nobody can tell a part from another version, and the invoice is held back.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, bail};
use domain::{Actor, StreamKind, exact_decimal};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::rows::{Row, Rows, file_name};
use super::{
    BadLine, Column, Corrections, ImportLine, Lines, Progress, Reading, Source, What, command_id, incoming,
    is_plausible, keyed, keyed_id,
};

const NAME: &str = "online-retail";
const COLUMNS: &[Column] = &[
    Column::new("InvoiceNo", "the invoice's number; with a C before it a return").or(&["Invoice"]),
    Column::new("StockCode", "the product"),
    Column::new("Description", "the product's name; may be empty"),
    Column::new("Quantity", "a whole number; negative in a return"),
    Column::new(
        "InvoiceDate",
        "when the line was rung up: 2010-12-01 08:26:00, British time",
    ),
    Column::new("UnitPrice", "in pounds, such as 2.55").or(&["Price"]),
    Column::new("CustomerID", "a number; may be empty").or(&["Customer ID"]),
    Column::new("Country", "where it was sold to"),
];

/// A file that is larger is no day of a shop.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A till that shows more has been leant upon.
const QUANTITY_MAX: i64 = 100_000_000;
const PRICE_MAX: i64 = 100_000_000;
const PRICE_DECIMALS_MAX: u32 = 6;
/// In pounds. Ten thousand such lines are still an invoice that the sums can hold.
const AMOUNT_MAX: i64 = 1_000_000_000;

/// No till says when it first met a customer, and the first invoice would depend on the order of the days: the first day of the
/// shop's records stands for it.
const CUSTOMERS_KNOWN_SINCE: Timestamp = Timestamp::constant(1_291_161_600, 0); // 2010-12-01T00:00:00Z

/// The shop is in Britain; its clock has changed by these rules since 1996.
static LONDON: LazyLock<TimeZone> =
    LazyLock::new(|| TimeZone::posix("GMT0BST,M3.5.0/1,M10.5.0").expect("a POSIX time zone"));

#[derive(Debug)]
pub struct OnlineRetail;

impl Source for OnlineRetail {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "A shop's tills: a CSV of invoice lines, or a folder with one a day"
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn size_bytes(&self, path: &Path) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for file in files(path)? {
            bytes += file.metadata()?.len();
        }
        Ok(bytes)
    }

    fn lines(&self, path: &Path, reading: &Reading, progress: Arc<Progress>) -> anyhow::Result<Lines> {
        Ok(Box::new(Days::of(files(path)?, reading, progress)))
    }
}

/// The file, or the CSV files of the folder by name.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.path();
        let is_csv = file.extension().is_some_and(|it| it.eq_ignore_ascii_case("csv"));
        if is_csv && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("there is no .csv file in {}", path.display());
    }
    files.sort();
    Ok(files)
}

fn open(path: &Path, progress: &Arc<Progress>) -> Result<Rows, BadLine> {
    let rows = path.metadata().and_then(|file| match file.len() > FILE_BYTES_MAX {
        true => Err(std::io::Error::other(format!(
            "it has more than {FILE_BYTES_MAX} bytes"
        ))),
        false => Rows::open(path, COLUMNS, progress.clone()),
    });
    rows.map_err(|error| BadLine {
        file: file_name(path),
        line: 0,
        document: None,
        what: What::NoSense,
        reason: format!("the file is left out: {error}"),
    })
}

/// A row of a file, as a line of an invoice.
fn read(rows: &Rows, row: Result<Row, BadLine>) -> Result<SoldLine, BadLine> {
    let row = row.map_err(|mut bad| {
        // What cannot be a number of an invoice says nothing of which one the line belongs to.
        bad.document = bad.document.filter(|document| invoice_number(document).is_ok());
        bad
    })?;
    sold_line(&row).map_err(|reason| {
        let [invoice, ..] = row.columns::<8>();
        let document = invoice_number(invoice).is_ok().then_some(invoice);
        rows.bad(row.line, document, reason)
    })
}

/// What the first reading finds of an invoice.
struct Known {
    first: SoldBy,
    /// The file, by its place among the files, and the line where it ends.
    last: (usize, u64),
    /// The line for which it is held back.
    held_back_for: Option<(Arc<str>, u64)>,
}

fn survey(files: &[PathBuf]) -> HashMap<String, Known> {
    let mut known: HashMap<String, Known> = HashMap::new();
    for (place, path) in files.iter().enumerate() {
        let Ok(mut rows) = open(path, &Arc::default()) else {
            continue;
        };
        let mut before: Option<String> = None;
        // A line of which nobody can tell to which invoice it belongs, since the last line that tells.
        let mut stray: Option<u64> = None;
        while let Some(row) = rows.next() {
            let (line, document, sold_by) = match read(&rows, row) {
                Ok(sold) => (sold.line, sold.invoice, Some(sold.by)),
                Err(BadLine { line, document, .. }) => match document {
                    Some(document) => (line, (*document).to_owned(), None),
                    None => {
                        stray = stray.or(Some(line));
                        continue;
                    }
                },
            };
            // Between two lines of one invoice it is one of this invoice.
            let strayed = stray.take().filter(|_| before.as_ref() == Some(&document));
            let invoice = known.entry(document.clone()).or_insert_with(|| Known {
                first: sold_by.clone().unwrap_or_default(),
                last: (place, line),
                held_back_for: None,
            });
            invoice.last = (place, line);
            let is_bad = sold_by.is_none_or(|by| by != invoice.first);
            let cause = strayed.or(is_bad.then_some(line));
            if let Some(line) = cause {
                invoice.held_back_for.get_or_insert((rows.file().clone(), line));
            }
            before = Some(document);
        }
        // A file that is cut off ends in the middle of its last invoice.
        if let (Some(line), Some(invoice)) = (stray, before.and_then(|document| known.get_mut(&document))) {
            invoice.held_back_for.get_or_insert((rows.file().clone(), line));
        }
    }
    known
}

/// File after file; one is read when the one before it has been given out.
struct Days {
    known: HashMap<String, Known>,
    files: VecDeque<(usize, PathBuf)>,
    reading: Reading,
    progress: Arc<Progress>,
    current: Option<(usize, Rows)>,
    /// The invoices whose last line was not read yet.
    open: HashMap<String, Invoice>,
    registered: HashSet<u64>,
    ready: VecDeque<Result<ImportLine, BadLine>>,
}

impl Iterator for Days {
    type Item = Result<ImportLine, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if !self.read_on() {
                return None;
            }
        }
    }
}

impl Days {
    fn of(files: Vec<PathBuf>, reading: &Reading, progress: Arc<Progress>) -> Days {
        Days {
            known: survey(&files),
            files: files.into_iter().enumerate().collect(),
            reading: reading.clone(),
            progress,
            current: None,
            open: HashMap::new(),
            registered: HashSet::new(),
            ready: VecDeque::new(),
        }
    }

    /// Reads a line; `false` when there is none.
    fn read_on(&mut self) -> bool {
        let Some((place, rows)) = &mut self.current else {
            return self.open_next();
        };
        let place = *place;
        let Some(row) = rows.next() else {
            self.current = None;
            return true;
        };
        let (line, document) = match read(rows, row) {
            Ok(sold) => {
                let (line, document) = (sold.line, sold.invoice.clone());
                let file = rows.file().clone();
                let keeps = self
                    .known
                    .get(&document)
                    .is_some_and(|known| known.held_back_for.is_none());
                let invoice = self
                    .open
                    .entry(document.clone())
                    .or_insert_with(|| Invoice::begin(&sold, &file));
                if let Err(reason) = invoice.add(place, &file, sold, keeps) {
                    self.ready.push_back(Err(rows.bad(line, Some(&document), reason)));
                }
                (line, document)
            }
            Err(bad) => {
                let (line, document) = (bad.line, bad.document.clone());
                self.ready.push_back(Err(bad));
                let Some(document) = document else { return true };
                let file = rows.file().clone();
                let invoice = self.open.entry((*document).to_owned());
                invoice.or_insert_with(|| Invoice::unknown(&document, &file, line));
                (line, (*document).to_owned())
            }
        };
        let is_last = self
            .known
            .get(&document)
            .is_none_or(|known| known.last == (place, line));
        if is_last && let Some(invoice) = self.open.remove(&document) {
            self.give_out(invoice);
        }
        true
    }

    fn open_next(&mut self) -> bool {
        let Some((place, path)) = self.files.pop_front() else {
            let mut left: Vec<Invoice> = self.open.drain().map(|(_, invoice)| invoice).collect();
            left.sort_by(|a, b| a.number.cmp(&b.number));
            for invoice in &left {
                let reason = "the file changed while it was read";
                self.ready.push_back(Err(invoice.held_back(reason.to_owned())));
            }
            return !left.is_empty();
        };
        match open(&path, &self.progress) {
            Ok(rows) => self.current = Some((place, rows)),
            Err(bad) => self.ready.push_back(Err(bad)),
        }
        true
    }

    fn give_out(&mut self, mut invoice: Invoice) {
        let known = self.known.remove(&invoice.number);
        let cause = known.as_ref().and_then(|known| known.held_back_for.as_ref());
        if let Some((file, line)) = cause {
            let reason = format!("the invoice is held back whole, for {file}, line {line}");
            self.ready.push_back(Err(invoice.held_back(reason)));
            return;
        }
        match invoice.put_together() {
            Ok(doubles) => self.ready.extend(doubles.into_iter().map(Err)),
            Err(held_back) => {
                self.ready.push_back(Err(held_back));
                return;
            }
        }
        let key = match invoice.by.customer {
            Some(customer) => keyed_id(StreamKind::Customer, NAME, &customer.to_string()).id,
            None => keyed_id(StreamKind::Purchase, NAME, &invoice.number).id,
        };
        if let Some(customer) = invoice.by.customer
            && self.registered.insert(customer)
        {
            self.ready.push_back(Ok(register(customer, &invoice, key)));
        }
        self.ready.push_back(Ok(record(invoice, &self.reading, key)));
    }
}

/// A line of a file that makes sense.
struct SoldLine {
    line: u64,
    invoice: String,
    is_return: bool,
    at: Timestamp,
    by: SoldBy,
    item: Item,
}

/// What all lines of an invoice have in common.
#[derive(Debug, Clone, Default, PartialEq)]
struct SoldBy {
    date: Date,
    customer: Option<u64>,
    country: String,
}

/// What was sold, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    sku: String,
    name: String,
    quantity: Decimal,
    price: Decimal,
}

struct Invoice {
    number: String,
    is_return: bool,
    /// The earliest of its lines: a long invoice is rung up over minutes.
    at: Timestamp,
    by: SoldBy,
    parts: Vec<Part>,
}

/// What one file has of an invoice.
struct Part {
    place: usize,
    file: Arc<str>,
    /// Where it begins.
    line: u64,
    items: Vec<Item>,
}

impl Invoice {
    fn begin(first: &SoldLine, file: &Arc<str>) -> Invoice {
        Invoice {
            is_return: first.is_return,
            at: first.at,
            by: first.by.clone(),
            ..Invoice::unknown(&first.invoice, file, first.line)
        }
    }

    /// Of which nothing but its number is known yet.
    fn unknown(number: &str, file: &Arc<str>, line: u64) -> Invoice {
        Invoice {
            number: number.to_owned(),
            is_return: false,
            at: Timestamp::MAX,
            by: SoldBy::default(),
            parts: vec![Part {
                place: usize::MAX,
                file: file.clone(),
                line,
                items: Vec::new(),
            }],
        }
    }

    /// Lines of an invoice that is held back are looked at, and not kept.
    fn add(&mut self, place: usize, file: &Arc<str>, sold: SoldLine, keeps: bool) -> Result<(), &'static str> {
        if self.by == SoldBy::default() {
            self.by = sold.by.clone();
        }
        if sold.by.customer != self.by.customer {
            return Err("another customer than the invoice began with");
        }
        if sold.by.country != self.by.country {
            return Err("another country than the invoice began with");
        }
        if sold.by.date != self.by.date {
            return Err("another day than the invoice began on");
        }
        self.at = self.at.min(sold.at);
        if !keeps {
            return Ok(());
        }
        if let [begun] = self.parts.as_mut_slice()
            && begun.place == usize::MAX
        {
            begun.place = place;
        }
        if self.parts.last().is_none_or(|part| part.place != place) {
            self.parts.push(Part {
                place,
                file: file.clone(),
                line: sold.line,
                items: Vec::new(),
            });
        }
        self.parts.last_mut().expect("there is a part").items.push(sold.item);
        Ok(())
    }

    fn bad(&self, part: &Part, what: What, reason: String) -> BadLine {
        BadLine {
            file: part.file.clone(),
            line: part.line,
            document: Some(self.number.as_str().into()),
            what,
            reason,
        }
    }

    fn held_back(&self, reason: String) -> BadLine {
        self.bad(&self.parts[0], What::HeldBack, reason)
    }

    /// Puts the parts of several files together, and says which files have the same as a file before.
    fn put_together(&mut self) -> Result<Vec<BadLine>, BadLine> {
        let mut doubles = Vec::new();
        let mut whole: Vec<usize> = vec![0];
        let sorted = |part: &Part| {
            let mut items = part.items.clone();
            items.sort_unstable();
            items
        };
        for (place, part) in self.parts.iter().enumerate().skip(1) {
            let same = whole.iter().find(|other| sorted(&self.parts[**other]) == sorted(part));
            if let Some(same) = same {
                let first = &self.parts[*same];
                let reason = format!("the invoice stands in {}, line {} already", first.file, first.line);
                doubles.push(self.bad(part, What::Double, reason));
                continue;
            }
            let skus: BTreeSet<&str> = part.items.iter().map(|item| item.sku.as_str()).collect();
            let others = whole.iter().map(|other| &self.parts[*other]);
            let same_products = others
                .filter(|other| other.items.iter().any(|item| skus.contains(item.sku.as_str())))
                .map(|other| format!("{}, line {}", other.file, other.line))
                .next();
            if let Some(other) = same_products {
                let reason = format!(
                    "the invoice is held back whole, for it stands in {}, line {} and in {other} with different lines: \
                     give the file that is right by itself",
                    part.file, part.line
                );
                return Err(self.held_back(reason));
            }
            whole.push(place);
        }
        for place in whole.into_iter().skip(1) {
            let items = std::mem::take(&mut self.parts[place].items);
            self.parts[0].items.extend(items);
        }
        Ok(doubles)
    }
}

fn sold_line(row: &Row) -> Result<SoldLine, &'static str> {
    let [invoice, sku, name, quantity, at, price, customer, country] = row.columns();
    let (invoice, is_return) = invoice_number(invoice)?;
    if sku.is_empty() {
        return Err("the stock code is blank");
    }
    let quantity = exact_decimal(quantity).ok_or("the quantity is no number")?;
    if quantity.abs() > Decimal::from(QUANTITY_MAX) || !quantity.fract().is_zero() {
        return Err("the quantity is no whole number of at most 100,000,000");
    }
    let (at, date) = local_time(at).ok_or("the date is no time such as 2010-12-01 08:26:00")?;
    if !is_plausible(date) {
        return Err("the date's year is not one from 1900 to 2200, in four digits");
    }
    let price = exact_decimal(price).ok_or("the unit price is no number")?;
    if price.abs() > Decimal::from(PRICE_MAX) || price.normalize().scale() > PRICE_DECIMALS_MAX {
        return Err("the unit price has more than 6 decimals or is beyond 100,000,000");
    }
    if (quantity * price).abs() > Decimal::from(AMOUNT_MAX) {
        return Err("the amount is beyond 1,000,000,000");
    }
    if is_return && quantity > Decimal::ZERO {
        return Err("a return with a positive quantity");
    }
    if is_return && quantity * price > Decimal::ZERO {
        return Err("a return with a positive amount");
    }
    let customer = customer_number(customer)?;
    if country.is_empty() {
        return Err("the country is blank");
    }
    Ok(SoldLine {
        line: row.line,
        invoice: invoice.to_owned(),
        is_return,
        at,
        by: SoldBy {
            date,
            customer,
            country: country.to_owned(),
        },
        item: Item {
            sku: sku.to_owned(),
            name: name.to_owned(),
            quantity: quantity.normalize(),
            price: price.normalize(),
        },
    })
}

/// Up to twelve digits, with a C before them in a return.
fn invoice_number(text: &str) -> Result<(&str, bool), &'static str> {
    let (digits, is_return) = match text.strip_prefix('C') {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if text.is_empty() {
        return Err("the invoice number is blank");
    }
    if text.starts_with('A') {
        return Err("an adjustment of bad debt is no purchase");
    }
    let is_number = (1..=12).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    match is_number {
        true => Ok((text, is_return)),
        false => Err("the invoice number is no number, with a C before it in a return"),
    }
}

fn local_time(text: &str) -> Option<(Timestamp, Date)> {
    let local = DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    let at = LONDON.to_timestamp(local).ok()?;
    Some((at, local.date()))
}

/// The column went through a spreadsheet once: customer 17850 is `17850.0`.
fn customer_number(text: &str) -> Result<Option<u64>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.strip_suffix(".0").unwrap_or(text);
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_number);
    number.map(Some).ok_or("the customer is no number")
}

/// Says the same whichever invoice comes first; a customer's country is that of the single invoice.
fn register(customer: u64, invoice: &Invoice, key: Uuid) -> ImportLine {
    let customer = customer.to_string();
    let command = json!({"type": "register", "kind": "person", "name": format!("Customer {customer}")});
    ImportLine {
        incoming: incoming(StreamKind::Customer, keyed(NAME, &customer), command),
        command_id: command_id(NAME, &["customer", &customer]),
        ask_anew: None,
        upsert: false,
        effective_at: Some(CUSTOMERS_KNOWN_SINCE),
        actor: actor(),
        correlation: None,
        file: invoice.parts[0].file.clone(),
        line: invoice.parts[0].line,
        document: Some(invoice.number.as_str().into()),
        by_content: false,
        is_change: false,
        key,
    }
}

fn record(mut invoice: Invoice, reading: &Reading, key: Uuid) -> ImportLine {
    let part = invoice.parts.swap_remove(0);
    let lines: Vec<Value> = part.items.into_iter().map(Item::into_json).collect();
    let mut command = json!({
        "type": "correct",
        "kind": if invoice.is_return { "return" } else { "sale" },
        "source": NAME,
        "store": format!("country:{}", invoice.by.country),
        "receipt": invoice.number,
        "business_date": invoice.by.date,
        "currency": "GBP",
        "lines": lines,
    });
    match reading.corrections {
        Corrections::Apply => {}
        Corrections::Refuse => command["type"] = "record".into(),
        Corrections::Reinstate => command["reinstate"] = true.into(),
    }
    if let Some(customer) = invoice.by.customer {
        command["customer"] = json!({"key": [NAME, customer.to_string()]});
    }
    let content = format!("{command} {}", invoice.at);
    ImportLine {
        incoming: incoming(StreamKind::Purchase, keyed(NAME, &invoice.number), command),
        command_id: command_id(NAME, &["invoice", &invoice.number, &content]),
        ask_anew: Some(command_id(NAME, &["invoice", &invoice.number, &content, &reading.run])),
        upsert: false,
        effective_at: Some(invoice.at),
        actor: actor(),
        correlation: None,
        file: part.file,
        line: part.line,
        document: Some(invoice.number.into()),
        by_content: false,
        is_change: false,
        key,
    }
}

impl Item {
    /// As `purchase` takes it.
    fn into_json(self) -> Value {
        let mut line = json!({
            "sku": self.sku, "quantity": self.quantity.to_string(), "unit_price": self.price.to_string(),
        });
        if !self.name.is_empty() {
            line["name"] = self.name.into();
        }
        line
    }
}

fn actor() -> Actor {
    Actor::parse("integration:online-retail").expect("an actor")
}

#[cfg(test)]
mod specs {
    use domain::{AnyState, Fact, purchase};

    use super::*;
    use crate::sources::spec::{Folded, real_input};

    fn read(folded: &mut Folded, path: &Path) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let reading = Reading {
            corrections: Corrections::Apply,
            run: "spec".to_owned(),
        };
        folded.take_all(OnlineRetail.lines(path, &reading, progress.clone()).unwrap());
        progress
    }

    /// Reads files of these names and lines, all of them in one run.
    fn read_files(folded: &mut Folded, run: &str, files: &[(&str, &[&str])]) {
        let folder = tempfile::tempdir().unwrap();
        for (name, lines) in files {
            let header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";
            std::fs::write(folder.path().join(name), format!("{header}\n{}\n", lines.join("\n"))).unwrap();
        }
        let reading = Reading {
            corrections: Corrections::Apply,
            run: run.to_owned(),
        };
        folded.take_all(OnlineRetail.lines(folder.path(), &reading, Arc::default()).unwrap());
    }

    /// A line of an invoice: number, product, quantity, price.
    fn line(invoice: &str, sku: &str, quantity: &str, price: &str) -> String {
        format!("{invoice},{sku},X,{quantity},2010-12-01 08:26:00,{price},,Spain")
    }

    #[test]
    fn only_documents_that_are_not_complete_are_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";
        let mut lines = vec![header.to_owned()];
        for invoice in 536_000..537_000 {
            lines.extend(["A", "B", "C"].map(|sku| line(&invoice.to_string(), sku, "1", "1")));
            // Two tills write their lines in turns.
            if invoice % 100 == 0 {
                let other = (invoice + 1_000).to_string();
                lines.push(line(&other, "A", "1", "1"));
                lines.push(line(&invoice.to_string(), "D", "1", "1"));
                lines.push(line(&other, "B", "1", "1"));
            }
        }
        let file = folder.path().join("day.csv");
        std::fs::write(&file, lines.join("\n")).unwrap();
        let reading = Reading {
            corrections: Corrections::Apply,
            run: "spec".to_owned(),
        };
        let mut days = Days::of(vec![file], &reading, Arc::default());
        let (mut documents, mut most) = (0, (0, 0));
        while let Some(given) = days.next() {
            assert!(given.is_ok());
            documents += 1;
            most = (most.0.max(days.open.len()), most.1.max(days.ready.len()));
        }
        assert_eq!(documents, 1_010);
        // What is open besides the one that was given out, and what waits to be given out with it.
        assert_eq!(most, (1, 0));
    }

    /// File, line, document and what is said of it.
    fn found(folded: &Folded) -> Vec<String> {
        let found = folded.bad.iter().map(|bad| {
            let document = bad.document.as_deref().unwrap_or("-");
            format!("{} {} {document} {:?}: {}", bad.file, bad.line, bad.what, bad.reason)
        });
        found.collect()
    }

    /// What the invoice comes to now, in pence.
    fn total(folded: &Folded, number: &str) -> Option<i64> {
        let stream = keyed_id(StreamKind::Purchase, NAME, number);
        match folded.states.get(&stream) {
            Some(AnyState::Purchase(state)) if !state.voided => Some(state.purchase.as_ref()?.total_minor),
            _ => None,
        }
    }

    #[test]
    fn an_invoice_with_a_bad_line_is_held_back_whole_and_recorded_when_it_is_right() {
        let mut folded = Folded::default();
        let (tea, cup) = (line("539902", "A", "1", "2.00"), line("539902", "B", "one", "3.00"));
        let other = line("539903", "A", "1", "2.00");
        read_files(&mut folded, "1", &[("i.csv", &[&tea, &cup, &other])]);
        assert_eq!(
            found(&folded),
            [
                "i.csv 3 539902 NoSense: the quantity is no number",
                "i.csv 2 539902 HeldBack: the invoice is held back whole, for i.csv, line 3",
            ]
        );
        assert_eq!((total(&folded, "539902"), total(&folded, "539903")), (None, Some(200)));
        let cup = cup.replace(",one,", ",1,");
        read_files(&mut folded, "2", &[("i.csv", &[&tea, &cup, &other])]);
        assert_eq!(
            (total(&folded, "539902"), total(&folded, "539903")),
            (Some(500), Some(200))
        );
        assert_eq!((folded.rejected, folded.facts.len()), (vec![], 2));
    }

    #[test]
    fn a_bad_line_holds_its_invoice_back_in_every_file_of_the_run() {
        let mut folded = Folded::default();
        let (good, bad) = (line("1", "A", "1", "2.00"), line("1", "B", "1", "2_00"));
        read_files(&mut folded, "1", &[("a.csv", &[&good]), ("b.csv", &[&bad])]);
        assert_eq!(
            found(&folded),
            [
                "b.csv 2 1 NoSense: the unit price is no number",
                "a.csv 2 1 HeldBack: the invoice is held back whole, for b.csv, line 2",
            ]
        );
        assert_eq!(total(&folded, "1"), None);
    }

    #[test]
    fn an_invoice_in_two_files_is_a_double_or_has_parts_or_is_held_back() {
        let (a, b) = (line("1", "A", "1", "2.00"), line("1", "B", "2", "3.00"));
        let read_two = |first: &[&str], second: &[&str]| {
            let mut folded = Folded::default();
            read_files(&mut folded, "1", &[("a.csv", first), ("b.csv", second)]);
            (total(&folded, "1"), found(&folded))
        };
        let double = "b.csv 2 1 Double: the invoice stands in a.csv, line 2 already".to_owned();
        assert_eq!(read_two(&[&a, &b], &[&b, &a]), (Some(800), vec![double]));
        assert_eq!(read_two(&[&a], &[&b]), (Some(800), vec![]));
        let held_back = "a.csv 2 1 HeldBack: the invoice is held back whole, for it stands in b.csv, line 2 and in a.csv, \
                         line 2 with different lines: give the file that is right by itself";
        let other = line("1", "A", "9", "2.00");
        assert_eq!(read_two(&[&a, &b], &[&other]), (None, vec![held_back.to_owned()]));
    }

    #[test]
    fn a_corrected_invoice_replaces_the_old_one_and_an_old_file_is_refused() {
        let mut folded = Folded::default();
        let (short, whole) = (line("1", "A", "1", "2.00"), line("1", "B", "2", "3.00"));
        let run = |folded: &mut Folded, run: &str, lines: &[&str]| {
            read_files(folded, run, &[("i.csv", lines)]);
            total(folded, "1")
        };
        assert_eq!(run(&mut folded, "1", &[&short]), Some(200));
        assert_eq!(run(&mut folded, "2", &[&short, &whole]), Some(800));
        // Another order of lines, and 2.0 for 2, are the same invoice.
        let written = whole.replace(",2,", ",2.0,");
        assert_eq!(run(&mut folded, "3", &[&written, &short]), Some(800));
        assert_eq!((folded.facts.len(), folded.rejected.len()), (2, 0));
        assert_eq!(run(&mut folded, "4", &[&short]), Some(800));
        let refused = std::mem::take(&mut folded.rejected);
        assert!(refused[0].contains("an earlier version of the receipt"), "{refused:?}");
        // The customer becomes known.
        let known = |line: &str| line.replace(",,Spain", ",17850,Spain");
        assert_eq!(run(&mut folded, "5", &[&known(&short), &known(&whole)]), Some(800));
        let attached = |fact: &Fact| matches!(fact, Fact::Purchase(purchase::Event::CustomerAttached { .. }));
        assert_eq!((folded.count(attached), folded.rejected), (1, vec![]));
    }

    #[test]
    fn a_line_of_which_nobody_can_tell_whose_it_is_belongs_to_the_invoice_around_it() {
        let (a, b, c) = (
            line("1", "A", "1", "2"),
            line("1", "B", "1", "2"),
            line("2", "A", "1", "2"),
        );
        let junk = "\u{1} the printer was here";
        let read_lines = |lines: &[&str]| {
            let mut folded = Folded::default();
            read_files(&mut folded, "1", &[("i.csv", lines)]);
            (total(&folded, "1"), total(&folded, "2"))
        };
        assert_eq!(read_lines(&[junk, &a, &b, junk, &c]), (Some(400), Some(200)));
        assert_eq!(read_lines(&[&a, junk, &b, &c]), (None, Some(200)));
        // The end of a file that was cut off.
        assert_eq!(read_lines(&[&a, &b, &c, junk]), (Some(400), None));
    }

    #[test]
    fn columns_may_stand_in_another_order_and_have_their_other_names() {
        let mut folded = Folded::default();
        let folder = tempfile::tempdir().unwrap();
        let text = "\u{feff}Country,Price,Note,Invoice,StockCode,Description,Quantity,InvoiceDate,Customer ID\r\n\
                    Spain,2.50,hi,7,A,TEA,2,2010-12-01 08:26:00,17850\r\n";
        std::fs::write(folder.path().join("i.csv"), text).unwrap();
        read(&mut folded, folder.path());
        assert_eq!((total(&folded, "7"), found(&folded)), (Some(500), vec![]));
    }

    fn net_minor(folded: &Folded) -> i64 {
        let mut net_minor = 0;
        for (_, _, fact) in &folded.facts {
            if let Fact::Purchase(purchase::Event::Recorded { total_minor, .. }) = fact {
                net_minor += total_minor;
            }
        }
        net_minor
    }

    #[test]
    fn december_2010_comes_out_to_the_penny() {
        let Some(folder) = real_input(NAME) else { return };
        let mut folded = Folded::default();
        let progress = read(&mut folded, &folder);
        assert_eq!(
            (progress.files(), progress.rows(), progress.unchanged()),
            (20, 42_481, 0)
        );
        assert_eq!(progress.bytes(), OnlineRetail.size_bytes(&folder).unwrap());
        assert_eq!((&folded.rejected, &folded.bad), (&vec![], &vec![]));
        let (mut invoices, mut returns, mut lines, mut without_customer) = (0, 0, 0, 0);
        for (_, _, fact) in &folded.facts {
            let Fact::Purchase(purchase::Event::Recorded {
                kind,
                lines: its,
                customer,
                store,
                ..
            }) = fact
            else {
                continue;
            };
            invoices += 1;
            returns += usize::from(*kind == purchase::Kind::Return);
            lines += its.len();
            without_customer += if customer.is_none() { its.len() } else { 0 };
            assert!(store.as_ref().unwrap().starts_with("country:"));
        }
        assert_eq!(
            (invoices, returns, lines, without_customer),
            (2_025, 326, 42_481, 15_631)
        );
        let customers = folded
            .states
            .values()
            .filter(|state| matches!(state, AnyState::Customer(_)));
        assert_eq!(customers.count(), 948);
        assert_eq!(net_minor(&folded), 74_895_702);
    }

    #[test]
    fn days_that_come_twice_or_in_another_order_change_nothing() {
        let Some(folder) = real_input(NAME) else { return };
        let mut once = Folded::default();
        read(&mut once, &folder);
        let mut days = files(&folder).unwrap();
        days.reverse();
        let mut backwards = Folded::default();
        for day in &days {
            read(&mut backwards, day);
        }
        assert_eq!(backwards.states, once.states);
        let facts = backwards.facts.len();
        read(&mut backwards, &folder);
        assert_eq!((backwards.facts.len(), backwards.rejected), (facts, vec![]));
    }

    #[test]
    fn a_file_that_is_too_large_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("a.csv", FILE_BYTES_MAX), ("b.csv", FILE_BYTES_MAX + 1)] {
            // With nothing in it, not even on the disk.
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.set_len(bytes).unwrap();
        }
        let mut folded = Folded::default();
        read(&mut folded, folder.path());
        let reasons: Vec<&str> = folded.bad.iter().map(|bad| bad.reason.as_str()).collect();
        let [read, left_out] = reasons[..] else {
            panic!("{reasons:?}")
        };
        assert_eq!(read, "longer than 65536 bytes");
        assert_eq!(left_out, "the file is left out: it has more than 268435456 bytes");
    }

    #[test]
    fn numbers_are_taken_up_to_their_bounds() {
        let outcome = |quantity: &str, price: &str| {
            let columns = [
                "536365",
                "85123A",
                "X",
                quantity,
                "2010-12-01 08:26:00",
                price,
                "17850.0",
                "United Kingdom",
            ];
            sold_line(&Row::of(2, &columns)).err()
        };
        let quantity = Some("the quantity is no whole number of at most 100,000,000");
        let price = Some("the unit price has more than 6 decimals or is beyond 100,000,000");
        let amount = Some("the amount is beyond 1,000,000,000");
        assert_eq!(outcome("100000000", "10"), None);
        assert_eq!(outcome("100000001", "0.01"), quantity);
        assert_eq!(outcome("10", "100000000"), None);
        assert_eq!(outcome("1", "100000000.01"), price);
        assert_eq!(outcome("1", "0.123456"), None);
        assert_eq!(outcome("1", "0.1234567"), price);
        assert_eq!(outcome("100000000", "10.000001"), amount);
    }

    #[test]
    fn a_line_that_makes_no_sense_stops_nothing_else() {
        let good = "536365,85123A,T-LIGHT HOLDER ,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n";
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        let mut file = names.join(",").into_bytes();
        file.push(b'\n');
        file.extend(good.as_bytes());
        let bad: [(&[u8], &str); 22] = [
            (
                b"536365,85123A,X\0,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "it has the character NUL",
            ),
            (
                b"536365,85123A,X,99999999,2010-12-01 08:26:00,99999999,17850.0,United Kingdom",
                "the amount is beyond 1,000,000,000",
            ),
            (
                b"536365,85123A,X,six,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "the quantity is no number",
            ),
            (
                b"536365,85123A,X,0.5,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "the quantity is no whole number of at most 100,000,000",
            ),
            (
                b"536365,85123A,X,6,2010-02-31 08:26:00,2.55,17850.0,United Kingdom",
                "the date is no time such as 2010-12-01 08:26:00",
            ),
            (
                b"536365,85123A,X,6,10-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "the date's year is not one from 1900 to 2200, in four digits",
            ),
            (
                b"536365,85123A,X,6,9999-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "the date's year is not one from 1900 to 2200, in four digits",
            ),
            (
                b"536365,85123A,X,1_0,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "the quantity is no number",
            ),
            (
                b"536365,85123A,X,1,2010-12-01 08:26:00,2_55,17850.0,United Kingdom",
                "the unit price is no number",
            ),
            (
                b"536365,85123A,X,6,,2.55,17850.0,United Kingdom",
                "the date is no time such as 2010-12-01 08:26:00",
            ),
            (
                b"536365,85123A,X,6,2010-12-01 08:26:00,1e3,17850.0,United Kingdom",
                "the unit price is no number",
            ),
            (
                b"536365,85123A,X,6,2010-12-01 08:26:00,2.55,17850.0",
                "7 columns instead of 8",
            ),
            (
                b"536365,85123A,\"X,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "3 columns instead of 8",
            ),
            (
                b"536365,85123A,\xff,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "not UTF-8",
            ),
            (
                b",85123A,X,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "the invoice number is blank",
            ),
            (
                b"A563185,B,Adjust bad debt,1,2010-12-01 08:26:00,11062.06,,United Kingdom",
                "an adjustment of bad debt is no purchase",
            ),
            (
                b"53-65,85123A,X,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "the invoice number is no number, with a C before it in a return",
            ),
            (
                b"536365,,X,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "the stock code is blank",
            ),
            (
                b"536365,85123A,X,6,2010-12-01 08:26:00,2.55,Mr Smith,United Kingdom",
                "the customer is no number",
            ),
            (
                b"536365,85123A,X,6,2010-12-01 08:26:00,2.55,17851.0,United Kingdom",
                "another customer than the invoice began with",
            ),
            (
                b"C536366,85123A,X,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
                "a return with a positive quantity",
            ),
            (
                b"536365,85123A,X,6,2010-12-02 00:01:00,2.55,17850.0,United Kingdom",
                "another day than the invoice began on",
            ),
        ];
        let mut expected = Vec::new();
        for (place, (line, reason)) in bad.iter().enumerate() {
            file.extend(*line);
            file.extend(b"\r\n");
            expected.push((3 + place as u64, reason.to_string()));
        }
        let held_back = "the invoice is held back whole, for a.csv, line 3";
        expected.push((2, held_back.to_owned()));
        // A return of its own, of one line.
        expected.insert(
            21,
            (23, "the invoice is held back whole, for a.csv, line 23".to_owned()),
        );
        let quoted = good
            .replace("536365", "536370")
            .replace(",6,", ",1,")
            .replace("T-LIGHT HOLDER ", "\"T-LIGHT, \"\"HOLDER\"\"\"");
        file.extend(quoted.as_bytes());
        file.extend(vec![b'x'; 70_000]);
        file.extend(b"\n\n");
        let last = good.replace("536365", "536371").replace(",6,", ",2,");
        file.extend(last.trim_end().as_bytes());
        expected.push((26, "longer than 65536 bytes".to_owned()));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.csv"), file).unwrap();
        std::fs::write(folder.path().join("b.csv"), "Name,Cost\nx,1\n").unwrap();
        std::fs::write(folder.path().join("c.CSV"), "").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no till wrote this").unwrap();

        let mut folded = Folded::default();
        let progress = read(&mut folded, folder.path());
        let mut found: Vec<_> = folded
            .bad
            .iter()
            .map(|bad| (&*bad.file, bad.line, bad.reason.as_str()))
            .collect();
        assert_eq!(
            found.split_off(25),
            [
                (
                    "b.csv",
                    1,
                    "the file is left out: its header has no column InvoiceNo, StockCode, Description, Quantity, \
                     InvoiceDate, UnitPrice, CustomerID, Country"
                ),
                ("c.CSV", 0, "the file is empty"),
            ]
        );
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, reason)| ("a.csv", *line, reason.as_str()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!((progress.rows(), progress.files()), (26, 3));
        assert_eq!(net_minor(&folded), 3 * 255);
        assert_eq!(folded.rejected, Vec::<String>::new());
    }

    #[test]
    fn the_till_shows_british_time() {
        let (winter, day) = local_time("2010-12-01 08:26:00").unwrap();
        assert_eq!(
            (winter.to_string(), day.to_string()),
            ("2010-12-01T08:26:00Z".into(), "2010-12-01".into())
        );
        let (summer, _) = local_time("2011-07-01 08:26:00").unwrap();
        assert_eq!(summer.to_string(), "2011-07-01T07:26:00Z");
    }
}
