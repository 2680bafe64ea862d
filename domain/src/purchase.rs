//! What a till or a shop took, receipt by receipt (消費紀錄; POS transaction, a sale or a return).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::ToSpan;
use jiff::civil::Date;
use rust_decimal::{Decimal, RoundingStrategy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::{
    Companion, Currency, Home, Id, Identity, MINOR_MAX, Moment, Money, Stream, StreamKind, StreamRef, at_the_door,
    id_from_parts,
};

/// More lines than this are no receipt but a file that lost its separators.
pub const LINES_MAX: usize = 10_000;
/// What the name of a store begins with that is a market of a shop without places: `country:Japan`.
const MARKET: &str = "country:";
/// A receipt that was corrected more often than this is two systems that disagree.
pub const VERSIONS_MAX: usize = 100;

/// Amounts are signed as the customer pays: a return's are negative.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Recorded {
        kind: Kind,
        source: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        store: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        till: Option<String>,
        receipt: String,
        business_date: Date,
        currency: Currency,
        lines: Vec<Line>,
        /// The sum of the lines.
        total_minor: i64,
        /// How much of the total is tax.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tax_minor: Option<i64>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tenders: Vec<Tender>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        customer: Option<Id<Customer>>,
        /// The receipt of the sale that this return takes back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
    },
    /// It belongs to `to` now. It carries what moves from one customer's sums to the other's.
    CustomerAttached {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Id<Customer>>,
        to: Id<Customer>,
        kind: Kind,
        source: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        store: Option<String>,
        receipt: String,
        business_date: Date,
        currency: Currency,
        total_minor: i64,
    },
    /// It never happened. It carries what leaves the sums; the lines are those of `Recorded`.
    Voided {
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        customer: Option<Id<Customer>>,
        kind: Kind,
        source: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        store: Option<String>,
        receipt: String,
        business_date: Date,
        currency: Currency,
        total_minor: i64,
    },
    /// It says this now, whatever it said before.
    Corrected {
        kind: Kind,
        source: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        store: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        till: Option<String>,
        receipt: String,
        business_date: Date,
        currency: Currency,
        lines: Vec<Line>,
        /// The sum of the lines.
        total_minor: i64,
        /// How much of the total is tax.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tax_minor: Option<i64>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tenders: Vec<Tender>,
        /// The customer it belongs to from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        customer: Option<Id<Customer>>,
        /// The receipt of the sale that this return takes back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
        /// What leaves the sums; nothing when it was void.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<Was>,
    },
}

/// What a receipt said before it was corrected, as far as sums need it. The lines are those of the event before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Was {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<Id<Customer>>,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    pub business_date: Date,
    pub currency: Currency,
    pub total_minor: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    pub sku: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(deserialize_with = "exact::text_or_integer")]
    pub quantity: Decimal,
    #[serde(deserialize_with = "exact::text")]
    #[schemars(schema_with = "exact::text_schema")]
    pub unit_price: Decimal,
    /// `quantity` times `unit_price`, rounded half-even to the currency's minor unit.
    pub amount_minor: i64,
}

/// How it was paid: cash, a card, a voucher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tender {
    #[serde(rename = "type")]
    pub kind: String,
    pub amount_minor: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Sale,
    Return,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Take in a receipt. Tills resend receipts after a power cut, so source, store, till, day and receipt are the id.
    Record {
        kind: Kind,
        source: String,
        store: Option<String>,
        till: Option<String>,
        receipt: String,
        /// The day whose takings it belongs to; after midnight that may still be yesterday. Tomorrow at the latest.
        #[serde(deserialize_with = "at_the_door::day")]
        #[schemars(schema_with = "at_the_door::day_schema")]
        business_date: Date,
        currency: Currency,
        lines: Vec<RungLine>,
        /// How much of the total is tax. The line amounts include it.
        tax_minor: Option<i64>,
        /// If any is given, they sum to the lines' total.
        #[serde(default)]
        tenders: Vec<Tender>,
        customer: Option<Id<Customer>>,
        /// The receipt of the sale that this return takes back.
        of: Option<String>,
    },
    /// Make the receipt say this, whatever it said before. The fields are those of `record`. A receipt that is not recorded yet is
    /// recorded. What it said before stays in the log: a question with `known_at` still gives the figures as they were reported.
    Correct {
        kind: Kind,
        source: String,
        store: Option<String>,
        till: Option<String>,
        receipt: String,
        /// The day whose takings it belongs to; after midnight that may still be yesterday. Tomorrow at the latest.
        #[serde(deserialize_with = "at_the_door::day")]
        #[schemars(schema_with = "at_the_door::day_schema")]
        business_date: Date,
        currency: Currency,
        lines: Vec<RungLine>,
        /// How much of the total is tax. The line amounts include it.
        tax_minor: Option<i64>,
        /// If any is given, they sum to the lines' total.
        #[serde(default)]
        tenders: Vec<Tender>,
        /// Left out, the receipt keeps the customer that it has.
        customer: Option<Id<Customer>>,
        /// The receipt of the sale that this return takes back.
        of: Option<String>,
        /// Without it, a content that was voided, or corrected by a later one, is refused: it is an old file that comes again.
        #[serde(default)]
        reinstate: bool,
    },
    /// It was this customer who bought, whoever it belonged to before.
    AttachCustomer { customer: Id<Customer> },
    /// It never happened: a training receipt, a slip of the till.
    Void { reason: String },
}

/// A line as the till rang it up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RungLine {
    pub sku: String,
    pub name: Option<String>,
    /// Negative in a return.
    #[serde(deserialize_with = "exact::text_or_integer")]
    #[schemars(schema_with = "exact::text_or_integer_schema")]
    pub quantity: Decimal,
    /// In major units, as text: `"2.55"`. Text only, because a bare 255 could be meant as minor units.
    #[serde(deserialize_with = "exact::text")]
    #[schemars(schema_with = "exact::text_schema")]
    pub unit_price: Decimal,
    /// Checked when given: `quantity` times `unit_price`, rounded half-even to the currency's minor unit.
    pub amount_minor: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such purchase; record it first")]
    NotRecorded,
    #[error("this receipt is already recorded with other content ({0}); send `correct` to replace it")]
    AlreadyRecorded(String),
    #[error(
        "this stream is receipt {known:?} of {system:?}; a correction cannot change the receipt number or the source"
    )]
    AnotherReceipt { system: String, known: String },
    #[error("this receipt was voided with this content; send `correct` with `reinstate` to restore it")]
    StaysVoid,
    #[error("this is an earlier version of the receipt; send `correct` with `reinstate` to go back to it")]
    Superseded,
    #[error("this receipt was corrected {VERSIONS_MAX} times already")]
    TooManyVersions,
    #[error("this receipt is already recorded for customer {0}; use attach-customer to change that")]
    BelongsTo(Id<Customer>),
    #[error("this receipt is recorded as purchase {0}; send the command there")]
    RecordedAs(Id<Purchase>),
    #[error("this purchase is void")]
    Voided,
    #[error("the {0} is empty")]
    Empty(&'static str),
    #[error("a purchase has at least one line")]
    NoLines,
    #[error("a purchase has at most {LINES_MAX} lines, this one has {0}")]
    TooManyLines(usize),
    #[error("line {0}: the sku is empty")]
    SkuMissing(usize),
    #[error("line {0}: the quantity of a return is negative")]
    PositiveQuantityInReturn(usize),
    #[error("line {0}: the amount of a return is not positive")]
    PositiveAmountInReturn(usize),
    #[error("line {line}: the amount is {given_minor}, quantity times unit price gives {computed_minor} (minor units)")]
    WrongAmount {
        line: usize,
        given_minor: i64,
        computed_minor: i64,
    },
    #[error("line {0}: the amount is too large, or has too many decimals to be exact")]
    AmountTooLarge(usize),
    #[error("the total is too large")]
    TotalTooLarge,
    #[error("the tax is {tax_minor}, the total {total_minor} (minor units): tax is a part of it")]
    TaxAboveTotal { tax_minor: i64, total_minor: i64 },
    #[error("a return takes something back: all its quantities are zero")]
    NothingReturned,
    #[error("receipt {0:?}, which this return takes back, is void")]
    SaleVoided(String),
    #[error("receipt {0:?}, which this return takes back, is a return itself")]
    NoSale(String),
    #[error("receipt {sale:?} was paid in {sold}, and this return gives back {returned}")]
    AnotherCurrency {
        sale: String,
        sold: Currency,
        returned: Currency,
    },
    #[error("receipt {sale:?} came to {sold_minor}, and this return gives back {returned_minor} (minor units)")]
    MoreThanSold {
        sale: String,
        sold_minor: i64,
        returned_minor: i64,
    },
    #[error("receipt {sale:?} has no {sku:?}, and this return gives some back")]
    NeverSold { sale: String, sku: String },
    #[error("receipt {sale:?} has {sold} of {sku:?}, and this return gives back {returned}")]
    MorePiecesThanSold {
        sale: String,
        sku: String,
        sold: Decimal,
        returned: Decimal,
    },
    #[error(
        "receipt {sale:?} is of {sold_on}, and this return is of {returned_on}: nothing comes back before it is sold"
    )]
    BeforeSale {
        sale: String,
        sold_on: Date,
        returned_on: Date,
    },
    #[error("the tenders sum to {tendered_minor}, the lines to {total_minor} (minor units)")]
    TendersDiffer { tendered_minor: i64, total_minor: i64 },
    #[error("the business date {business_date} is still to come, today is {today}")]
    StillToCome { business_date: Date, today: Date },
    #[error("a reason is needed")]
    ReasonMissing,
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// `None` until it is recorded.
    pub purchase: Option<Summary>,
    pub customer: Option<Id<Customer>>,
    /// Whom it belonged to before: a till that resends still names them.
    pub former_customers: BTreeSet<Id<Customer>>,
    /// Digests of what it said before it was corrected: an old file that comes again is no correction.
    pub superseded: BTreeSet<String>,
    pub voided: bool,
    /// How much a sale has of each SKU, kept where a return can find its sale by the number; elsewhere nobody would ask.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pieces: BTreeMap<String, Decimal>,
}

/// What a receipt says, without its customer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    pub kind: Kind,
    pub source: String,
    pub store: Option<String>,
    pub till: Option<String>,
    pub receipt: String,
    pub business_date: Date,
    pub currency: Currency,
    pub total_minor: i64,
    pub tax_minor: Option<i64>,
    pub of: Option<String>,
    /// SHA-256 of the lines, in whatever order they came: the lines themselves are not kept here.
    pub lines: String,
    /// The same of the tenders.
    pub tenders: String,
}

#[derive(Debug)]
pub struct Purchase;

/// The stream of a receipt. A receipt number is unique in its source, or, when a store or a till is named, in that till's day.
/// A store such as `country:Japan` names a market and no place: receipt numbers do not begin anew there.
pub fn purchase_id(
    source: &str,
    store: Option<&str>,
    till: Option<&str>,
    business_date: Date,
    receipt: &str,
) -> Id<Purchase> {
    Id::new(identity(source, store, till, business_date, receipt).id)
}

/// A slash in the name of a store or a till, or a receipt number that reads like store, till, day and number, would give two receipts
/// one key.
fn identity(source: &str, store: Option<&str>, till: Option<&str>, day: Date, receipt: &str) -> Identity {
    if !counts_by_day(store, till) {
        let third = receipt.split('/').nth(2);
        let is_like_a_tills = third.is_some_and(|part| part.parse::<Date>().is_ok());
        return id_from_parts(Purchase::NAME, source, receipt, is_like_a_tills, &[receipt]);
    }
    let (store, till, day) = (store.unwrap_or_default(), till.unwrap_or_default(), day.to_string());
    let key = format!("{store}/{till}/{day}/{receipt}");
    let is_ambiguous = store.contains('/') || till.contains('/');
    id_from_parts(
        Purchase::NAME,
        source,
        &key,
        is_ambiguous,
        &[store, till, &day, receipt],
    )
}

/// Do receipt numbers begin anew with each day of a till?
fn counts_by_day(store: Option<&str>, till: Option<&str>) -> bool {
    let is_a_place = store.is_some_and(|store| !store.starts_with(MARKET));
    is_a_place || till.is_some()
}

/// What `record` and `correct` say of their receipt.
struct Named<'a> {
    kind: Kind,
    source: &'a str,
    store: Option<&'a str>,
    till: Option<&'a str>,
    receipt: &'a str,
    business_date: Date,
    of: Option<&'a str>,
}

/// `None` of a command for a receipt that is named by its id alone.
fn named(command: &Command) -> Option<Named<'_>> {
    match command {
        Command::Record {
            kind,
            source,
            store,
            till,
            receipt,
            business_date,
            of,
            ..
        }
        | Command::Correct {
            kind,
            source,
            store,
            till,
            receipt,
            business_date,
            of,
            ..
        } => Some(Named {
            kind: *kind,
            source,
            store: store.as_deref(),
            till: till.as_deref(),
            receipt,
            business_date: *business_date,
            of: of.as_deref(),
        }),
        Command::AttachCustomer { .. } | Command::Void { .. } => None,
    }
}

impl Named<'_> {
    /// The identity of this receipt, or of another one of the same till and day.
    fn identity_of(&self, receipt: &str) -> Identity {
        identity(self.source, self.store, self.till, self.business_date, receipt)
    }
}

fn identity_of(command: &Command) -> Option<Identity> {
    named(command).map(|named| named.identity_of(named.receipt))
}

/// The sale that a return takes back, where the number of its receipt says which one that is. A return does not name
/// the day of its sale, so that among receipts that count by day it could be several.
fn sale_of(command: &Command) -> Option<Id<Purchase>> {
    let named = named(command)?;
    match named.kind == Kind::Return && !counts_by_day(named.store, named.till) {
        true => named.of.map(|sale| Id::new(named.identity_of(sale).id)),
        false => None,
    }
}

impl Stream for Purchase {
    const NAME: &'static str = "purchase";
    const KIND: StreamKind = StreamKind::Purchase;
    const BEGINS: &'static str = "record";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        identity_of(command).map_or(Home::Anywhere, |identity| Home::Exactly(identity.id))
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        let former = Purchase::former(command).map(|id| StreamRef::of(Id::<Purchase>::new(id)));
        let mut companions = match command {
            Command::Record {
                customer: Some(customer),
                ..
            }
            | Command::Correct {
                customer: Some(customer),
                ..
            }
            | Command::AttachCustomer { customer } => customer::companion(*customer),
            Command::Record { customer: None, .. } | Command::Correct { customer: None, .. } | Command::Void { .. } => {
                vec![]
            }
        };
        companions.extend(former);
        companions.extend(sale_of(command).map(StreamRef::of));
        companions
    }

    fn former(command: &Command) -> Option<Uuid> {
        identity_of(command)?.former
    }

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        match recorded_before(&command, at) {
            None => decide(state, command, at),
            Some((id, before)) => match decide(before, command, at)?.is_empty() {
                true => Ok(vec![]),
                // An event belongs to the stream that has the receipt.
                false => Err(Rejection::RecordedAs(id)),
            },
        }
    }

    /// A receipt is a document: it is replaced whole, and only its customer stays when it is left out.
    fn upsert(_: &State, command: Command, _: &Moment<'_>) -> Vec<Command> {
        match command {
            Command::Record {
                kind,
                source,
                store,
                till,
                receipt,
                business_date,
                currency,
                lines,
                tax_minor,
                tenders,
                customer,
                of,
            } => vec![Command::Correct {
                kind,
                source,
                store,
                till,
                receipt,
                business_date,
                currency,
                lines,
                tax_minor,
                tenders,
                customer,
                of,
                reinstate: false,
            }],
            other => vec![other],
        }
    }

    fn evolve(mut state: State, event: &Event, _: Timestamp) -> State {
        match event {
            Event::Recorded { customer, .. } => {
                state.purchase = summary(event);
                state.pieces = pieces_to_find(event);
                state.customer = *customer;
            }
            Event::CustomerAttached { from, to, .. } => {
                state.former_customers.extend(from);
                state.customer = Some(*to);
            }
            Event::Voided { .. } => state.voided = true,
            Event::Corrected { customer, .. } => {
                let now = summary(event);
                state.superseded.extend(state.purchase.as_ref().map(Summary::digest));
                state
                    .superseded
                    .remove(&now.as_ref().map(Summary::digest).unwrap_or_default());
                if state.customer != *customer {
                    state.former_customers.extend(state.customer);
                }
                state.purchase = now;
                state.pieces = pieces_to_find(event);
                state.customer = *customer;
                state.voided = false;
            }
        }
        state
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    let recorded = || state.purchase.as_ref().ok_or(Rejection::NotRecorded);
    let sale = sale_of(&command).map(|sale| at.state_of(sale));
    match command {
        Command::Record { .. } => record(state, content(command)?, sale, at),
        Command::Correct { reinstate, .. } => correct(state, content(command)?, reinstate, sale, at),
        Command::AttachCustomer { customer } => attach(state, recorded()?, customer, at),
        Command::Void { reason } => void(state, recorded()?, reason),
    }
}

/// The state of this receipt, when it was recorded while its key was that of another receipt too.
fn recorded_before<'a>(command: &Command, at: &Moment<'a>) -> Option<(Id<Purchase>, &'a State)> {
    let named = named(command)?;
    // The till is what is left of the key.
    let is_it = |purchase: &Summary| {
        purchase.store.as_deref().unwrap_or_default() == named.store.unwrap_or_default()
            && (purchase.receipt.as_str(), purchase.business_date) == (named.receipt, named.business_date)
    };
    let former = named
        .identity_of(named.receipt)
        .former
        .filter(|former| *former != at.id)?;
    let former = Id::<Purchase>::new(former);
    match at.state_of(former) {
        Companion::Known(state) if state.purchase.as_ref().is_some_and(is_it) => Some((former, state)),
        Companion::Known(_) | Companion::Elsewhere => None,
    }
}

/// The sale that a return takes back, when there is one.
type Sale<'a> = Option<Companion<'a, State>>;

/// What cannot be right whatever comes is refused. A sale may come after its return, be void after it, or be taken back by
/// several returns, each of which fits. Those are other streams, in other slots: a sale does not know its returns, and no
/// return knows the others. So these are not refused, but listed by the read model `returns_to_check`, which sees them all.
fn must_fit_sale(recorded: &Event, sale: &Sale<'_>) -> Result<(), Rejection> {
    let (Some(Companion::Known(sale)), Some(returned)) = (sale, summary(recorded)) else {
        return Ok(());
    };
    let Some(sold) = &sale.purchase else { return Ok(()) };
    let receipt = || sold.receipt.clone();
    if sale.voided {
        return Err(Rejection::SaleVoided(receipt()));
    }
    if sold.kind != Kind::Sale {
        return Err(Rejection::NoSale(receipt()));
    }
    if sold.currency != returned.currency {
        return Err(Rejection::AnotherCurrency {
            sale: receipt(),
            sold: sold.currency,
            returned: returned.currency,
        });
    }
    // Both are days of business: a till says no more exactly when something was sold.
    if returned.business_date < sold.business_date {
        return Err(Rejection::BeforeSale {
            sale: receipt(),
            sold_on: sold.business_date,
            returned_on: returned.business_date,
        });
    }
    let mut come_back = pieces(recorded);
    come_back.retain(|_, quantity| !quantity.is_zero());
    // Of a sale that was corrected into a receipt of a till's day nothing is kept.
    let is_kept = !sale.pieces.is_empty();
    let never_sold = come_back.keys().find(|sku| !sale.pieces.contains_key(*sku));
    if let Some(sku) = never_sold.filter(|_| is_kept) {
        return Err(Rejection::NeverSold {
            sale: receipt(),
            sku: sku.clone(),
        });
    }
    if returned.total_minor.saturating_neg() > sold.total_minor {
        return Err(Rejection::MoreThanSold {
            sale: receipt(),
            sold_minor: sold.total_minor,
            returned_minor: returned.total_minor.saturating_neg(),
        });
    }
    for (sku, quantity) in come_back {
        match sale.pieces.get(&sku) {
            Some(sold) if -quantity > *sold => {
                return Err(Rejection::MorePiecesThanSold {
                    sale: receipt(),
                    sku,
                    sold: *sold,
                    returned: -quantity,
                });
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// How much a receipt has of each SKU, all its lines together.
fn pieces(event: &Event) -> BTreeMap<String, Decimal> {
    let mut pieces: BTreeMap<String, Decimal> = BTreeMap::new();
    let (Event::Recorded { lines, .. } | Event::Corrected { lines, .. }) = event else {
        return pieces;
    };
    for line in lines {
        let quantity = pieces.entry(line.sku.clone()).or_default();
        *quantity = quantity.saturating_add(line.quantity).normalize();
    }
    pieces
}

/// The [`pieces`] of a sale that a return can find ([`sale_of`]).
fn pieces_to_find(event: &Event) -> BTreeMap<String, Decimal> {
    match event {
        Event::Recorded {
            kind: Kind::Sale,
            store,
            till,
            ..
        }
        | Event::Corrected {
            kind: Kind::Sale,
            store,
            till,
            ..
        } if !counts_by_day(store.as_deref(), till.as_deref()) => pieces(event),
        _ => BTreeMap::new(),
    }
}

fn record(state: &State, recorded: Event, sale: Sale<'_>, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    let Event::Recorded {
        customer,
        business_date,
        ..
    } = recorded
    else {
        unreachable!("the content of a receipt is what is recorded");
    };
    let Some(purchase) = &state.purchase else {
        must_have_come(business_date, at)?;
        must_fit_sale(&recorded, &sale)?;
        if let Some(customer) = customer {
            customer::must_be_open(customer, at)?;
        }
        return Ok(vec![recorded]);
    };
    let differences = summary(&recorded).map(|now| purchase.differences(&now));
    if let Some(differences) = differences.filter(|differences| !differences.is_empty()) {
        return Err(Rejection::AlreadyRecorded(differences.join(", ")));
    }
    match (customer, state.customer) {
        (None, _) => Ok(vec![]),
        (Some(named), Some(known)) if named == known || state.former_customers.contains(&named) => Ok(vec![]),
        (Some(_), Some(known)) => Err(Rejection::BelongsTo(known)),
        (Some(named), None) => attach(state, purchase, named, at),
    }
}

fn correct(
    state: &State,
    recorded: Event,
    reinstate: bool,
    sale: Sale<'_>,
    at: &Moment<'_>,
) -> Result<Vec<Event>, Rejection> {
    let (Some(purchase), Some(now)) = (&state.purchase, summary(&recorded)) else {
        return record(state, recorded, sale, at);
    };
    let fits_sale = must_fit_sale(&recorded, &sale);
    if (&now.source, &now.receipt) != (&purchase.source, &purchase.receipt) {
        return Err(Rejection::AnotherReceipt {
            system: purchase.source.clone(),
            known: purchase.receipt.clone(),
        });
    }
    let Event::Recorded {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines,
        total_minor,
        tax_minor,
        tenders,
        customer: named,
        of,
    } = recorded
    else {
        unreachable!("the content of a receipt is what is recorded");
    };
    // A file still names whom it belonged to before somebody attached it to another customer.
    let named = named.filter(|named| !state.former_customers.contains(named));
    if now == *purchase && !state.voided {
        return named.map_or(Ok(vec![]), |named| attach(state, purchase, named, at));
    }
    if now == *purchase && !reinstate {
        return Err(Rejection::StaysVoid);
    }
    if state.superseded.contains(&now.digest()) && !reinstate {
        return Err(Rejection::Superseded);
    }
    must_have_come(business_date, at)?;
    fits_sale?;
    if state.superseded.len() >= VERSIONS_MAX {
        return Err(Rejection::TooManyVersions);
    }
    let customer = named.or(state.customer);
    if let Some(customer) = customer
        && state.customer != Some(customer)
    {
        customer::must_be_open(customer, at)?;
    }
    let was = (!state.voided).then(|| Was {
        customer: state.customer,
        kind: purchase.kind,
        store: purchase.store.clone(),
        business_date: purchase.business_date,
        currency: purchase.currency,
        total_minor: purchase.total_minor,
    });
    Ok(vec![Event::Corrected {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines,
        total_minor,
        tax_minor,
        tenders,
        customer,
        of,
        was,
    }])
}

fn void(state: &State, purchase: &Summary, reason: String) -> Result<Vec<Event>, Rejection> {
    if reason.trim().is_empty() {
        return Err(Rejection::ReasonMissing);
    }
    if state.voided {
        return Ok(vec![]);
    }
    Ok(vec![Event::Voided {
        reason,
        customer: state.customer,
        kind: purchase.kind,
        source: purchase.source.clone(),
        store: purchase.store.clone(),
        receipt: purchase.receipt.clone(),
        business_date: purchase.business_date,
        currency: purchase.currency,
        total_minor: purchase.total_minor,
    }])
}

/// A till may be in a time zone ahead of ours, where it is tomorrow. No further.
fn must_have_come(business_date: Date, at: &Moment<'_>) -> Result<(), Rejection> {
    let today = at.calendar.day(at.now);
    match business_date > today.saturating_add(1.day()) {
        true => Err(Rejection::StillToCome { business_date, today }),
        false => Ok(()),
    }
}

fn attach(state: &State, purchase: &Summary, customer: Id<Customer>, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if state.voided {
        return Err(Rejection::Voided);
    }
    if state.customer == Some(customer) {
        return Ok(vec![]);
    }
    customer::must_be_open(customer, at)?;
    Ok(vec![Event::CustomerAttached {
        from: state.customer,
        to: customer,
        kind: purchase.kind,
        source: purchase.source.clone(),
        store: purchase.store.clone(),
        receipt: purchase.receipt.clone(),
        business_date: purchase.business_date,
        currency: purchase.currency,
        total_minor: purchase.total_minor,
    }])
}

/// What the command says, as the event that records it: amounts computed or checked, numbers in their shortest form.
fn content(command: Command) -> Result<Event, Rejection> {
    let (Command::Record {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines,
        tax_minor,
        tenders,
        customer,
        of,
    }
    | Command::Correct {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines,
        tax_minor,
        tenders,
        customer,
        of,
        reinstate: _,
    }) = command
    else {
        unreachable!("the other commands have no content");
    };
    if source.trim().is_empty() {
        return Err(Rejection::Empty("source"));
    }
    if receipt.trim().is_empty() {
        return Err(Rejection::Empty("receipt"));
    }
    if lines.is_empty() {
        return Err(Rejection::NoLines);
    }
    if lines.len() > LINES_MAX {
        return Err(Rejection::TooManyLines(lines.len()));
    }
    let mut checked = Vec::with_capacity(lines.len());
    for (index, line) in lines.into_iter().enumerate() {
        checked.push(check_line(index + 1, line, kind, currency)?);
    }
    let total_minor = sum(checked.iter().map(|line| line.amount_minor))?;
    if kind == Kind::Return && checked.iter().all(|line| line.quantity.is_zero()) {
        return Err(Rejection::NothingReturned);
    }
    if let Some(tax_minor) = tax_minor {
        check_tax(tax_minor, &checked, total_minor)?;
    }
    if !tenders.is_empty() {
        check_tenders(&tenders, total_minor)?;
    }
    Ok(Event::Recorded {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines: checked,
        total_minor,
        tax_minor,
        tenders,
        customer,
        of,
    })
}

fn check_line(number: usize, line: RungLine, kind: Kind, currency: Currency) -> Result<Line, Rejection> {
    let RungLine {
        sku,
        name,
        quantity,
        unit_price,
        amount_minor: given,
    } = line;
    if sku.trim().is_empty() {
        return Err(Rejection::SkuMissing(number));
    }
    let computed = amount(quantity, unit_price, currency).ok_or(Rejection::AmountTooLarge(number))?;
    if kind == Kind::Return && quantity > Decimal::ZERO {
        return Err(Rejection::PositiveQuantityInReturn(number));
    }
    if kind == Kind::Return && computed > 0 {
        return Err(Rejection::PositiveAmountInReturn(number));
    }
    match given {
        Some(given) if given != computed => Err(Rejection::WrongAmount {
            line: number,
            given_minor: given,
            computed_minor: computed,
        }),
        Some(_) | None => Ok(Line {
            sku,
            name,
            quantity: quantity.normalize(),
            unit_price: unit_price.normalize(),
            amount_minor: computed,
        }),
    }
}

/// `quantity` times `unit_price` rounded half-even to the minor unit, once; `None` when it does not fit.
fn amount(quantity: Decimal, unit_price: Decimal, currency: Currency) -> Option<i64> {
    let (quantity, unit_price) = (quantity.normalize(), unit_price.normalize());
    let product = quantity.checked_mul(unit_price)?;
    // `Decimal` rounds a product of more than 28 digits; rounding that again could end on the wrong cent.
    let is_exact = product.is_zero() || product.scale() == quantity.scale() + unit_price.scale();
    if !is_exact {
        return None;
    }
    let rounded = product.round_dp_with_strategy(currency.exponent(), RoundingStrategy::MidpointNearestEven);
    Money::from_decimal(rounded, currency).ok().map(|money| money.minor)
}

/// Lines of both signs may have taxes of both signs, so that only their sums bound the tax.
fn check_tax(tax_minor: i64, lines: &[Line], total_minor: i64) -> Result<(), Rejection> {
    let amounts = || lines.iter().map(|line| line.amount_minor);
    let given_back = sum(amounts().filter(|amount| *amount < 0))?;
    let taken = sum(amounts().filter(|amount| *amount > 0))?;
    match (given_back..=taken).contains(&tax_minor) {
        true => Ok(()),
        false => Err(Rejection::TaxAboveTotal { tax_minor, total_minor }),
    }
}

fn check_tenders(tenders: &[Tender], total_minor: i64) -> Result<(), Rejection> {
    if tenders.iter().any(|tender| tender.kind.trim().is_empty()) {
        return Err(Rejection::Empty("type of a tender"));
    }
    let tendered_minor = sum(tenders.iter().map(|tender| tender.amount_minor))?;
    if tendered_minor != total_minor {
        return Err(Rejection::TendersDiffer {
            tendered_minor,
            total_minor,
        });
    }
    Ok(())
}

fn sum(amounts: impl Iterator<Item = i64>) -> Result<i64, Rejection> {
    let mut total: i64 = 0;
    for amount in amounts {
        total = total.checked_add(amount).ok_or(Rejection::TotalTooLarge)?;
    }
    if total.unsigned_abs() > MINOR_MAX.unsigned_abs() {
        return Err(Rejection::TotalTooLarge);
    }
    Ok(total)
}

/// What a `Recorded` or a `Corrected` says; `None` of other events.
fn summary(event: &Event) -> Option<Summary> {
    let (Event::Recorded {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines,
        total_minor,
        tax_minor,
        tenders,
        of,
        ..
    }
    | Event::Corrected {
        kind,
        source,
        store,
        till,
        receipt,
        business_date,
        currency,
        lines,
        total_minor,
        tax_minor,
        tenders,
        of,
        ..
    }) = event
    else {
        return None;
    };
    Some(Summary {
        kind: *kind,
        source: source.clone(),
        store: store.clone(),
        till: till.clone(),
        receipt: receipt.clone(),
        business_date: *business_date,
        currency: *currency,
        total_minor: *total_minor,
        tax_minor: *tax_minor,
        of: of.clone(),
        lines: digest_of_all(lines),
        tenders: digest_of_all(tenders),
    })
}

impl Summary {
    fn digest(&self) -> String {
        digest_of_all(std::slice::from_ref(self))
    }

    /// What `now` says otherwise, in words.
    fn differences(&self, now: &Summary) -> Vec<String> {
        let mut differences = Vec::new();
        let (was_total, total) = (
            Money::new(self.total_minor, self.currency),
            Money::new(now.total_minor, now.currency),
        );
        if was_total != total {
            differences.push(format!("total {was_total}, now {total}"));
        }
        if self.business_date != now.business_date {
            differences.push(format!("day {}, now {}", self.business_date, now.business_date));
        }
        let others = [
            ("kind", self.kind != now.kind),
            ("source", self.source != now.source),
            ("store", self.store != now.store),
            ("till", self.till != now.till),
            ("receipt", self.receipt != now.receipt),
            ("lines", self.lines != now.lines),
            ("tax", self.tax_minor != now.tax_minor),
            ("tenders", self.tenders != now.tenders),
            ("the sale it takes back", self.of != now.of),
        ];
        let others = others.iter().filter(|(_, differs)| *differs);
        differences.extend(others.map(|(what, _)| (*what).to_owned()));
        differences
    }
}

/// SHA-256 in hex of all of them, in whatever order they stand.
fn digest_of_all<T: Serialize>(all: &[T]) -> String {
    let mut parts: Vec<String> = all
        .iter()
        .map(|one| serde_json::to_string(one).expect("a receipt is plain data"))
        .collect();
    parts.sort_unstable();
    crate::hex(&Sha256::digest(parts.join("\n")))
}

/// Decimals that come as text and lose nothing on the way; a JSON number with a fraction has lost it already.
mod exact {
    use std::fmt;

    use rust_decimal::Decimal;
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::de::{Deserializer, Error, Visitor};

    use crate::exact_decimal;

    struct Exact {
        integers: bool,
    }

    impl Visitor<'_> for Exact {
        type Value = Decimal;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(if self.integers {
                "an integer, or a decimal as text such as \"2.55\""
            } else {
                "a decimal as text such as \"2.55\""
            })
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
            exact_decimal(text)
                .ok_or_else(|| E::custom(format!("{text:?} is no decimal of at most 28 digits such as \"2.55\"")))
        }

        fn visit_i64<E: Error>(self, integer: i64) -> Result<Decimal, E> {
            match self.integers {
                true => Ok(integer.into()),
                false => Err(E::invalid_type(serde::de::Unexpected::Signed(integer), &self)),
            }
        }

        fn visit_u64<E: Error>(self, integer: u64) -> Result<Decimal, E> {
            match self.integers {
                true => Ok(integer.into()),
                false => Err(E::invalid_type(serde::de::Unexpected::Unsigned(integer), &self)),
            }
        }
    }

    pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        deserializer.deserialize_any(Exact { integers: false })
    }

    pub fn text_or_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        deserializer.deserialize_any(Exact { integers: true })
    }

    /// Digits, with a minus before them and a point among them; so many of them that every one fits.
    const PATTERN: &str = "^-?[0-9]+(\\.[0-9]+)?$";
    const CHARACTERS: u32 = 28;
    /// The integers that every reader of JSON takes for what they are.
    const EXACT_TO: i64 = (1 << 53) - 1;

    pub fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": CHARACTERS, "examples": ["2.55"]})
    }

    pub fn text_or_integer_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"], "pattern": PATTERN, "maxLength": CHARACTERS,
            "minimum": -EXACT_TO, "maximum": EXACT_TO, "examples": [3, "0.350"]
        })
    }
}

#[cfg(test)]
mod specs;
