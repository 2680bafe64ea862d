//! A shop's tills, one file a day (UCI Online Retail): lines of invoices; invoices that begin with C are returns.
//!
//! An invoice is a purchase whose identity is its number, and a customer is known by number only. Neither depends on which file came
//! first: a day that comes twice, or the days in another order, change nothing.
//!
//! A line that makes no sense is left out and reported, and the others of its invoice are recorded: the report says which invoice
//! to look at.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, bail};
use domain::{Actor, StreamKind};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::rows::{Row, Rows, file_name};
use super::{BadLine, ImportLine, Lines, Progress, Source, command_id, incoming, keyed, keyed_id};

const NAME: &str = "online-retail";
const HEADER: &[&str] = &[
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
];

/// A day is held in memory until it is read, for the lines of an invoice need not stand together.
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

    fn size_bytes(&self, path: &Path) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for file in files(path)? {
            bytes += file.metadata()?.len();
        }
        Ok(bytes)
    }

    fn lines(&self, path: &Path, progress: Arc<Progress>) -> anyhow::Result<Lines> {
        Ok(Box::new(Days {
            files: files(path)?.into(),
            progress,
            registered: HashSet::new(),
            ready: VecDeque::new(),
        }))
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

/// File after file; one is read when the one before it has been given out.
struct Days {
    files: VecDeque<PathBuf>,
    progress: Arc<Progress>,
    registered: HashSet<u64>,
    ready: VecDeque<Result<ImportLine, BadLine>>,
}

impl Iterator for Days {
    type Item = Result<ImportLine, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            let file = self.files.pop_front()?;
            self.read(&file);
        }
        self.ready.pop_front()
    }
}

impl Days {
    fn read(&mut self, path: &Path) {
        let bad_file = |reason: String| BadLine {
            file: file_name(path),
            line: 0,
            reason,
        };
        let rows = path.metadata().and_then(|file| match file.len() > FILE_BYTES_MAX {
            true => Err(std::io::Error::other(format!(
                "it has more than {FILE_BYTES_MAX} bytes"
            ))),
            false => Rows::open(path, HEADER, self.progress.clone()),
        });
        let mut rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                let reason = format!("the file is left out: {error}");
                self.ready.push_back(Err(bad_file(reason)));
                return;
            }
        };
        let mut invoices: Vec<Invoice> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        while let Some(row) = rows.next() {
            let added = row.and_then(|row| {
                let sold = sold_line(&row).map_err(|reason| rows.bad(row.line, reason))?;
                let place = *places.entry(sold.invoice.clone()).or_insert_with(|| {
                    invoices.push(Invoice::begin(&sold, row.line));
                    invoices.len() - 1
                });
                invoices[place].add(sold).map_err(|reason| rows.bad(row.line, reason))
            });
            if let Err(bad) = added {
                self.ready.push_back(Err(bad));
            }
        }
        for invoice in invoices {
            self.give_out(invoice, rows.file());
        }
    }

    fn give_out(&mut self, invoice: Invoice, file: &Arc<str>) {
        let key = match invoice.customer {
            Some(customer) => keyed_id(StreamKind::Customer, NAME, &customer.to_string()).id,
            None => keyed_id(StreamKind::Purchase, NAME, &invoice.number).id,
        };
        if let Some(customer) = invoice.customer
            && self.registered.insert(customer)
        {
            self.ready.push_back(Ok(register(customer, file, invoice.line, key)));
        }
        self.ready.push_back(Ok(record(invoice, file, key)));
    }
}

/// A line of a file that makes sense.
struct SoldLine {
    invoice: String,
    is_return: bool,
    at: Timestamp,
    date: Date,
    customer: Option<u64>,
    country: String,
    /// As `purchase` takes it.
    line: Value,
}

struct Invoice {
    number: String,
    /// Where it begins in its file.
    line: u64,
    is_return: bool,
    /// The earliest of its lines: a long invoice is rung up over minutes.
    at: Timestamp,
    date: Date,
    customer: Option<u64>,
    country: String,
    lines: Vec<Value>,
}

impl Invoice {
    fn begin(first: &SoldLine, line: u64) -> Invoice {
        Invoice {
            number: first.invoice.clone(),
            line,
            is_return: first.is_return,
            at: first.at,
            date: first.date,
            customer: first.customer,
            country: first.country.clone(),
            lines: Vec::new(),
        }
    }

    fn add(&mut self, sold: SoldLine) -> Result<(), &'static str> {
        if sold.customer != self.customer {
            return Err("another customer than the invoice began with");
        }
        if sold.country != self.country {
            return Err("another country than the invoice began with");
        }
        if sold.date != self.date {
            return Err("another day than the invoice began on");
        }
        self.at = self.at.min(sold.at);
        self.lines.push(sold.line);
        Ok(())
    }
}

fn sold_line(row: &Row) -> Result<SoldLine, &'static str> {
    let column = |index: usize| row.columns[index].trim();
    let (invoice, is_return) = invoice_number(column(0))?;
    let sku = column(1);
    if sku.is_empty() {
        return Err("the stock code is blank");
    }
    let quantity = decimal(column(3)).ok_or("the quantity is no number")?;
    if quantity.abs() > Decimal::from(QUANTITY_MAX) || !quantity.fract().is_zero() {
        return Err("the quantity is no whole number of at most 100,000,000");
    }
    let (at, date) = local_time(column(4)).ok_or("the date is no time such as 2010-12-01 08:26:00")?;
    let price = decimal(column(5)).ok_or("the unit price is no number")?;
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
    let customer = customer_number(column(6))?;
    let country = column(7);
    if country.is_empty() {
        return Err("the country is blank");
    }
    let mut line = json!({"sku": sku, "quantity": column(3), "unit_price": column(5)});
    if !column(2).is_empty() {
        line["name"] = column(2).into();
    }
    Ok(SoldLine {
        invoice: invoice.to_owned(),
        is_return,
        at,
        date,
        customer,
        country: country.to_owned(),
        line,
    })
}

/// Six digits, with a C before them in a return.
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

fn decimal(text: &str) -> Option<Decimal> {
    Decimal::from_str_exact(text).ok()
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
    number.parse().map(Some).map_err(|_| "the customer is no number")
}

/// Says the same whichever invoice comes first; a customer's country is that of the single invoice.
fn register(customer: u64, file: &Arc<str>, line: u64, key: Uuid) -> ImportLine {
    let customer = customer.to_string();
    let command = json!({"type": "register", "kind": "person", "name": format!("Customer {customer}")});
    ImportLine {
        incoming: incoming(StreamKind::Customer, keyed(NAME, &customer), command),
        command_id: command_id(NAME, &["customer", &customer]),
        effective_at: Some(CUSTOMERS_KNOWN_SINCE),
        actor: actor(),
        correlation: None,
        file: file.clone(),
        line,
        key,
    }
}

fn record(invoice: Invoice, file: &Arc<str>, key: Uuid) -> ImportLine {
    let mut command = json!({
        "type": "record",
        "kind": if invoice.is_return { "return" } else { "sale" },
        "source": NAME,
        "store": format!("country:{}", invoice.country),
        "receipt": invoice.number,
        "business_date": invoice.date,
        "currency": "GBP",
        "lines": invoice.lines,
    });
    if let Some(customer) = invoice.customer {
        command["customer"] = json!({"key": [NAME, customer.to_string()]});
    }
    ImportLine {
        incoming: incoming(StreamKind::Purchase, keyed(NAME, &invoice.number), command),
        command_id: command_id(NAME, &["invoice", &invoice.number]),
        effective_at: Some(invoice.at),
        actor: actor(),
        correlation: None,
        file: file.clone(),
        line: invoice.line,
        key,
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
        folded.take_all(OnlineRetail.lines(path, progress.clone()).unwrap());
        progress
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
        assert!(read.starts_with("the file is left out: its header is not"), "{read}");
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
            let columns = csv::StringRecord::from(columns.to_vec());
            sold_line(&Row { line: 2, columns }).err()
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
        let mut file = HEADER.join(",").into_bytes();
        file.push(b'\n');
        file.extend(good.as_bytes());
        let bad: [(&[u8], &str); 18] = [
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
        let quoted = good
            .replace(",6,", ",1,")
            .replace("T-LIGHT HOLDER ", "\"T-LIGHT, \"\"HOLDER\"\"\"");
        file.extend(quoted.as_bytes());
        file.extend(vec![b'x'; 70_000]);
        file.extend(b"\n\n");
        file.extend(good.replace(",6,", ",2,").trim_end().as_bytes());
        expected.push((22, "longer than 65536 bytes".to_owned()));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.csv"), file).unwrap();
        std::fs::write(folder.path().join("b.csv"), "Name,Price\nx,1\n").unwrap();
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
            found.split_off(19),
            [
                (
                    "b.csv",
                    1,
                    "the file is left out: its header is not InvoiceNo,… (8 columns)"
                ),
                ("c.CSV", 0, "the file is empty"),
            ]
        );
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, reason)| ("a.csv", *line, reason.as_str()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!((progress.rows(), progress.files()), (22, 3));
        assert_eq!(net_minor(&folded), 9 * 255);
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
